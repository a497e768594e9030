//! The writing connection, which listens for purges of other instances too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio_postgres::types::ToSql;
use tokio_postgres::{SimpleQueryMessage, Statement};

use crate::base::Wall;
use crate::store::backend::{Purged, Step, Upkeep, Writer, Written};
use crate::store::fault::{Fault, Unavailable};
use crate::store::postgres::conn::{LOCK_PURGE, Link, Session, fault};
use crate::store::postgres::purge::decoded;
use crate::store::postgres::reader::{self, Found, to_sql};
use crate::store::postgres::wire::Wire;
use crate::store::row::{Digest, Purge, Row};
use crate::store::stats::Usage;

/// Rows removed or changed in one transaction: it holds the lock that all puts share.
pub(super) const STEP_ROWS: i64 = 1_000;
/// The back-stop of `NOTIFY`.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// How often old purges are forgotten, and after how long. An instance that was away for longer
/// treats it as a clear.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
const PRUNE_AFTER: &str = "1 day";
/// Up to this number rows are counted one by one; beyond, the server's estimate is good enough.
const COUNT_MAX: i64 = 100_000;

const PUT: &str = "INSERT INTO apiproxyd_entries_v1
        (digest, id, stored_at, keep_until, checksum, path, meta, body)
    SELECT t.digest, nextval('apiproxyd_ids_v1'), t.stored_at, t.keep_until, t.checksum, t.path,
        t.meta, t.body
    FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[],
        $7::bytea[]) AS t(digest, stored_at, keep_until, checksum, path, meta, body)
    ON CONFLICT (digest) DO UPDATE SET id = excluded.id, stored_at = excluded.stored_at,
        keep_until = excluded.keep_until, expired_at = NULL, checksum = excluded.checksum,
        path = excluded.path, meta = excluded.meta, body = excluded.body";

/// What this instance knows of the purges of all.
#[derive(Debug)]
pub(crate) struct Known {
    /// The last number that was looked at; none before the first look.
    seen: Option<i64>,
    /// Numbers of our own purges above it.
    own: Vec<i64>,
    begun: Instant,
    /// A look or a connection has failed.
    failed: bool,
}

/// A first look that comes later finds an instance that has served, and kept, answers meanwhile.
const FIRST_LOOK_SPAN: Duration = Duration::from_secs(1);

impl Known {
    /// Nothing, to begin with.
    pub(crate) fn nothing() -> Self {
        Self { seen: None, own: Vec::new(), begun: Instant::now(), failed: false }
    }

    /// Whether purges of which nothing is known may concern what this instance has cached.
    fn is_late(&self) -> bool {
        self.failed || self.begun.elapsed() > FIRST_LOOK_SPAN
    }
}

/// Writes rows.
pub(crate) struct PgWriter {
    link: Arc<Link>,
    pub(super) session: Session,
    put: Statement,
    /// Where this connection is for look-ups too, from the first one on.
    find: Option<Statement>,
    known: Arc<Mutex<Known>>,
    poll_due: Instant,
    prune_due: Instant,
    /// Whether rows that a clear has hidden may be left.
    pub(super) reclaim: bool,
}

impl PgWriter {
    pub(crate) fn open(link: &Arc<Link>, known: &Arc<Mutex<Known>>) -> Result<Self, Fault> {
        let connected = connect(link);
        known.lock().unwrap_or_else(PoisonError::into_inner).failed |= connected.is_err();
        let (session, put) = connected?;
        let now = Instant::now();
        Ok(Self {
            link: Arc::clone(link),
            session,
            put,
            find: None,
            known: Arc::clone(known),
            poll_due: now,
            prune_due: now,
            reclaim: true,
        })
    }

    /// Look-ups, where no other connection may be open.
    pub(super) fn find(
        &mut self,
        digests: &[Digest],
        body_bytes_max: i32,
    ) -> Result<HashMap<Digest, Found>, Fault> {
        let statement = match &self.find {
            Some(it) => it,
            None => self.find.insert(reader::prepare(&mut self.session)?),
        };
        let wanted = (digests, body_bytes_max);
        reader::find(&mut self.session, statement, wanted, &self.link.shared)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` in a transaction that holds the purge lock. On a fault nothing of it stays.
    fn transaction<T>(
        &mut self,
        lock: &str,
        f: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let begin = format!("BEGIN; SELECT {lock}({LOCK_PURGE})");
        let begun = self.session.wire.batch_execute(&begin);
        let result = begun.and_then(|()| f(self)).and_then(|it| {
            self.session.wire.batch_execute("COMMIT")?;
            Ok(it)
        });
        if result.is_err() {
            // A connection that cannot even do this is of no use.
            self.session.wire.batch_execute("ROLLBACK")?;
        }
        result
    }

    pub(super) fn execute(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<i64, Fault> {
        let rows = self.session.wire.execute(sql, params)?;
        Ok(i64::try_from(rows).unwrap_or(i64::MAX))
    }

    fn number(&mut self, sql: &str) -> Result<i64, Fault> {
        let row = self.session.wire.query_one(sql, &[])?;
        row.try_get(0).map_err(fault)
    }

    fn put_locked(&mut self, rows: &[&Row]) -> Result<Written, Fault> {
        if last_purge(&mut self.session.wire)? > self.known().seen.unwrap_or(0) {
            return Ok(Written::Behind);
        }
        let digests: Vec<&[u8]> = rows.iter().map(|it| it.digest.as_slice()).collect();
        let stored: Vec<i64> = rows.iter().map(|it| to_sql(it.stored_at)).collect();
        let keep: Vec<i64> = rows.iter().map(|it| to_sql(it.keep_until)).collect();
        let sums: Vec<i64> = rows.iter().map(|it| i64::from(it.checksum())).collect();
        let paths: Vec<&[u8]> = rows.iter().map(|it| it.path.as_bytes()).collect();
        let metas: Vec<&[u8]> = rows.iter().map(|it| &it.meta[..]).collect();
        let bodies: Vec<&[u8]> = rows.iter().map(|it| &it.body[..]).collect();
        let params: [&(dyn ToSql + Sync); 7] =
            [&digests, &stored, &keep, &sums, &paths, &metas, &bodies];
        self.session.wire.execute_prepared(&self.put, &params)?;
        Ok(Written::All)
    }

    /// Purges of other instances since the last time.
    fn news(&mut self) -> Result<Vec<Purge>, Fault> {
        let last = last_purge(&mut self.session.wire)?;
        let Some(seen) = self.known().seen else {
            let mut known = self.known();
            known.seen = Some(last);
            // What came before the start is no news; what came since then is not known.
            return Ok(if known.is_late() { vec![Purge::CLEAR] } else { Vec::new() });
        };
        if last == seen {
            return Ok(Vec::new());
        }
        let first = "SELECT coalesce(min(seq), 0) FROM apiproxyd_purges_v1";
        if last < seen || self.number(first)? > seen + 1 {
            // The tables are new, or so long ago was the last time that purges were forgotten.
            let mut known = self.known();
            (known.seen, known.own) = (Some(last), Vec::new());
            drop(known);
            self.reclaim = true;
            return Ok(vec![Purge::CLEAR]);
        }
        let since = "SELECT seq, effect, selection, subject FROM apiproxyd_purges_v1
            WHERE seq > $1 AND seq <= $2 ORDER BY seq";
        let rows = self.session.wire.query(since, &[&seen, &last])?;
        let mut purges = Vec::new();
        let mut known = self.known();
        for row in &rows {
            let seq: i64 = row.try_get(0).map_err(fault)?;
            if !known.own.contains(&seq) {
                let (effect, selection) =
                    (row.try_get(1).map_err(fault)?, row.try_get(2).map_err(fault)?);
                let subject = row.try_get(3).map_err(fault)?;
                purges.push(decoded(effect, selection, subject));
            }
        }
        known.seen = Some(last);
        known.own.retain(|it| *it > last);
        Ok(purges)
    }

    /// Removes rows that a clear has hidden. Whether there may be more. Of several instances each
    /// takes others.
    fn reclaim(&mut self) -> Result<bool, Fault> {
        if !self.reclaim {
            return Ok(false);
        }
        let gone = self.execute(
            "DELETE FROM apiproxyd_entries_v1 WHERE digest IN (
                SELECT digest FROM apiproxyd_entries_v1
                WHERE id <= (SELECT cleared_id FROM apiproxyd_state_v1)
                LIMIT $1 FOR UPDATE SKIP LOCKED)",
            &[&STEP_ROWS],
        )?;
        self.reclaim = gone > 0;
        Ok(self.reclaim)
    }

    fn prune(&mut self) -> Result<(), Fault> {
        if Instant::now() < self.prune_due {
            return Ok(());
        }
        self.prune_due = Instant::now() + PRUNE_EVERY;
        // The last one stays, so that numbers can be compared.
        let sql = format!(
            "DELETE FROM apiproxyd_purges_v1 WHERE at < now() - interval '{PRUNE_AFTER}'
             AND seq < (SELECT max(seq) FROM apiproxyd_purges_v1)"
        );
        self.execute(&sql, &[]).map(|_| ())
    }

    pub(super) fn count(&mut self) -> Result<i64, Fault> {
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM apiproxyd_entries_v1
             WHERE id > (SELECT cleared_id FROM apiproxyd_state_v1) LIMIT {COUNT_MAX}) t"
        );
        let counted = self.number(&sql)?;
        if counted < COUNT_MAX {
            return Ok(counted);
        }
        let estimate = "SELECT reltuples::bigint FROM pg_class
            WHERE oid = 'apiproxyd_entries_v1'::regclass";
        Ok(self.number(estimate)?.max(counted))
    }
}

fn connect(link: &Link) -> Result<(Session, Statement), Fault> {
    let mut session = link.connect()?;
    session.make_schema()?;
    session.wire.batch_execute("LISTEN apiproxyd_purges_v1")?;
    let put = session.wire.prepare(PUT)?;
    Ok((session, put))
}

/// By the simple protocol, in one round trip; to be asked after the lock was taken.
fn last_purge(wire: &mut Wire) -> Result<i64, Fault> {
    let sql = "SELECT coalesce(max(seq), 0) FROM apiproxyd_purges_v1";
    let messages = wire.simple_query(sql)?;
    let text = messages.iter().find_map(|it| match it {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let number = text.and_then(|it| it.parse().ok());
    number.ok_or_else(|| Fault::new(Unavailable::Bug, "no number of the last purge"))
}

impl Writer for PgWriter {
    fn put(&mut self, rows: &[Arc<Row>]) -> Result<Written, Fault> {
        // In one order everywhere, so that two instances cannot wait for each other.
        let mut sorted: Vec<&Row> = rows.iter().map(|it| &**it).collect();
        sorted.sort_by_key(|it| it.digest);
        let written =
            self.transaction("pg_advisory_xact_lock_shared", |it| it.put_locked(&sorted))?;
        if written == Written::Behind {
            self.poll_due = Instant::now();
        }
        Ok(written)
    }

    fn purge(&mut self, purges: &[Purge], now: Wall) -> Result<Purged, Fault> {
        let (purged, seqs) =
            self.transaction("pg_advisory_xact_lock", |it| it.purge_locked(purges, now))?;
        self.known().own.extend(seqs);
        Ok(purged)
    }

    fn sweep(&mut self, now: Wall) -> Result<Step, Fault> {
        let now = to_sql(now);
        let rows = self.execute(
            "DELETE FROM apiproxyd_entries_v1 WHERE digest IN (
                SELECT digest FROM apiproxyd_entries_v1
                WHERE keep_until < 9223372036854775807 AND keep_until <= $1
                LIMIT $2 FOR UPDATE SKIP LOCKED)",
            &[&now, &STEP_ROWS],
        )?;
        Ok(Step { rows: rows.unsigned_abs(), more: rows >= STEP_ROWS })
    }

    fn upkeep(&mut self) -> Result<Upkeep, Fault> {
        if self.session.is_too_old(&self.link) {
            (self.session, self.put) = connect(&self.link)?;
            self.find = None;
            // Notifications may have been missed in between.
            self.poll_due = Instant::now();
        }
        let notified = self.session.wire.is_notified();
        if !notified && !self.reclaim && Instant::now() < self.poll_due {
            return Ok(Upkeep::default());
        }
        self.poll_due = Instant::now() + POLL_EVERY;
        let news = self.news();
        self.known().failed |= news.is_err();
        let remote = news?;
        self.reclaim |= remote.contains(&Purge::CLEAR);
        let more = self.reclaim()?;
        self.prune()?;
        Ok(Upkeep { more, remote })
    }

    fn probe(&mut self, bytes: usize) -> Result<(), Fault> {
        let row = Row::probe(bytes);
        self.transaction("pg_advisory_xact_lock_shared", |it| {
            it.put_locked(&[&row])?;
            let sql = "DELETE FROM apiproxyd_entries_v1 WHERE digest = $1";
            it.execute(sql, &[&row.digest.as_slice()]).map(|_| ())
        })
    }

    fn usage(&mut self) -> Result<Usage, Fault> {
        let rows = self.count()?;
        let bytes = "SELECT pg_total_relation_size('apiproxyd_entries_v1')";
        let bytes = self.number(bytes)?;
        Ok(Usage { rows: rows.unsigned_abs(), bytes: bytes.unsigned_abs() })
    }
}
