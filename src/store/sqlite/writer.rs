//! The writing connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ToSql, params};

use crate::base::Wall;
use crate::store::backend::{Purged, Step, Upkeep, Writer, Written};
use crate::store::clock;
use crate::store::fault::{Fault, Unavailable};
use crate::store::row::{Purge, Row};
use crate::store::sqlite::Place;
use crate::store::sqlite::conn::{self, Owner, PAGE_BYTES, fault, pragma};
use crate::store::sqlite::file::Files;
use crate::store::sqlite::reader::to_sql;
use crate::store::stats::Usage;

/// Rows removed or changed in one transaction: some milliseconds.
pub(super) const STEP_ROWS: u64 = 200;
/// Pages given back to the file system in one transaction.
const VACUUM_PAGES: u64 = 256;
/// Free pages that are not worth giving back: new rows use them.
const FREE_PAGES_KEPT: u64 = 1024;
/// How often the file is looked at from outside.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The log is checkpointed at this size and cut back to it.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How long a new file waits for the room of the one that it replaces: the reader, which may be
/// idle, has to leave that first.
const REPLACE_SPAN: Duration = Duration::from_secs(1);
const REPLACE_PAUSE: Duration = Duration::from_millis(20);

/// Writes rows, and owns the file.
pub(crate) struct SqliteWriter {
    place: Arc<Place>,
    conn: Connection,
    /// Which opening of the file this is.
    generation: u64,
    /// As last seen; the database itself as it was opened.
    files: Files,
    /// Ids up to this one are in use, or were.
    pub(super) last_id: i64,
    pub(super) cleared_id: i64,
    pub(super) expired_id: i64,
    /// Rows in the table, and how many of them a clear has hidden. At opening the latter counts
    /// as none; reclaiming sets both right.
    pub(super) rows: u64,
    pub(super) rows_dead: u64,
    /// Whether rows that a clear has hidden may be left.
    pub(super) reclaim: bool,
    /// Size limit, log excluded, and bytes of one transaction under it.
    pages_max: Option<u64>,
    group_bytes_max: u64,
    look_due: Instant,
    /// The last write found the disk full or the file locked: upkeep has nothing to write.
    blocked: bool,
}

impl SqliteWriter {
    /// Opens the file; moves it aside if it is damaged.
    pub(crate) fn open(place: &Arc<Place>) -> Result<Self, Fault> {
        let mut writer = match Self::open_paid(place) {
            Err(Fault { reason: Unavailable::Damaged, detail }) => {
                tracing::error!(detail, "cache file is damaged");
                place.move_aside("damaged")?;
                Self::open_paid(place)?
            }
            other => other?,
        };
        // From now on it is read.
        writer.generation = place.generation.fetch_add(1, Ordering::AcqRel) + 1;
        Ok(writer)
    }

    /// Opens the file, and does what the process before owed it.
    fn open_paid(place: &Arc<Place>) -> Result<Self, Fault> {
        let mut writer = Self::try_open(place)?;
        if place.shared.note.inherit() {
            tracing::warn!("purges were owed when the last process ended: everything is purged");
            writer.purge(&[Purge::CLEAR], clock::wall())?;
            place.shared.note.honour();
        }
        Ok(writer)
    }

    fn try_open(place: &Arc<Place>) -> Result<Self, Fault> {
        place.prepare()?;
        let (mut conn, mut owner) = conn::open_writer(&place.path)?;
        if matches!(owner, Owner::Predecessor) {
            drop(conn);
            place.move_aside("legacy")?;
            place.prepare()?;
            (conn, owner) = conn::open_writer(&place.path)?;
        }
        match owner {
            Owner::Ours => {}
            Owner::Emptied => {
                place.shared.stats.files_emptied.fetch_add(1, Ordering::Relaxed);
            }
            Owner::Predecessor | Owner::Foreign => {
                return Err(Fault::new(Unavailable::Foreign, "another program's database"));
            }
        }
        let log_bytes = match place.max_disk_bytes {
            0 => LOG_BYTES_MAX,
            limit => (limit / 8).min(LOG_BYTES_MAX),
        };
        let log_pages = (log_bytes / PAGE_BYTES).max(8);
        conn.pragma_update(None, "wal_autocheckpoint", log_pages.cast_signed()).map_err(fault)?;
        conn.pragma_update(None, "journal_size_limit", log_bytes.cast_signed()).map_err(fault)?;
        if place.pages_max > 0 {
            conn.pragma_update(None, "max_page_count", place.pages_max).map_err(fault)?;
        }
        let (cleared_id, expired_id, greatest) = conn
            .query_row(
                "SELECT cleared_id, expired_id, (SELECT coalesce(max(id), 0) FROM entries)
                 FROM state",
                [],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
            )
            .map_err(fault)?;
        let rows = conn.query_row("SELECT count(*) FROM entries", [], |row| row.get::<_, i64>(0));
        let limit = place.max_disk_bytes;
        Ok(Self {
            generation: 0,
            files: place.look()?.0,
            last_id: greatest.max(cleared_id).max(expired_id),
            cleared_id,
            expired_id,
            rows: rows.map_err(fault)?.unsigned_abs(),
            rows_dead: 0,
            reclaim: true,
            // The log may hold one checkpoint's worth and one transaction more.
            pages_max: (limit > 0).then(|| (limit - limit / 4) / PAGE_BYTES),
            group_bytes_max: log_bytes,
            look_due: Instant::now(),
            blocked: false,
            place: Arc::clone(place),
            conn,
        })
    }

    /// Runs `f` in a transaction; on a fault nothing of it stays.
    pub(super) fn transaction<T>(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.run("BEGIN IMMEDIATE", &[])?;
        let result = f(self).and_then(|it| self.run("COMMIT", &[]).map(|_| it));
        if result.is_err() && !self.conn.is_autocommit() {
            // If even this fails, the connection is closed or the next BEGIN says so.
            drop(self.run("ROLLBACK", &[]));
        }
        result
    }

    pub(super) fn run(&self, sql: &str, params: &[&dyn ToSql]) -> Result<u64, Fault> {
        let mut statement = self.conn.prepare_cached(sql).map_err(fault)?;
        let changed = statement.execute(params).map_err(fault)?;
        Ok(u64::try_from(changed).unwrap_or(u64::MAX))
    }

    fn noting<T>(&mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        let blocks = |it: &&Fault| matches!(it.reason, Unavailable::DiskFull | Unavailable::Locked);
        self.blocked = result.as_ref().err().is_some_and(|it| blocks(&it));
        self.place.noting(self.generation, result)
    }

    /// A row that would push out most of the others is not worth its place.
    fn fits(&self, row: &Row) -> bool {
        self.pages_max.is_none_or(|max| row.size_bytes() <= max * PAGE_BYTES / 4)
    }

    /// How many of these rows go into one transaction: at least one.
    fn group_len(&self, rows: &[Arc<Row>]) -> usize {
        let mut bytes = 0;
        let within = rows.iter().take_while(|row| {
            bytes += row.size_bytes();
            bytes <= self.group_bytes_max
        });
        within.count().max(1)
    }

    fn put_group(&mut self, rows: &[Arc<Row>]) -> Result<(), Fault> {
        self.make_room(rows)?;
        let counts = (self.last_id, self.rows, self.rows_dead);
        let result = self.transaction(|it| rows.iter().try_for_each(|row| it.put_row(row)));
        if result.is_err() {
            (self.last_id, self.rows, self.rows_dead) = counts;
        }
        result
    }

    /// A new id even for a row that is replaced, so that ids stay in the order of age.
    fn put_row(&mut self, row: &Row) -> Result<(), Fault> {
        const DELETE: &str = "DELETE FROM entries WHERE digest = ?1 AND id > ?2";
        const INSERT: &str = "INSERT INTO entries
            (id, digest, stored_at, keep_until, checksum, path, meta, body)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let digest = row.digest.as_slice();
        let replaced = self.run(DELETE, &[&digest, &self.cleared_id])?;
        if replaced == 0 && self.reclaim {
            let dead = self.run(DELETE, &[&digest, &i64::MIN])?;
            self.on_removed_oldest(dead);
        }
        self.last_id += 1;
        self.run(
            INSERT,
            params![
                self.last_id,
                digest,
                to_sql(row.stored_at),
                to_sql(row.keep_until),
                row.checksum(),
                row.path.as_bytes(),
                &row.meta[..],
                &row.body[..],
            ],
        )?;
        self.rows = (self.rows + 1).saturating_sub(replaced);
        Ok(())
    }

    /// Removes the oldest rows until these fit under the size limit.
    fn make_room(&mut self, rows: &[Arc<Row>]) -> Result<(), Fault> {
        let Some(pages_max) = self.pages_max else { return Ok(()) };
        let bytes: u64 = rows.iter().map(|it| it.size_bytes()).sum();
        let count = u64::try_from(rows.len()).unwrap_or(0);
        // Two pages a row beside its content: its last page is part empty, and so may be the
        // index pages that split.
        let needed = bytes / PAGE_BYTES + 2 * count;
        self.shrink_to(pages_max.saturating_sub(needed), u64::MAX).map(|_| ())
    }

    /// Removes the oldest rows, at most `rows_max`, until no more than `pages` are in use.
    fn shrink_to(&mut self, pages: u64, rows_max: u64) -> Result<u64, Fault> {
        const OLDEST: &str =
            "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY id LIMIT ?1)";
        let mut removed = 0;
        while removed < rows_max && self.pages_used()? > pages {
            // In proportion to what is there, so that small limits are not overdone.
            let step = (self.rows / 20).clamp(1, STEP_ROWS).cast_signed();
            let gone = self.transaction(|it| it.run(OLDEST, &[&step]))?;
            if gone == 0 {
                break;
            }
            self.on_removed_oldest(gone);
            removed += gone;
        }
        self.place.shared.stats.rows_evicted.fetch_add(removed, Ordering::Relaxed);
        Ok(removed)
    }

    fn on_removed_oldest(&mut self, rows: u64) {
        self.rows = self.rows.saturating_sub(rows);
        self.rows_dead = self.rows_dead.saturating_sub(rows);
    }

    fn pages_used(&self) -> Result<u64, Fault> {
        Ok(self.pages()?.saturating_sub(self.pages_free()?))
    }

    fn pages(&self) -> Result<u64, Fault> {
        Ok(pragma::<i64>(&self.conn, "page_count")?.unsigned_abs())
    }

    fn pages_free(&self) -> Result<u64, Fault> {
        Ok(pragma::<i64>(&self.conn, "freelist_count")?.unsigned_abs())
    }

    /// Commits of `f` are on the disk when this returns.
    fn durably<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        self.conn.pragma_update(None, "synchronous", 2).map_err(fault)?;
        let result = f(self);
        self.conn.pragma_update(None, "synchronous", 1).map_err(fault)?;
        result
    }

    /// Removes the file with all rows, and starts a new one. Fails with `fault` if not even that
    /// can be done.
    fn replace(&mut self, fault: Fault) -> Result<Purged, Fault> {
        let place = Arc::clone(&self.place);
        let ours = place.look().is_ok_and(|(files, _)| files.database == self.files.database);
        if !ours || place.remove().is_err() {
            return Err(fault);
        }
        tracing::warn!(%fault, "cache file removed to be cleared; a new one is started");
        // The reader leaves the old file, whose room is free only then.
        self.generation = place.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let nothing = Connection::open_in_memory().map_err(conn::fault)?;
        let old = std::mem::replace(&mut self.conn, nothing);
        conn::leave(old);
        let rows = self.rows.saturating_sub(self.rows_dead);
        let until = Instant::now() + REPLACE_SPAN;
        loop {
            match Self::try_open(&place) {
                Ok(new) => {
                    *self = new;
                    self.generation = place.generation.fetch_add(1, Ordering::AcqRel) + 1;
                    place.shared.stats.reopened.fetch_add(1, Ordering::Relaxed);
                    return Ok(Purged { rows: vec![rows], more: false });
                }
                Err(fault) if is_for_want_of_room(&fault) && Instant::now() < until => {
                    thread::sleep(REPLACE_PAUSE);
                }
                // This one has no file any more: it must be opened anew.
                Err(fault) => return Err(Fault::new(Unavailable::Io, fault)),
            }
        }
    }

    /// Notices a file that was removed or replaced, and damage that the reader found.
    fn look(&mut self) -> Result<(), Fault> {
        if self.place.is_damaged() {
            return Err(Fault::new(Unavailable::Damaged, "a look-up found the file damaged"));
        }
        if Instant::now() < self.look_due {
            return Ok(());
        }
        self.look_due = Instant::now() + LOOK_EVERY;
        let size = match self.place.look() {
            Ok((files, size)) if files.database == self.files.database => {
                self.files = files;
                size
            }
            _ => {
                self.place.remove_companions(&self.files);
                let detail = "the cache file was removed or replaced";
                return Err(Fault::new(Unavailable::Io, detail));
            }
        };
        // What vacuuming cut off stays in the file until the log is written back.
        if size > self.pages()? * PAGE_BYTES {
            self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(fault)?;
        }
        Ok(())
    }

    /// Removes rows that a clear has hidden. Whether there may be more.
    fn reclaim(&mut self) -> Result<bool, Fault> {
        const DEAD: &str = "DELETE FROM entries WHERE id IN
            (SELECT id FROM entries WHERE id <= ?1 ORDER BY id LIMIT ?2)";
        if !self.reclaim {
            return Ok(false);
        }
        let (upto, limit) = (self.cleared_id, STEP_ROWS.cast_signed());
        let gone = self.transaction(|it| it.run(DEAD, &[&upto, &limit]))?;
        self.on_removed_oldest(gone);
        self.reclaim = gone > 0;
        Ok(self.reclaim)
    }

    /// Gives free pages back to the file system. Whether there are more.
    fn vacuum(&mut self) -> Result<bool, Fault> {
        let (pages, free) = (self.pages()?, self.pages_free()?);
        let over = self.pages_max.is_some_and(|max| pages > max) && free > 0;
        if !over && free < FREE_PAGES_KEPT.max(pages / 4) {
            return Ok(false);
        }
        let sql = format!("PRAGMA incremental_vacuum({VACUUM_PAGES})");
        let mut statement = self.conn.prepare_cached(&sql).map_err(fault)?;
        let mut rows = statement.query([]).map_err(fault)?;
        // A step a page.
        while rows.next().map_err(fault)?.is_some() {}
        Ok(free > VACUUM_PAGES)
    }

    fn do_upkeep(&mut self) -> Result<Upkeep, Fault> {
        self.look()?;
        if self.blocked {
            return Ok(Upkeep::default());
        }
        let mut more = self.reclaim()?;
        if let Some(pages_max) = self.pages_max {
            more |= self.shrink_to(pages_max, STEP_ROWS)? >= STEP_ROWS;
        }
        more |= !more && self.vacuum()?;
        Ok(Upkeep { more, remote: Vec::new() })
    }
}

/// A disk that is full may say so in either way.
fn is_for_want_of_room(fault: &Fault) -> bool {
    matches!(fault.reason, Unavailable::DiskFull | Unavailable::Io)
}

impl Writer for SqliteWriter {
    fn put(&mut self, rows: &[Arc<Row>]) -> Result<Written, Fault> {
        let fitting: Vec<Arc<Row>> = rows.iter().filter(|it| self.fits(it)).cloned().collect();
        let refused = u64::try_from(rows.len() - fitting.len()).unwrap_or(0);
        self.place.shared.stats.puts_failed.fetch_add(refused, Ordering::Relaxed);
        let mut rest = fitting.as_slice();
        while !rest.is_empty() {
            let (group, later) = rest.split_at(self.group_len(rest));
            let put = self.put_group(group);
            self.noting(put)?;
            rest = later;
        }
        Ok(Written::All)
    }

    fn purge(&mut self, purges: &[Purge], now: Wall) -> Result<Purged, Fault> {
        let step = self.durably(|it| it.purge_step(purges, now));
        let step = self.noting(step);
        match step {
            // Even one changed row needs room in the log. To be without the file needs none.
            Err(fault) if purges == [Purge::CLEAR] && is_for_want_of_room(&fault) => {
                self.replace(fault)
            }
            other => other,
        }
    }

    fn sweep(&mut self, now: Wall) -> Result<Step, Fault> {
        const ENDED: &str = "DELETE FROM entries WHERE id IN (SELECT id FROM entries
            WHERE keep_until < 9223372036854775807 AND keep_until <= ?1 LIMIT ?2)";
        let (now, limit) = (to_sql(now), STEP_ROWS.cast_signed());
        let rows = self.transaction(|it| it.run(ENDED, &[&now, &limit]));
        let rows = self.noting(rows)?;
        self.rows = self.rows.saturating_sub(rows);
        Ok(Step { rows, more: rows == STEP_ROWS })
    }

    fn upkeep(&mut self) -> Result<Upkeep, Fault> {
        let done = self.do_upkeep();
        self.place.noting(self.generation, done)
    }

    fn probe(&mut self, bytes: usize) -> Result<(), Fault> {
        let row = Arc::new(Row::probe(bytes));
        let digest = row.digest;
        // Two commits: what one alone both writes and removes takes no room.
        let done = self.put_group(&[row]).and_then(|()| {
            let sql = "DELETE FROM entries WHERE digest = ?1";
            self.transaction(|it| it.run(sql, &[&digest.as_slice()]))
        });
        self.rows = self.rows.saturating_sub(u64::from(done.is_ok()));
        self.noting(done).map(|_| ())
    }

    fn usage(&mut self) -> Result<Usage, Fault> {
        let bytes = self.pages_used()? * PAGE_BYTES;
        Ok(Usage { rows: self.rows.saturating_sub(self.rows_dead), bytes })
    }
}
