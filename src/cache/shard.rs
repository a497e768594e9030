//! The first tier: one core's index of entries, in order of last use.
//!
//! ```text
//!  hash -> HashTable<u32> -> slab of nodes: | entry | newer | older |   entry: Arc<Entry>,
//!                                                                       shared by cores
//!  list: newest <-> ... <-> oldest;  free nodes are chained through `older`
//! ```
//!
//! A hit is one probe of the table, one comparison of keys and at most five writes to the list: no
//! allocation, no lock, no reference count. The table holds slot numbers, not keys, so that it is
//! five bytes a slot, and the list lives within the slab, so that to move a node moves no memory.
//! Plain LRU: a hit ratio a few points better (TinyLFU, S3-FIFO) would cost a sketch per core, and
//! what LRU loses here the second tier answers.
//!
//! Bounded by entries for itself and by bytes with all other cores together (see
//! [`crate::cache::ledger`]). An entry that another holder keeps alive frees nothing when it leaves
//! this index, so that a core cannot always get below the limit by itself: [`Inserted::bytes_over`]
//! tells the caller to ask the other cores to [`Shard::shed`].

use std::mem::{size_of, take};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::cache::entry::{Entry, NODE_BYTES};
use crate::cache::ledger::Ledger;

/// One core's index. Not shared; the entries in it are.
#[derive(Debug)]
pub struct Shard {
    /// Slots of `nodes` that hold an entry, under their key's hash.
    table: HashTable<u32>,
    /// As long as the shard has ever been; a node without entry is in the free chain.
    nodes: Vec<Node>,
    /// Most recently used; `NONE` when empty, just when `oldest` is.
    newest: u32,
    /// Least recently used.
    oldest: u32,
    /// First node of the free chain.
    free: u32,
    entries_max: u32,
    ledger: Arc<Ledger>,
}

/// What an insertion did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Inserted {
    /// Whether the entry is in the index: not when it alone exceeds a limit.
    pub kept: bool,
    /// Whether an entry of the same key was there before.
    pub replaced: bool,
    /// Entries that had to leave for it.
    pub evicted: usize,
    /// How far the process still is above its limit in bytes: other cores hold them.
    pub bytes_over: u64,
}

/// Where a bounded sweep goes on. It stays valid whatever happens to the shard in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(usize);

/// What a step of a sweep did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Swept {
    /// Entries removed.
    pub removed: usize,
    /// Where to go on; `None` when every entry has been looked at.
    pub next: Option<Cursor>,
}

/// The content of a cleared shard. To drop it frees every entry that nobody else holds: a large one
/// is better dropped off the core.
#[derive(Debug)]
pub struct Cleared(Vec<Node>);

#[derive(Debug)]
struct Node {
    entry: Option<Arc<Entry>>,
    newer: u32,
    older: u32,
}

impl Shard {
    /// An empty index of at most `entries_max` entries (0: keeps nothing).
    ///
    /// Room for the index is taken at once, up to [`PREALLOCATED_MAX`] entries (5.7 to 11.4 bytes
    /// each): to grow means to visit every entry, a pause that a core must not make.
    #[must_use]
    pub fn new(entries_max: u32, ledger: Arc<Ledger>) -> Self {
        let room = entries_max.min(PREALLOCATED_MAX) as usize;
        Self {
            table: HashTable::with_capacity(room),
            nodes: Vec::with_capacity(room),
            newest: NONE,
            oldest: NONE,
            free: NONE,
            // The last number means "none".
            entries_max: entries_max.min(NONE - 1),
            ledger,
        }
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The entry of that key, which becomes the most recently used. `hash` is that of the key under
    /// the process's seed. Allocates nothing.
    #[must_use]
    pub fn get(&mut self, hash: u64, key: &[u8]) -> Option<&Arc<Entry>> {
        let at = self.find(hash, key)?;
        self.touch(at);
        self.node(at).entry.as_ref()
    }

    /// The entry of that key; the order of use stays.
    #[must_use]
    pub fn peek(&self, hash: u64, key: &[u8]) -> Option<&Arc<Entry>> {
        self.node(self.find(hash, key)?).entry.as_ref()
    }

    /// Puts an entry in as the most recently used, in place of one of the same key, and evicts the
    /// least recently used until both limits hold or nothing else is left.
    pub fn insert(&mut self, entry: Arc<Entry>) -> Inserted {
        let hash = entry.key().hash();
        let known = self.find(hash, entry.key().bytes());
        let mut done = Inserted { replaced: known.is_some(), ..Inserted::default() };
        if self.entries_max == 0 || entry.size_bytes() > self.ledger.bytes_max() {
            // What was there is outdated nevertheless.
            known.map(|at| self.take_out(at));
            return done;
        }
        done.kept = true;
        if let Some(at) = known {
            self.node_mut(at).entry = Some(entry);
            self.touch(at);
        } else {
            done.evicted += self.evict_while(|shard| shard.len() >= shard.entries_max as usize);
            let at = self.occupy(entry);
            self.link_newest(at);
            let Self { table, nodes, .. } = self;
            table.insert_unique(hash, at, |at| hash_at(nodes, *at));
        }
        done.evicted += self.evict_while(|shard| shard.len() > 1 && shard.ledger.bytes_over() > 0);
        done.bytes_over = self.ledger.bytes_over();
        debug_assert!(self.len() <= self.entries_max as usize);
        done
    }

    /// Takes the entry of that key out.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Arc<Entry>> {
        let at = self.find(hash, key)?;
        self.take_out(at)
    }

    /// Evicts the least recently used, at most `entries_max`, until the process is within its limit
    /// in bytes or this shard is empty; says how many left. For a core that another one asks for
    /// memory, in steps, since a million entries take a fifth of a second.
    pub fn shed(&mut self, entries_max: usize) -> usize {
        let until = self.len().saturating_sub(entries_max);
        self.evict_while(|shard| shard.len() > until && shard.ledger.bytes_over() > 0)
    }

    /// Changes the limit of entries and evicts down to it; says how many left.
    pub fn limit_to(&mut self, entries_max: u32) -> usize {
        self.entries_max = entries_max.min(NONE - 1);
        self.evict_while(|shard| shard.len() > shard.entries_max as usize)
    }

    /// Takes everything out.
    pub fn clear(&mut self) -> Cleared {
        self.table.clear();
        (self.newest, self.oldest, self.free) = (NONE, NONE, NONE);
        let room = self.nodes.capacity();
        Cleared(std::mem::replace(&mut self.nodes, Vec::with_capacity(room)))
    }

    /// Looks at no more than `slots_max` slots from `from` on and takes out the entries that
    /// `remove` picks. An entry that stays in the shard for a whole sweep is looked at once; one
    /// that comes in between may be left out.
    pub fn sweep(
        &mut self,
        from: Cursor,
        slots_max: usize,
        mut remove: impl FnMut(&Entry) -> bool,
    ) -> Swept {
        let until = from.0.saturating_add(slots_max).min(self.nodes.len());
        let mut removed = 0;
        for slot in from.0..until {
            let entry = self.nodes.get(slot).and_then(|node| node.entry.as_deref());
            if entry.is_some_and(&mut remove) {
                // Slots are numbered below `entries_max`, a u32.
                removed += usize::from(self.take_out(slot as u32).is_some());
            }
        }
        Swept { removed, next: (until < self.nodes.len()).then_some(Cursor(until)) }
    }

    /// The entries, most recently used first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let mut at = self.newest;
        std::iter::from_fn(move || {
            let node = (at != NONE).then(|| self.node(at))?;
            at = node.older;
            node.entry.as_ref()
        })
    }

    /// Memory of the index itself: table and slab, used or not.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.table.allocation_size() + self.nodes.capacity() * size_of::<Node>()
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let matches = |at: &u32| {
            let entry = self.node(*at).entry.as_ref();
            // The full hash first: the key's bytes are one more cache miss away.
            entry.is_some_and(|it| it.key().hash() == hash && it.key().bytes() == key)
        };
        self.table.find(hash, matches).copied()
    }

    fn evict_while(&mut self, needed: impl Fn(&Self) -> bool) -> usize {
        let mut evicted = 0;
        while self.oldest != NONE && needed(self) {
            evicted += usize::from(self.take_out(self.oldest).is_some());
        }
        evicted
    }

    /// Takes the entry at a slot out of table and list and frees the slot.
    fn take_out(&mut self, at: u32) -> Option<Arc<Entry>> {
        let hash = hash_at(&self.nodes, at);
        if let Ok(found) = self.table.find_entry(hash, |it| *it == at) {
            let _ = found.remove();
        }
        self.unlink(at);
        let free = self.free;
        let node = self.node_mut(at);
        node.older = free;
        let entry = take(&mut node.entry);
        self.free = at;
        debug_assert!(entry.is_some(), "slots in the list hold an entry");
        entry
    }

    /// A slot for the entry, not yet in table or list: a free one, else a new one.
    fn occupy(&mut self, entry: Arc<Entry>) -> u32 {
        let node = Node { entry: Some(entry), newer: NONE, older: NONE };
        if self.free == NONE {
            self.nodes.push(node);
            return self.nodes.len() as u32 - 1;
        }
        let at = self.free;
        self.free = self.node(at).older;
        debug_assert!(self.node(at).entry.is_none());
        *self.node_mut(at) = node;
        at
    }

    fn touch(&mut self, at: u32) {
        if at != self.newest {
            self.unlink(at);
            self.link_newest(at);
        }
    }

    fn link_newest(&mut self, at: u32) {
        let second = std::mem::replace(&mut self.newest, at);
        let node = self.node_mut(at);
        (node.newer, node.older) = (NONE, second);
        if second == NONE {
            debug_assert_eq!(self.oldest, NONE);
            self.oldest = at;
        } else {
            debug_assert_eq!(self.node(second).newer, NONE);
            self.node_mut(second).newer = at;
        }
    }

    fn unlink(&mut self, at: u32) {
        let Node { newer, older, .. } = *self.node(at);
        if newer == NONE {
            debug_assert_eq!(self.newest, at);
            self.newest = older;
        } else {
            debug_assert_eq!(self.node(newer).older, at);
            self.node_mut(newer).older = older;
        }
        if older == NONE {
            debug_assert_eq!(self.oldest, at);
            self.oldest = newer;
        } else {
            debug_assert_eq!(self.node(older).newer, at);
            self.node_mut(older).newer = newer;
        }
    }

    #[allow(clippy::indexing_slicing, reason = "slots come from this shard's own table and list")]
    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    #[allow(clippy::indexing_slicing, reason = "slots come from this shard's own table and list")]
    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }
}

impl Cleared {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().filter(|node| node.entry.is_some()).count()
    }

    /// Whether the shard was empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The hash of the key of the entry at a slot; entries carry it, so that nothing is hashed again.
fn hash_at(nodes: &[Node], at: u32) -> u64 {
    let entry = nodes.get(at as usize).and_then(|node| node.entry.as_ref());
    debug_assert!(entry.is_some(), "the table holds occupied slots only");
    entry.map_or(0, |entry| entry.key().hash())
}

/// Index room taken when a shard is made, in entries: at most 11 MiB and 16 MiB of slab that is not
/// touched before it is used.
pub const PREALLOCATED_MAX: u32 = 1 << 20;

/// No slot.
const NONE: u32 = u32::MAX;

const _: () = assert!(size_of::<Node>() == NODE_BYTES);

#[cfg(test)]
mod tests;
