//! The reading connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension};

use crate::base::Wall;
use crate::store::backend::{READ_BYTES_MAX, Reader};
use crate::store::fault::{Fault, Unavailable};
use crate::store::row::{Digest, Row, checksum};
use crate::store::sqlite::Place;
use crate::store::sqlite::conn::{self, fault};

/// Reads rows, a batch in one transaction.
pub(crate) struct SqliteReader {
    place: Arc<Place>,
    conn: Connection,
    generation: u64,
}

const STATE: &str = "SELECT cleared_id, expired_id, expired_at FROM state";
const FIND: &str = "SELECT id, stored_at, keep_until, expired_at, checksum, path, meta, body
    FROM entries WHERE digest = ?1";

/// What clears and expiries of everything left behind.
struct State {
    cleared_id: i64,
    expired_id: i64,
    expired_at: i64,
}

impl SqliteReader {
    pub(crate) fn open(place: &Arc<Place>) -> Result<Self, Fault> {
        let generation = place.generation();
        if generation == 0 {
            // The writer knows why.
            let reason = place.shared.stats.writes_unavailable().unwrap_or(Unavailable::Starting);
            return Err(Fault::new(reason, "the cache file is not open yet"));
        }
        let conn = place.noting(generation, conn::open_reader(&place.path))?;
        Ok(Self { place: Arc::clone(place), conn, generation })
    }

    /// Follows the writer to a file that has replaced ours.
    fn follow(&mut self) -> Result<(), Fault> {
        if self.generation != self.place.generation() {
            *self = Self::open(&self.place)?;
        }
        Ok(())
    }

    fn read_all(&self, digests: &[Digest]) -> Result<Vec<Option<Row>>, Fault> {
        // One transaction: one instant, and one lock of the log instead of one a row.
        self.run("BEGIN")?;
        let rows = self.read_in_transaction(digests);
        let ended = self.run("COMMIT");
        let rows = rows?;
        ended?;
        Ok(rows)
    }

    fn run(&self, sql: &str) -> Result<(), Fault> {
        self.conn.prepare_cached(sql).and_then(|mut it| it.execute([])).map_err(fault)?;
        Ok(())
    }

    fn read_in_transaction(&self, digests: &[Digest]) -> Result<Vec<Option<Row>>, Fault> {
        let mut state = self.conn.prepare_cached(STATE).map_err(fault)?;
        let state = state.query_row([], |row| {
            Ok(State { cleared_id: row.get(0)?, expired_id: row.get(1)?, expired_at: row.get(2)? })
        });
        let state = state.map_err(fault)?;
        let mut find = self.conn.prepare_cached(FIND).map_err(fault)?;
        let (mut rows, mut bytes) = (Vec::with_capacity(digests.len()), 0);
        for digest in digests {
            let row = self.find(&mut find, &state, digest)?;
            bytes += row.as_ref().map_or(0, Row::size_bytes);
            rows.push(row);
            if bytes > READ_BYTES_MAX {
                break;
            }
        }
        Ok(rows)
    }

    fn find(
        &self,
        find: &mut CachedStatement<'_>,
        state: &State,
        digest: &Digest,
    ) -> Result<Option<Row>, Fault> {
        let found = find.query_row([digest.as_slice()], |row| {
            let id: i64 = row.get(0)?;
            if id <= state.cleared_id {
                return Ok(None);
            }
            let own: Option<i64> = row.get(3)?;
            let expired_at = own.or((id <= state.expired_id).then_some(state.expired_at));
            let stored: i64 = row.get(4)?;
            let (path, meta, body) =
                (blob(row.get_ref(5)?), blob(row.get_ref(6)?), blob(row.get_ref(7)?));
            let whole = stored == i64::from(checksum(digest, path, meta, body));
            let path = std::str::from_utf8(path).ok().filter(|_| whole);
            let Some(path) = path else {
                self.place.shared.stats.rows_damaged.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            };
            Ok(Some(Row {
                digest: *digest,
                path: path.into(),
                meta: Bytes::copy_from_slice(meta),
                body: Bytes::copy_from_slice(body),
                stored_at: from_sql(row.get(1)?),
                keep_until: from_sql(row.get(2)?),
                expired_at: expired_at.map(from_sql),
            }))
        });
        found.optional().map(Option::flatten).map_err(fault)
    }
}

impl Reader for SqliteReader {
    fn read(&mut self, digests: &[Digest]) -> Result<Vec<Option<Row>>, Fault> {
        self.follow()?;
        let rows = self.read_all(digests);
        self.place.noting(self.generation, rows)
    }

    /// Notices a file that cannot be read before anybody asks.
    fn idle(&mut self) -> Result<(), Fault> {
        self.read(&[]).map(|_| ())
    }
}

/// Another type than a blob can only be damage: the checksum will tell.
fn blob(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes,
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => &[],
    }
}

/// SQL has no unsigned numbers: the greatest stands for [`Wall::FOREVER`].
pub(crate) fn to_sql(wall: Wall) -> i64 {
    i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn from_sql(millis: i64) -> Wall {
    if millis == i64::MAX {
        return Wall::FOREVER;
    }
    Wall::from_millis(u64::try_from(millis).unwrap_or(0))
}
