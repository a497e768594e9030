//! A reading connection of the pool.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hashbrown::HashMap;
use tokio_postgres::Statement;

use crate::base::Wall;
use crate::store::backend::Reader;
use crate::store::fault::{Fault, Unavailable};
use crate::store::postgres::conn::{Link, Session};
use crate::store::row::{Digest, Row, checksum};
use crate::store::shared::Shared;

/// Reads rows; connects when needed, closes when idle.
pub(crate) struct PgReader {
    link: Arc<Link>,
    /// Readers of the first numbers keep their connection while idle.
    index: usize,
    open: Option<(Session, Statement)>,
}

/// Bodies above `$2` bytes are left out: their length is known without reading them, and a batch of
/// them would take memory without limit.
const FIND: &str = "SELECT e.digest, e.stored_at, e.keep_until,
        coalesce(e.expired_at, CASE WHEN e.id <= s.expired_id THEN s.expired_at END),
        e.checksum, e.path, e.meta, CASE WHEN octet_length(e.body) <= $2 THEN e.body END
    FROM apiproxyd_state_v1 s, apiproxyd_entries_v1 e
    WHERE e.digest = ANY($1) AND e.id > s.cleared_id";
/// A batch of so many look-ups of such bodies takes at most 32 MiB.
const BATCH_BODY_BYTES_MAX: i32 = 256 * 1024;

impl PgReader {
    pub(crate) fn open(link: &Arc<Link>, index: usize) -> Result<Self, Fault> {
        let mut reader = Self { link: Arc::clone(link), index, open: None };
        reader.ready()?;
        Ok(reader)
    }

    /// A connection that is fit for use.
    fn ready(&mut self) -> Result<&mut (Session, Statement), Fault> {
        let fit = self.open.as_mut().is_some_and(|(session, _)| session.is_fit(&self.link));
        if !fit {
            self.open = None;
            let mut session = self.link.connect()?;
            let find = prepare(&mut session)?;
            self.open = Some((session, find));
        }
        let missing = || Fault::new(Unavailable::Bug, "a connection that is not there");
        self.open.as_mut().ok_or_else(missing)
    }

    /// What is found, without bodies that are longer than that.
    fn query(
        &mut self,
        digests: &[Digest],
        body_bytes_max: i32,
    ) -> Result<HashMap<Digest, Found>, Fault> {
        let reused = self.open.is_some();
        match self.try_query(digests, body_bytes_max) {
            // A connection that had died unnoticed: a new one may well work, and reading twice
            // harms nobody.
            Err(Fault { reason: Unavailable::Disconnected, .. }) if reused => {
                self.open = None;
                self.try_query(digests, body_bytes_max)
            }
            other => other,
        }
    }

    fn try_query(
        &mut self,
        digests: &[Digest],
        body_bytes_max: i32,
    ) -> Result<HashMap<Digest, Found>, Fault> {
        let shared = Arc::clone(&self.link.shared);
        let (session, statement) = self.ready()?;
        find(session, statement, (digests, body_bytes_max), &shared)
    }
}

/// Prepares what [`find`] needs.
pub(super) fn prepare(session: &mut Session) -> Result<Statement, Fault> {
    session.wire.prepare(FIND)
}

/// What is found of these digests, without bodies that are longer than that.
pub(super) fn find(
    session: &mut Session,
    statement: &Statement,
    (digests, body_bytes_max): (&[Digest], i32),
    shared: &Shared,
) -> Result<HashMap<Digest, Found>, Fault> {
    let wanted: Vec<&[u8]> = digests.iter().map(<[u8; 16]>::as_slice).collect();
    let rows = session.wire.query_prepared(statement, &[&wanted, &body_bytes_max])?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        match decoded(row) {
            Some((digest, it)) => {
                found.insert(digest, it);
            }
            None => {
                shared.stats.rows_damaged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(found)
}

/// A row that was found.
pub(super) enum Found {
    Whole(Row),
    /// Its body was left out.
    Large,
}

fn decoded(row: &tokio_postgres::Row) -> Option<(Digest, Found)> {
    let digest: Digest = row.try_get::<_, &[u8]>(0).ok()?.try_into().ok()?;
    let path: &[u8] = row.try_get(5).ok()?;
    let meta: &[u8] = row.try_get(6).ok()?;
    let Some(body) = row.try_get::<_, Option<&[u8]>>(7).ok()? else {
        return Some((digest, Found::Large));
    };
    let sum: i64 = row.try_get(4).ok()?;
    if sum != i64::from(checksum(&digest, path, meta, body)) {
        return None;
    }
    let row = Row {
        digest,
        path: std::str::from_utf8(path).ok()?.into(),
        meta: Bytes::copy_from_slice(meta),
        body: Bytes::copy_from_slice(body),
        stored_at: from_sql(row.try_get(1).ok()?),
        keep_until: from_sql(row.try_get(2).ok()?),
        expired_at: row.try_get::<_, Option<i64>>(3).ok()?.map(from_sql),
    };
    Some((digest, Found::Whole(row)))
}

/// Rows in the order of their digests, as [`Reader::read`] returns them: large ones by themselves.
pub(super) fn in_batches(
    digests: &[Digest],
    mut query: impl FnMut(&[Digest], i32) -> Result<HashMap<Digest, Found>, Fault>,
) -> Result<Vec<Option<Row>>, Fault> {
    let found = query(digests, BATCH_BODY_BYTES_MAX)?;
    let mut rows = Vec::with_capacity(digests.len());
    for digest in digests {
        // Two cores may ask for the same row at once.
        match found.get(digest) {
            Some(Found::Whole(row)) => rows.push(Some(row.clone())),
            None => rows.push(None),
            // By itself, and next time: what is before it need not wait.
            Some(Found::Large) if rows.is_empty() => {
                let found = query(&[*digest], i32::MAX)?.remove(digest);
                return Ok(vec![match found {
                    Some(Found::Whole(row)) => Some(row),
                    Some(Found::Large) | None => None,
                }]);
            }
            Some(Found::Large) => return Ok(rows),
        }
    }
    Ok(rows)
}

impl Reader for PgReader {
    fn read(&mut self, digests: &[Digest]) -> Result<Vec<Option<Row>>, Fault> {
        in_batches(digests, |digests, bytes| self.query(digests, bytes))
    }

    fn idle(&mut self) -> Result<(), Fault> {
        let (time, keep) = (self.link.max_idle_time, self.index < self.link.max_idle_conns);
        let alive = match &mut self.open {
            Some((session, _)) if !keep || (!time.is_zero() && session.idle_for() >= time) => {
                self.open = None;
                return Ok(());
            }
            Some((session, _)) => !session.is_too_old(&self.link) && session.answers(),
            // Nobody misses it, unless it may bring the news that the server is back.
            None => self.link.shared.stats.reads_unavailable().is_none(),
        };
        if !alive {
            self.open = None;
            self.ready()?;
        }
        Ok(())
    }
}

/// SQL has no unsigned numbers: the greatest stands for [`Wall::FOREVER`].
pub(crate) fn to_sql(wall: Wall) -> i64 {
    i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)
}

fn from_sql(millis: i64) -> Wall {
    if millis == i64::MAX {
        return Wall::FOREVER;
    }
    Wall::from_millis(u64::try_from(millis).unwrap_or(0))
}
