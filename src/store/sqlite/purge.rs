//! Purges: what is removed or expired, one step a transaction.

use rusqlite::ToSql;

use crate::base::Wall;
use crate::store::backend::{Purged, Step};
use crate::store::fault::Fault;
use crate::store::row::{Digest, Effect, Purge, Selection, prefix_end};
use crate::store::sqlite::reader::to_sql;
use crate::store::sqlite::writer::{STEP_ROWS, SqliteWriter};

impl SqliteWriter {
    /// One step of purges of the same effect.
    pub(super) fn purge_step(&mut self, purges: &[Purge], now: Wall) -> Result<Purged, Fault> {
        if let [only] = purges
            && only.selection.is_everything()
        {
            let rows = self.purge_all(only.effect, now)?;
            return Ok(Purged { rows: vec![rows], more: false });
        }
        let purged = self.transaction(|it| it.purge_each(purges, now))?;
        let removes = purges.first().is_some_and(|it| it.effect == Effect::Remove);
        if removes {
            self.rows = self.rows.saturating_sub(purged.rows.iter().sum());
        }
        Ok(purged)
    }

    /// In a transaction of the caller, up to the first that there is more of.
    fn purge_each(&self, purges: &[Purge], now: Wall) -> Result<Purged, Fault> {
        let mut done = Purged::default();
        for purge in purges {
            let step = self.purge_rows(&purge.selection, purge.effect, now)?;
            done.rows.push(step.rows);
            done.more = step.more;
            if step.more {
                break;
            }
        }
        Ok(done)
    }

    /// A purge of everything: one row changes, whatever the number of rows.
    fn purge_all(&mut self, effect: Effect, now: Wall) -> Result<u64, Fault> {
        let (upto, now) = (self.last_id, to_sql(now));
        let rows = self.rows.saturating_sub(self.rows_dead);
        match effect {
            Effect::Remove => {
                self.transaction(|it| it.run("UPDATE state SET cleared_id = ?1", &[&upto]))?;
                self.cleared_id = upto;
                self.rows_dead = self.rows;
                self.reclaim = true;
            }
            Effect::Expire => {
                let sql = "UPDATE state SET expired_id = ?1, expired_at = ?2";
                self.transaction(|it| it.run(sql, &[&upto, &now]))?;
                self.expired_id = upto;
            }
        }
        Ok(rows)
    }

    fn purge_rows(&self, selection: &Selection, effect: Effect, now: Wall) -> Result<Step, Fault> {
        match selection {
            Selection::Path(path) => {
                self.purge_where("path = ?2", effect, now, &[&path.as_bytes()])
            }
            Selection::Prefix(prefix) => {
                // Only the empty prefix has no end, and that is everything.
                let end = prefix_end(prefix.as_bytes()).unwrap_or_default();
                let bounds: [&dyn ToSql; 2] = [&prefix.as_bytes(), &end];
                self.purge_where("path >= ?2 AND path < ?3", effect, now, &bounds)
            }
            Selection::Digests(digests) => self.purge_digests(digests, effect, now),
            Selection::AnyOf(parts) => {
                Step::of_first(parts, |part| self.purge_rows(part, effect, now))
            }
            Selection::All => self.purge_where("TRUE", effect, now, &[]),
        }
    }

    fn purge_where(
        &self,
        which: &str,
        effect: Effect,
        now: Wall,
        bounds: &[&dyn ToSql],
    ) -> Result<Step, Fault> {
        let now = to_sql(now);
        let hidden = match effect {
            Effect::Remove => self.cleared_id,
            Effect::Expire => self.cleared_id.max(self.expired_id),
        };
        let mut params: Vec<&dyn ToSql> = vec![&hidden];
        params.extend_from_slice(bounds);
        let sql = match effect {
            Effect::Remove => format!(
                "DELETE FROM entries WHERE id IN (SELECT id FROM entries
                 WHERE {which} AND id > ?1 LIMIT {STEP_ROWS})"
            ),
            Effect::Expire => {
                params.push(&now);
                format!(
                    "UPDATE entries SET expired_at = ?{} WHERE id IN (SELECT id FROM entries
                     WHERE {which} AND id > ?1 AND expired_at IS NULL LIMIT {STEP_ROWS})",
                    params.len()
                )
            }
        };
        let rows = self.run(&sql, &params)?;
        Ok(Step { rows, more: rows == STEP_ROWS })
    }

    /// Listed by the caller: as many as it could list, so one step.
    fn purge_digests(&self, digests: &[Digest], effect: Effect, now: Wall) -> Result<Step, Fault> {
        let (hidden, now) = (self.cleared_id, to_sql(now));
        let mut rows = 0;
        for digest in digests.iter().map(<[u8; 16]>::as_slice) {
            rows += match effect {
                Effect::Remove => self.run(
                    "DELETE FROM entries WHERE digest = ?1 AND id > ?2",
                    &[&digest, &hidden],
                )?,
                Effect::Expire => self.run(
                    "UPDATE entries SET expired_at = ?3 WHERE digest = ?1 AND id > ?2
                     AND expired_at IS NULL",
                    &[&digest, &hidden, &now],
                )?,
            };
        }
        Ok(Step { rows, more: false })
    }
}
