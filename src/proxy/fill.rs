//! From an answer to an entry: made, shown to all cores, queued for the second tier.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::Wall;
use crate::cache::{
    CacheStatus, Entry, Exchange, Facts, Key, Kind, Part, Reason, Updated, record, stored_fields,
};
use crate::http::{Fields, ResponseHead, Version};
use crate::net::mono;
use crate::proxy::core::Core;
use crate::proxy::flight::How;
use crate::proxy::hub::{Lead, Published};
use crate::proxy::inquiry::Inquiry;
use crate::proxy::journal::Mark;
use crate::proxy::origin::via;
use crate::proxy::purge;
use crate::proxy::variant::{self, Placed};
use crate::store;

/// A whole answer, or a part, that may be stored.
pub struct Material {
    /// Its head as received; of a part with its Content-Range.
    pub head: ResponseHead,
    /// When it was asked for and came.
    pub times: Exchange,
    /// What the policy made of it.
    pub facts: Facts,
    /// All of its body, in memory of its own.
    pub body: Bytes,
    /// How long the stored part was that it has grown from; zero for what is new.
    pub grown_from: u64,
}

impl Material {
    /// Whether it is worth a row of its own. A part that grows bit by bit would be written over and
    /// over again: it is each time that its length gains a binary digit, and when it is whole.
    fn is_worth_a_row(&self) -> bool {
        let bytes = self.body.len() as u64;
        let grown = bytes.checked_ilog2() > self.grown_from.checked_ilog2();
        self.head.status != 206 || self.grown_from == 0 || grown
    }
}

/// Where a flight or a solo fetch started from.
#[derive(Clone)]
pub struct Ground {
    /// The purges before.
    pub mark: Mark,
    /// The second tier's own count.
    pub store_epoch: Option<store::Epoch>,
    /// The index of variants that was found.
    pub index: Option<Arc<Entry>>,
}

impl Ground {
    /// As things stand now.
    #[must_use]
    pub fn new(core: &Core, index: Option<Arc<Entry>>) -> Self {
        let store_epoch = core.store.as_ref().map(|it| it.epoch());
        Self { mark: core.shared.journal.mark(), store_epoch, index }
    }

    /// Whether nothing that stands under `primary` was purged since.
    #[must_use]
    pub fn spares(&self, core: &Core, primary: &Key) -> bool {
        core.shared.journal.spared(self.mark, primary.bytes())
    }
}

/// Stores a led fetch's answer and lands its flight with it.
pub fn fill(
    core: &Core,
    inquiry: &Inquiry,
    lead: Lead<Entry>,
    ground: &Ground,
    material: Material,
) -> Arc<Entry> {
    let (entry, index) = make(core, inquiry, ground, material);
    publish(core, inquiry, lead, ground, index, &entry, How::Fetched);
    entry
}

/// Shows an entry that answers a flight, with the index that leads to it.
pub fn publish(
    core: &Core,
    inquiry: &Inquiry,
    lead: Lead<Entry>,
    ground: &Ground,
    index: Option<Arc<Entry>>,
    entry: &Arc<Entry>,
    how: How,
) {
    if lead.flight().is_doomed() || !ground.spares(core, &inquiry.primary) {
        return lead.answer(entry, How::Purged);
    }
    let (mut lead, mut how) = (Some(lead), how);
    // The index last: who finds it, on whichever core, finds the response too.
    for shown in [entry].into_iter().chain(&index) {
        let published = match lead.take_if(|it| **it.key() == *shown.key().bytes()) {
            Some(lead) => lead.publish(shown, entry, how),
            None => announce(core, inquiry, ground, shown),
        };
        if published == Published::Doomed {
            how = How::Purged;
            break;
        }
        core.show(shown, published);
        store(core, inquiry, ground, shown);
    }
    if let Some(lead) = lead {
        lead.answer(entry, how);
    }
}

/// Shows an entry for which there is no lead, unless its key was purged since `ground`.
pub fn announce(core: &Core, inquiry: &Inquiry, ground: &Ground, entry: &Arc<Entry>) -> Published {
    // Without a flight that a purge could have doomed: so the hub asks the journal.
    let spared = || ground.spares(core, &inquiry.primary);
    core.shared.hub.announce(entry.key().hash(), entry, mono(), spared)
}

/// Stores the answer of a request that went alone, if its key was not purged meanwhile; says
/// whether it did.
pub fn fill_solo(
    core: &Core,
    inquiry: &Inquiry,
    ground: &Ground,
    material: Material,
) -> (Arc<Entry>, Kept) {
    let lives_in_memory = core.holds(material.body.len() as u64);
    let skip = lives_in_memory && !material.is_worth_a_row();
    let row = if skip { Row::Skip } else { Row::Write };
    let (entry, index) = make(core, inquiry, ground, material);
    let key = entry.key();
    let live = core.shared.hub.live(key.hash(), key.bytes());
    // The whole that somebody has stored is worth more than a part of the same version.
    if live.is_some_and(|it| outdoes(&it, &entry)) {
        return (entry, Kept::Outdone);
    }
    let kept = match show_solo(core, inquiry, ground, index.as_ref(), (&entry, row)) {
        Published::Doomed => Kept::Purged,
        Published::New | Published::Replaced => Kept::Stored,
    };
    (entry, kept)
}

/// Whether an entry is the whole of which another one is a part.
fn outdoes(whole: &Entry, part: &Entry) -> bool {
    let same = |name: &str| whole.fields().get(name) == part.fields().get(name);
    matches!((whole.kind(), part.kind()), (Kind::Content, Kind::Part(_)))
        && same("ETag")
        && same("Last-Modified")
}

/// What became of the answer of a request that went alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is stored.
    Stored,
    /// Its key was purged meanwhile.
    Purged,
    /// It is a part, and the whole is stored.
    Outdone,
}

impl Kept {
    /// What is said of it.
    #[must_use]
    pub fn told(self, status: CacheStatus) -> CacheStatus {
        match self {
            Self::Stored => CacheStatus { stored: true, ..status },
            Self::Purged => status.unstored(Reason::Purged),
            Self::Outdone => status,
        }
    }
}

/// Whether an entry is written into the second tier.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Row {
    Write,
    Skip,
}

/// Shows an entry for which there is no lead, with the index that leads to it.
fn show_solo(
    core: &Core,
    inquiry: &Inquiry,
    ground: &Ground,
    index: Option<&Arc<Entry>>,
    (entry, row): (&Arc<Entry>, Row),
) -> Published {
    let mut published = Published::Doomed;
    for shown in [entry].into_iter().chain(index) {
        published = announce(core, inquiry, ground, shown);
        if published == Published::Doomed {
            break;
        }
        core.show(shown, published);
        if row == Row::Write || !Arc::ptr_eq(shown, entry) {
            store(core, inquiry, ground, shown);
        }
    }
    published
}

fn make(
    core: &Core,
    inquiry: &Inquiry,
    ground: &Ground,
    material: Material,
) -> (Arc<Entry>, Option<Arc<Entry>>) {
    let Material { head, times, facts, body, .. } = material;
    let part = Part::of(&head);
    let mut fields = stored_fields(&head, times);
    if part.is_some() {
        // Said anew with each answer; a 200 may have one that means nothing.
        fields.remove("Content-Range");
    }
    fields.remove("Content-Length");
    // RFC 9110 section 8.6: a 204 has none.
    if head.status != 204 {
        fields.push("Content-Length", body.len().to_string());
    }
    pass_through(&mut fields, head.version);
    let placed = place(core, inquiry, ground, &fields, &facts);
    let ledger = &core.shared.ledger;
    let entry = match part {
        Some(part) => Entry::part(placed.key, facts, &fields, body, part, ledger),
        None => Entry::new(placed.key, facts, &fields, body, ledger),
    };
    (Arc::new(marked(core, entry)), placed.index)
}

/// What passing through here does to stored fields: this hop stands in Via, once (RFC 9110 section
/// 7.6.3), and X-Cache is ours to write.
fn pass_through(fields: &mut Fields, version: Version) {
    fields.remove("X-Cache");
    let own = via(version);
    if fields.all("Via").last().is_none_or(|last| !last.ends_with(own.as_bytes())) {
        fields.push("Via", own);
    }
}

/// Where a response with these fields is to stand.
fn place(
    core: &Core,
    inquiry: &Inquiry,
    ground: &Ground,
    fields: &Fields,
    facts: &Facts,
) -> Placed {
    let (seed, ledger, primary) = (&core.shared.seed, &core.shared.ledger, &inquiry.primary);
    // Another core may have added a list since this one looked.
    let live = core.shared.hub.live(primary.hash(), primary.bytes());
    let live = live.filter(|it| matches!(it.kind(), Kind::VaryIndex(_)));
    let known = live.as_ref().or(ground.index.as_ref());
    variant::place(seed, ledger, inquiry, known, fields, facts, core.next_id())
}

/// What an update made of a stored response.
pub struct Renewal {
    /// The response with its new head.
    pub entry: Arc<Entry>,
    /// The index that leads to it, where that changed too.
    pub index: Option<Arc<Entry>>,
    /// The key that it stood under, where it moves: its new Vary is another list.
    pub left: Option<Key>,
}

/// The response in `base` with another head, which came by `version`, for the request that brought
/// it.
#[must_use]
pub fn renewed(
    core: &Core,
    inquiry: &Inquiry,
    ground: &Ground,
    base: &Entry,
    updated: &Updated,
    version: Version,
) -> Renewal {
    let mut fields = updated.fields.clone();
    pass_through(&mut fields, version);
    let Placed { key, index } = place(core, inquiry, ground, &fields, &updated.facts);
    let left = (key != *base.key()).then(|| base.key().clone());
    // Where the index takes its place, it is gone already.
    let left = left.filter(|it| *it != inquiry.primary);
    let entry = base.renewed(key, updated.facts, &fields);
    Renewal { entry: Arc::new(marked(core, entry)), index, left }
}

/// Notes whether the origin set one of the configured fields itself, and whether the body is worth
/// to compress: one that memory does not keep would be compressed anew for each client.
#[must_use]
pub fn marked(core: &Core, entry: Entry) -> Entry {
    let plan = core.plan();
    let overlap = plan.marks.overlap(entry.fields());
    let entry = entry.with_own_fields(overlap).compressed_within(plan.compressed_lengths());
    let marks = entry.marks();
    let recoded = entry.kind() == Kind::Content && (marks.gzip || marks.compressible);
    if recoded { entry.varying_on_coding() } else { entry }
}

/// Queues an entry for the second tier.
fn store(core: &Core, inquiry: &Inquiry, ground: &Ground, entry: &Entry) {
    let (Some(client), Some(epoch)) = (&core.store, ground.store_epoch) else { return };
    let (upstream, head) = (inquiry.upstream(core), &inquiry.task.head);
    let plan = core.plan();
    let path = purge::row_path(plan, upstream, &head.path, head.query.as_deref());
    let row = store::Row {
        digest: entry.key().digest(&upstream.name()),
        path: path.into(),
        meta: record::encode(entry).into(),
        body: entry.body().clone(),
        stored_at: crate::net::wall(),
        keep_until: keep_until(inquiry, entry),
        expired_at: None,
    };
    // A put that is shed costs a later miss; the store counts it.
    let _ = client.put(row, epoch);
}

fn keep_until(inquiry: &Inquiry, entry: &Entry) -> Wall {
    entry.facts().keep_until(&inquiry.policy)
}

/// Reads a row back; a row that can't be trusted is a miss.
#[must_use]
pub fn read(core: &Core, row: store::Row, key: &Key) -> Option<Entry> {
    match record::decode(&row.meta, row.body, key, &core.shared.ledger) {
        Ok(entry) => Some(marked(core, entry)),
        Err(fault) => {
            tracing::warn!(reason = fault.as_str(), "a stored row was not usable");
            None
        }
    }
}

/// Shows an entry of the second tier to all cores and lands the flight that looked for it.
pub fn promote_stored(
    core: &Core,
    inquiry: &Inquiry,
    lead: Lead<Entry>,
    ground: &Ground,
    entry: &Arc<Entry>,
) {
    if !ground.spares(core, &inquiry.primary) {
        return lead.answer(entry, How::Stored);
    }
    let published = lead.publish(entry, entry, How::Stored);
    core.show(entry, published);
}

/// An entry that a purge made stale must be validated before it is used again.
#[must_use]
pub fn expire(core: &Core, entry: Entry, expired_at: Option<Wall>) -> Entry {
    let Some(at) = expired_at else { return entry };
    let mut facts = entry.facts();
    facts.lifetime = facts.lifetime.min(facts.age(at));
    marked(core, entry.renewed(entry.key().clone(), facts, entry.fields()))
}

/// Shows what an update without a flight made of a stored response, unless its key was purged
/// meanwhile.
pub fn replace(core: &Core, inquiry: &Inquiry, ground: &Ground, renewal: &Renewal) {
    let entry = (&renewal.entry, Row::Write);
    show_solo(core, inquiry, ground, renewal.index.as_ref(), entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_gets_a_row_when_it_is_new_or_has_about_doubled() {
        for (status, grown_from, bytes, worth) in [
            (206, 0, 100, true),
            (206, 100, 110, false),
            (206, 100, 127, false),
            (206, 100, 128, true),
            (206, 1_000, 1_024, true),
            (206, 1_024, 2_047, false),
            (206, 1_024, 9_000, true),
            (200, 1_024, 1_025, true),
        ] {
            let head = ResponseHead { status, version: Version::Http11, fields: Fields::new() };
            let times = Exchange { requested: Wall::EPOCH, responded: Wall::EPOCH };
            let facts = Facts::of(&head, times, &crate::cache::Settings::default());
            let body = Bytes::from(vec![0; bytes]);
            let material = Material { head, times, facts, body, grown_from };
            assert_eq!(material.is_worth_a_row(), worth, "{grown_from} to {bytes}");
        }
    }

    /// RFC 9110 section 7.6.3.
    #[test]
    fn this_hop_stands_in_via_once_and_behind_the_others() {
        let mut fields = Fields::new();
        fields.push("Via", "1.0 first, 1.1 second");
        fields.push("X-Cache", "theirs");
        for _ in 0..2 {
            pass_through(&mut fields, Version::Http11);
            let lines: Vec<_> = fields.all("Via").collect();
            assert_eq!(lines, [&b"1.0 first, 1.1 second"[..], b"1.1 apiproxyd"]);
            assert!(!fields.contains("X-Cache"));
        }
    }
}
