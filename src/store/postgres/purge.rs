//! Purges: one step a transaction, the last of which tells the other instances.

use tokio_postgres::types::ToSql;

use crate::base::Wall;
use crate::store::backend::{Purged, Step};
use crate::store::fault::Fault;
use crate::store::postgres::conn::fault;
use crate::store::postgres::reader::to_sql;
use crate::store::postgres::writer::{PgWriter, STEP_ROWS};
use crate::store::row::{Digest, Effect, Purge, Selection, prefix_end};

impl PgWriter {
    /// One step of purges. The last step of each announces it, in the same transaction: whoever
    /// hears of it finds no row that it should have removed.
    pub(super) fn purge_locked(
        &mut self,
        purges: &[Purge],
        now: Wall,
    ) -> Result<(Purged, Vec<i64>), Fault> {
        let (mut done, mut seqs) = (Purged::default(), Vec::new());
        for purge in purges {
            let step = if purge.selection.is_everything() {
                self.purge_all(purge.effect, now)?
            } else {
                self.purge_rows(&purge.selection, purge.effect, now)?
            };
            done.rows.push(step.rows);
            done.more = step.more;
            if step.more {
                // Those before it are announced with the last step, which comes to them again.
                return Ok((done, Vec::new()));
            }
        }
        for purge in purges {
            seqs.push(self.announce(purge)?);
        }
        self.session.wire.batch_execute("NOTIFY apiproxyd_purges_v1")?;
        Ok((done, seqs))
    }

    fn purge_all(&mut self, effect: Effect, now: Wall) -> Result<Step, Fault> {
        let rows = self.count()?;
        let now = to_sql(now);
        match effect {
            // The next number: rows in flight wait for the lock and will have greater ones.
            Effect::Remove => self.execute(
                "UPDATE apiproxyd_state_v1 SET cleared_id = nextval('apiproxyd_ids_v1')",
                &[],
            )?,
            Effect::Expire => self.execute(
                "UPDATE apiproxyd_state_v1 SET expired_id = nextval('apiproxyd_ids_v1'),
                 expired_at = $1",
                &[&now],
            )?,
        };
        self.reclaim |= effect == Effect::Remove;
        Ok(Step { rows: rows.unsigned_abs(), more: false })
    }

    fn purge_rows(
        &mut self,
        selection: &Selection,
        effect: Effect,
        now: Wall,
    ) -> Result<Step, Fault> {
        match selection {
            Selection::Path(path) => self.purge_where(
                "substring(path, 1, 512) = substring($3::bytea, 1, 512)
                AND path = $3 AND octet_length($4::bytea) >= 0",
                effect,
                now,
                path.as_bytes(),
                b"",
            ),
            Selection::Prefix(prefix) => {
                // Only the empty prefix has no end, and that is everything.
                let end = prefix_end(prefix.as_bytes()).unwrap_or_default();
                self.purge_where(
                    "substring(path, 1, 512) >= substring($3::bytea, 1, 512)
                    AND substring(path, 1, 512) <= $4::bytea AND path >= $3 AND path < $4",
                    effect,
                    now,
                    prefix.as_bytes(),
                    &end,
                )
            }
            Selection::Digests(digests) => {
                let rows = self.purge_digests(digests, effect, now)?;
                Ok(Step { rows: rows.unsigned_abs(), more: false })
            }
            Selection::AnyOf(parts) => {
                Step::of_first(parts, |part| self.purge_rows(part, effect, now))
            }
            Selection::All => self.purge_all(effect, now),
        }
    }

    fn purge_where(
        &mut self,
        which: &str,
        effect: Effect,
        now: Wall,
        from: &[u8],
        to: &[u8],
    ) -> Result<Step, Fault> {
        let now = to_sql(now);
        let chosen = format!(
            "digest IN (SELECT e.digest FROM apiproxyd_entries_v1 e, apiproxyd_state_v1 s
             WHERE {which} AND e.id > s.cleared_id AND $1::bigint >= 0"
        );
        let sql = match effect {
            Effect::Remove => format!("DELETE FROM apiproxyd_entries_v1 WHERE {chosen} LIMIT $2)"),
            Effect::Expire => format!(
                "UPDATE apiproxyd_entries_v1 SET expired_at = $1
                 WHERE {chosen} AND e.id > s.expired_id AND e.expired_at IS NULL LIMIT $2)"
            ),
        };
        let rows = self.execute(&sql, &[&now, &STEP_ROWS, &from, &to])?;
        Ok(Step { rows: rows.unsigned_abs(), more: rows >= STEP_ROWS })
    }

    fn purge_digests(
        &mut self,
        digests: &[Digest],
        effect: Effect,
        now: Wall,
    ) -> Result<i64, Fault> {
        let digests: Vec<&[u8]> = digests.iter().map(<[u8; 16]>::as_slice).collect();
        let now = to_sql(now);
        let visible = "e.digest = ANY($1) AND e.id > s.cleared_id";
        match effect {
            Effect::Remove => {
                let sql = format!(
                    "DELETE FROM apiproxyd_entries_v1 e USING apiproxyd_state_v1 s WHERE {visible}"
                );
                self.execute(&sql, &[&digests])
            }
            Effect::Expire => {
                let sql = format!(
                    "UPDATE apiproxyd_entries_v1 e SET expired_at = $2 FROM apiproxyd_state_v1 s
                     WHERE {visible} AND e.expired_at IS NULL"
                );
                self.execute(&sql, &[&digests, &now])
            }
        }
    }

    fn announce(&mut self, purge: &Purge) -> Result<i64, Fault> {
        let (effect, selection, subject) = encoded(purge);
        let insert = "INSERT INTO apiproxyd_purges_v1 (effect, selection, subject)
            VALUES ($1, $2, $3) RETURNING seq";
        let params: [&(dyn ToSql + Sync); 3] = [&effect, &selection, &subject];
        let row = self.session.wire.query_one(insert, &params)?;
        row.try_get(0).map_err(fault)
    }
}

/// Effect, selection and subject as the table of purges has them.
fn encoded(purge: &Purge) -> (i16, i16, Vec<u8>) {
    let effect = match purge.effect {
        Effect::Remove => 0,
        Effect::Expire => 1,
    };
    let (code, subject) = encoded_selection(&purge.selection);
    (effect, code, subject)
}

fn encoded_selection(selection: &Selection) -> (i16, Vec<u8>) {
    match selection {
        Selection::All => (0, Vec::new()),
        Selection::Path(path) => (1, path.as_bytes().to_vec()),
        Selection::Prefix(prefix) => (2, prefix.as_bytes().to_vec()),
        Selection::Digests(digests) => (3, digests.concat()),
        Selection::AnyOf(parts) => {
            let mut subject = Vec::new();
            for (code, part) in parts.iter().map(encoded_selection) {
                let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
                subject.extend_from_slice(&code.to_be_bytes());
                subject.extend_from_slice(&length.to_be_bytes());
                subject.extend_from_slice(&part);
            }
            (4, subject)
        }
    }
}

/// What this version does not understand concerns everything: too much is forgotten, not too
/// little.
pub(super) fn decoded(effect: i16, selection: i16, subject: &[u8]) -> Purge {
    let effect = if effect == 1 { Effect::Expire } else { Effect::Remove };
    let selection = decoded_selection(selection, subject).unwrap_or(Selection::All);
    Purge { selection, effect }
}

fn decoded_selection(code: i16, subject: &[u8]) -> Option<Selection> {
    let text = std::str::from_utf8(subject);
    match (code, text) {
        (1, Ok(path)) => Some(Selection::Path(path.into())),
        (2, Ok(prefix)) => Some(Selection::Prefix(prefix.into())),
        (3, _) => Some(Selection::Digests(subject.as_chunks::<16>().0.into())),
        (4, _) => {
            let (mut parts, mut rest) = (Vec::new(), subject);
            while !rest.is_empty() {
                let (code, after) = rest.split_first_chunk()?;
                let (length, after) = after.split_first_chunk()?;
                let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                let (part, after) = after.split_at_checked(length)?;
                let code = i16::from_be_bytes(*code);
                // No list is within a list.
                parts.push(decoded_selection(code, part).filter(|_| code < 4)?);
                rest = after;
            }
            Some(Selection::AnyOf(parts.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_is_read_as_it_was_announced() {
        for selection in [
            Selection::All,
            Selection::Path("/ä".into()),
            Selection::Prefix("".into()),
            Selection::Digests([[1; 16], [2; 16]].into()),
            Selection::AnyOf([].into()),
            Selection::AnyOf([Selection::Path("/a".into()), Selection::Prefix("/".into())].into()),
        ] {
            for effect in [Effect::Remove, Effect::Expire] {
                let purge = Purge { selection: selection.clone(), effect };
                let (effect, selection, subject) = encoded(&purge);
                assert_eq!(decoded(effect, selection, &subject), purge);
            }
        }
    }

    #[test]
    fn an_unknown_purge_concerns_everything() {
        assert_eq!(decoded(9, 9, b"?"), Purge::CLEAR);
        assert_eq!(decoded(0, 1, b"\xff"), Purge::CLEAR);
        let list = encoded_selection(&Selection::AnyOf([Selection::Path("/a".into())].into())).1;
        for end in 1..list.len() {
            assert_eq!(decoded(0, 4, &list[..end]), Purge::CLEAR, "cut at {end}");
        }
        let (code, nested) = encoded_selection(&Selection::AnyOf(
            [Selection::AnyOf([Selection::Path("/a".into())].into())].into(),
        ));
        assert_eq!(decoded(0, code, &nested), Purge::CLEAR);
    }
}
