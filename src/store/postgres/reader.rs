//! A reading connection of the pool.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hashbrown::HashMap;
use postgres::Statement;

use crate::base::Wall;
use crate::store::backend::Reader;
use crate::store::fault::{Fault, Unavailable};
use crate::store::postgres::conn::{Link, Session, fault};
use crate::store::row::{Digest, Row, checksum};

/// Reads rows; connects when needed, closes when idle.
pub(crate) struct PgReader {
    link: Arc<Link>,
    /// Readers of the first numbers keep their connection while idle.
    index: usize,
    open: Option<(Session, Statement)>,
}

const FIND: &str = "SELECT e.digest, e.stored_at, e.keep_until,
        coalesce(e.expired_at, CASE WHEN e.id <= s.expired_id THEN s.expired_at END),
        e.checksum, e.path, e.meta, e.body
    FROM apiproxyd_state_v1 s, apiproxyd_entries_v1 e
    WHERE e.digest = ANY($1) AND e.id > s.cleared_id";

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
            let find = session.client.prepare(FIND).map_err(fault)?;
            self.open = Some((session, find));
        }
        let missing = || Fault::new(Unavailable::Bug, "a connection that is not there");
        self.open.as_mut().ok_or_else(missing)
    }

    fn query(&mut self, digests: &[Digest]) -> Result<HashMap<Digest, Row>, Fault> {
        let (session, find) = self.ready()?;
        let wanted: Vec<&[u8]> = digests.iter().map(<[u8; 16]>::as_slice).collect();
        let rows = session.client.query(&*find, &[&wanted]).map_err(fault)?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            match decoded(row) {
                Some(row) => {
                    found.insert(row.digest, row);
                }
                None => {
                    self.link.shared.stats.rows_damaged.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(found)
    }
}

fn decoded(row: &postgres::Row) -> Option<Row> {
    let digest: Digest = row.try_get::<_, &[u8]>(0).ok()?.try_into().ok()?;
    let path: &[u8] = row.try_get(5).ok()?;
    let meta: &[u8] = row.try_get(6).ok()?;
    let body: &[u8] = row.try_get(7).ok()?;
    let sum: i64 = row.try_get(4).ok()?;
    if sum != i64::from(checksum(&digest, path, meta, body)) {
        return None;
    }
    Some(Row {
        digest,
        path: std::str::from_utf8(path).ok()?.into(),
        meta: Bytes::copy_from_slice(meta),
        body: Bytes::copy_from_slice(body),
        stored_at: from_sql(row.try_get(1).ok()?),
        keep_until: from_sql(row.try_get(2).ok()?),
        expired_at: row.try_get::<_, Option<i64>>(3).ok()?.map(from_sql),
    })
}

impl Reader for PgReader {
    fn read(&mut self, digests: &[Digest]) -> Result<Vec<Option<Row>>, Fault> {
        let reused = self.open.is_some();
        let found = match self.query(digests) {
            // A connection that had died unnoticed: a new one may well work, and reading twice
            // harms nobody.
            Err(Fault { reason: Unavailable::Disconnected, .. }) if reused => {
                self.open = None;
                self.query(digests)?
            }
            other => other?,
        };
        // Two cores may ask for the same row at once.
        Ok(digests.iter().map(|digest| found.get(digest).cloned()).collect())
    }

    fn idle(&mut self) -> Result<(), Fault> {
        let (time, keep) = (self.link.max_idle_time, self.index < self.link.max_idle_conns);
        let alive = match &mut self.open {
            Some((session, _)) if !keep || (!time.is_zero() && session.idle_for() >= time) => {
                self.open = None;
                return Ok(());
            }
            Some((session, _)) => session.answers(&self.link),
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
