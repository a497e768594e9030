//! What the writer has been told and has not done yet, as look-ups must see it.
//!
//! Owned by the storage thread. Operations carry a sequence number; the writer publishes up to
//! which one puts are finished and up to which one purges are done, and what is not above them is
//! forgotten here. Until then rows are answered from here, and rows that a queued purge selects are
//! hidden although the backend still has them. A purge that is owed holds back no put: a row that
//! the writer gave up is no longer counted as queued, and must not take memory here either.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::Wall;
use crate::store::row::{Digest, Effect, Purge, Row};
use crate::store::shared::Epoch;

/// Rows and purges on their way to the backend.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    rows: HashMap<Digest, Queued>,
    /// Every put that is not finished, replaced or purged ones too.
    puts: VecDeque<(u64, Digest)>,
    masks: Masks,
}

/// Queued purges, oldest first: what they select is hidden although the backend still has it.
/// Cheap to clone, since a look-up that another thread answers takes them along.
#[derive(Clone, Debug, Default)]
pub(crate) struct Masks(Arc<VecDeque<(u64, Purge, Wall)>>);

impl Masks {
    /// A row of the backend as the queued purges leave it.
    pub(crate) fn apply(&self, mut row: Row) -> Option<Row> {
        for (_, purge, at) in self.0.iter() {
            if !purge.selects(&row.digest, &row.path) {
                continue;
            }
            match purge.effect {
                Effect::Remove => return None,
                Effect::Expire => row.expired_at = row.expired_at.or(Some(*at)),
            }
        }
        Some(row)
    }
}

#[derive(Debug)]
struct Queued {
    row: Arc<Row>,
    epoch: Epoch,
    seq: u64,
}

impl Pending {
    /// A put was handed to the writer under this number.
    pub(crate) fn on_put(&mut self, row: Arc<Row>, epoch: Epoch, seq: u64) {
        let digest = row.digest;
        self.rows.insert(digest, Queued { row, epoch, seq });
        self.puts.push_back((seq, digest));
    }

    /// A purge was handed to the writer under this number.
    pub(crate) fn on_purge(&mut self, purge: Purge, seq: u64, now: Wall) {
        self.apply(&purge, u64::MAX, now);
        let masks = Arc::make_mut(&mut self.masks.0);
        if masks.len() >= MASKS_MAX {
            // Too much is hidden, not too little, until the writer has caught up.
            masks.clear();
            masks.push_back((seq, Purge::CLEAR, now));
        } else {
            masks.push_back((seq, purge, now));
        }
    }

    /// Another instance purged; puts up to this number came before.
    pub(crate) fn on_remote_purge(&mut self, purge: &Purge, upto: u64, now: Wall) {
        self.apply(purge, upto, now);
    }

    /// The writer has written or given up all puts up to this number.
    pub(crate) fn on_puts_finished(&mut self, upto: u64) {
        while let Some((seq, digest)) = self.puts.front() {
            if *seq > upto {
                break;
            }
            if self.rows.get(digest).is_some_and(|it| it.seq == *seq) {
                self.rows.remove(digest);
            }
            self.puts.pop_front();
        }
    }

    /// The writer has done all purges up to this number.
    pub(crate) fn on_purges_done(&mut self, upto: u64) {
        while self.masks.0.front().is_some_and(|(seq, ..)| *seq <= upto) {
            Arc::make_mut(&mut self.masks.0).pop_front();
        }
    }

    /// The queued row of a digest, unless it is of an earlier epoch.
    pub(crate) fn row(&self, digest: &Digest, epoch: Epoch) -> Option<&Arc<Row>> {
        self.rows.get(digest).filter(|it| it.epoch >= epoch).map(|it| &it.row)
    }

    /// What is hidden at present.
    pub(crate) fn masks(&self) -> &Masks {
        &self.masks
    }

    fn apply(&mut self, purge: &Purge, upto: u64, now: Wall) {
        match purge.effect {
            Effect::Remove => {
                self.rows.retain(|digest, it| it.seq > upto || !purge.selects(digest, &it.row.path))
            }
            Effect::Expire => {
                for (digest, it) in &mut self.rows {
                    if it.seq <= upto && purge.selects(digest, &it.row.path) {
                        Arc::make_mut(&mut it.row).expired_at.get_or_insert(now);
                    }
                }
            }
        }
    }
}

/// Queued purges that each look-up is compared with; past it they become one of everything.
const MASKS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::row::Selection;

    const NOW: Wall = Wall::from_secs(9);

    #[derive(Default)]
    struct Bench {
        pending: Pending,
        seq: u64,
    }

    impl Bench {
        fn put(&mut self, name: u8, path: &str) -> u64 {
            self.seq += 1;
            self.pending.on_put(Arc::new(row(name, path)), Epoch(0), self.seq);
            self.seq
        }

        fn purge(&mut self, selection: Selection, effect: Effect) -> u64 {
            self.seq += 1;
            self.pending.on_purge(Purge { selection, effect }, self.seq, NOW);
            self.seq
        }

        fn has(&self, name: u8) -> bool {
            self.pending.row(&[name; 16], Epoch(0)).is_some()
        }

        fn queued(&self) -> usize {
            self.pending.puts.len()
        }
    }

    fn row(name: u8, path: &str) -> Row {
        Row {
            digest: [name; 16],
            path: path.into(),
            meta: vec![name].into(),
            body: vec![name; 10].into(),
            stored_at: Wall::EPOCH,
            keep_until: Wall::FOREVER,
            expired_at: None,
        }
    }

    #[test]
    fn a_row_is_found_until_it_is_written() {
        let mut bench = Bench::default();
        let first = bench.put(1, "/a");
        let second = bench.put(1, "/a");
        bench.pending.on_puts_finished(first);
        assert!(bench.has(1), "the second put of the row is still queued");
        assert_eq!(bench.queued(), 1);
        bench.pending.on_puts_finished(second);
        assert!(!bench.has(1));
        assert_eq!(bench.queued(), 0);
    }

    #[test]
    fn a_purge_hides_older_rows_and_spares_newer_ones() {
        let mut bench = Bench::default();
        bench.put(1, "/a/1");
        let purge = bench.purge(Selection::Prefix("/a".into()), Effect::Remove);
        assert!(!bench.has(1));
        assert!(bench.pending.masks().apply(row(2, "/a/2")).is_none());
        assert!(bench.pending.masks().apply(row(3, "/b")).is_some());
        bench.put(1, "/a/1");
        assert!(bench.has(1));
        bench.pending.on_puts_finished(purge);
        assert!(bench.pending.masks().apply(row(2, "/a/2")).is_none(), "the purge is owed");
        bench.pending.on_purges_done(purge);
        assert!(bench.pending.masks().apply(row(2, "/a/2")).is_some());
        assert_eq!(bench.queued(), 1);
    }

    #[test]
    fn an_expiry_marks_queued_and_stored_rows() {
        let mut bench = Bench::default();
        bench.put(1, "/a");
        bench.purge(Selection::All, Effect::Expire);
        let queued = bench.pending.row(&[1; 16], Epoch(0)).unwrap();
        assert_eq!(queued.expired_at, Some(NOW));
        assert_eq!(bench.pending.masks().apply(row(2, "/b")).unwrap().expired_at, Some(NOW));
    }

    #[test]
    fn a_remote_purge_spares_what_was_put_after_it() {
        let mut bench = Bench::default();
        let before = bench.put(1, "/a");
        bench.put(2, "/a");
        bench.pending.on_remote_purge(&Purge::CLEAR, before, NOW);
        assert!(!bench.has(1));
        assert!(bench.has(2));
    }

    #[test]
    fn too_many_purges_hide_everything_until_the_last_is_done() {
        let mut bench = Bench::default();
        let mut last = 0;
        for number in 0..=MASKS_MAX {
            assert!(bench.pending.masks().apply(row(2, "/b")).is_some(), "{number}");
            last = bench.purge(Selection::Path(format!("/{number}").into()), Effect::Remove);
        }
        assert!(bench.pending.masks().apply(row(2, "/b")).is_none());
        bench.put(2, "/b");
        assert!(bench.has(2), "put after them");
        bench.pending.on_purges_done(last - 1);
        assert!(bench.pending.masks().apply(row(2, "/b")).is_none());
        bench.pending.on_purges_done(last);
        assert!(bench.pending.masks().apply(row(2, "/b")).is_some());
    }

    #[test]
    fn rows_of_an_earlier_epoch_are_not_found() {
        let mut bench = Bench::default();
        bench.put(1, "/a");
        assert!(bench.pending.row(&[1; 16], Epoch(1)).is_none());
    }
}
