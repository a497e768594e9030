//! The other content coding of an entry: gzip of what is stored plain, plain of what is stored as
//! gzip. Made once, by the first client that wants it, and kept beside the entry.
//!
//! Small bodies are recoded on the core, in about a millisecond. Larger ones go to threads of their
//! own, an entry once however many want it, from however many cores; who wants it waits for it. The
//! queue is bounded by the bytes in it. When it is full, what is stored plain is sent plain this
//! time; what is stored as gzip waits for room, since its client can't read it: one such wait a
//! connection at most.
//!
//! What forbids to change the content (`no-transform`, RFC 9110 section 7.7) forbids this: the
//! client gets what is stored, or, where it can't read that, what the origin has for it
//! (`cut::answers`).
//!
//! No validator names two byte sequences (RFC 9110 section 8.8.3.3): the other coding has a weak
//! tag and no digest (RFC 9530), and both say that they vary on Accept-Encoding. A request for a
//! part gets a part of what is stored, where it can read that: a date in If-Range names the bytes
//! of one coding only.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;

use crate::cache::control::forbids_transforming;
use crate::cache::{Encoded, Entry, OtherCoding, encode};
use crate::http::conditional::{Precondition, Validators, evaluate};
use crate::http::{Fields, ResponseHead, Version};
use crate::net::wall;
use crate::proxy::core::Core;
use crate::proxy::helper::Helper;
use crate::proxy::inquiry::Inquiry;
use crate::proxy::plan::Plan;

/// The stored response, or its other coding where the client wants that.
pub async fn coded(core: &Core, inquiry: &Inquiry, entry: &Arc<Entry>) -> (Fields, Bytes) {
    let marks = entry.marks();
    let wants_other = if marks.gzip {
        !inquiry.codings.gzip.is_acceptable() && !is_fixed(inquiry, entry)
    } else {
        let free = !inquiry.facts.control.no_transform;
        marks.compressible && inquiry.codings.prefers_gzip() && !inquiry.facts.range && free
    };
    if !wants_other {
        return (entry.fields().clone(), entry.body().clone());
    }
    if let OtherCoding::NotMade = entry.other_coding() {
        if !marks.gzip && is_not_modified(inquiry, entry) {
            // There will be no body: only the tag of the form that there would be.
            let mut fields = entry.fields().clone();
            describe_other(&mut fields);
            return (fields, entry.body().clone());
        }
        let recipe = Recipe::of(core.plan());
        if recipe.is_for_core(entry) {
            entry.keep_other_coding(recipe.make(entry));
        } else {
            core.shared.encoder.made(entry, recipe).await;
        }
    }
    match entry.other_coding() {
        OtherCoding::Made(other) => (other.fields.clone(), other.body.clone()),
        OtherCoding::NotMade | OtherCoding::Useless => {
            (entry.fields().clone(), entry.body().clone())
        }
    }
}

/// Whether this response must go to this client in the coding in which it is stored.
#[must_use]
pub fn is_fixed(inquiry: &Inquiry, entry: &Entry) -> bool {
    inquiry.facts.control.no_transform || forbids_transforming(entry.fields())
}

fn is_not_modified(inquiry: &Inquiry, entry: &Entry) -> bool {
    let (status, fields) = (entry.status(), entry.fields().clone());
    let head = ResponseHead { status, version: Version::Http11, fields };
    let validators = Validators::of(&head, entry.facts().response_time);
    let request = &inquiry.task.head;
    let precondition = evaluate(&request.method, &request.fields, &validators, wall());
    precondition == Precondition::NotModified
}

/// How bodies are recoded.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    level: encode::Level,
    /// Above the usual level each costs about twice as much.
    halvings: u32,
    /// A body that becomes larger is left as it is.
    inflated_bytes_max: usize,
}

impl Recipe {
    /// As the settings say.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let level = u8::try_from(plan.compression_level).ok().and_then(encode::Level::new);
        Self {
            level: level.unwrap_or_default(),
            halvings: plan.compression_level.saturating_sub(LEVEL_USUAL).min(6),
            inflated_bytes_max: usize::try_from(plan.response_body_bytes_max).unwrap_or(usize::MAX),
        }
    }

    /// Whether a core may do it: in about a millisecond and a half, at whatever level.
    fn is_for_core(self, entry: &Entry) -> bool {
        let bytes = entry.body().len() as u64;
        if entry.marks().gzip {
            // To inflate is cheaper by far, but what comes out counts.
            return bytes <= ON_CORE_BYTES_MAX
                && encode::stated_bytes(entry.body()) <= ON_CORE_BYTES_MAX;
        }
        bytes <= ON_CORE_BYTES_MAX >> self.halvings
    }

    /// Makes the other coding, with a head of its own.
    fn make(self, entry: &Entry) -> Option<Encoded> {
        let mut fields = entry.fields().clone();
        fields.remove("Content-Encoding");
        let body: Bytes = if entry.marks().gzip {
            encode::gunzip(entry.body(), self.inflated_bytes_max).ok()?.into()
        } else {
            fields.push("Content-Encoding", "gzip");
            encode::gzip(entry.body(), self.level)?.into()
        };
        fields.remove("Content-Length");
        fields.push("Content-Length", body.len().to_string());
        fields.remove("Accept-Ranges");
        describe_other(&mut fields);
        Some(Encoded { fields, body })
    }
}

/// Makes fields of a response those of its other coding. A strong validator names one byte
/// sequence; the same in another coding is only equivalent. Digests are of one coding: that of the
/// content, of the representation (RFC 9530 section 3.1), and their older names.
fn describe_other(fields: &mut Fields) {
    let digests = ["Content-Digest", "Repr-Digest", "Content-MD5", "Digest"];
    if fields.iter().any(|field| digests.iter().any(|name| field.is(name))) {
        fields.retain(|field| !digests.iter().any(|name| field.is(name)));
    }
    let strong = fields.single("ETag").filter(|it| it.starts_with(b"\"")).map(<[u8]>::to_vec);
    if let Some(tag) = strong {
        fields.remove("ETag");
        fields.push("ETag", [b"W/", &*tag].concat());
    }
}

/// The threads that recode, and what they have in hand.
pub struct Encoder {
    helper: Helper,
    desk: Arc<Desk>,
}

#[derive(Default)]
struct Desk(Mutex<State>);

#[derive(Default)]
struct State {
    /// By the address of the entry, which the job holds: who waits for it.
    making: HashMap<usize, Vec<Waker>>,
    /// Stored bytes of these entries.
    bytes: u64,
    /// Jobs that have ended, and who waits for the next end.
    ended: u64,
    room: Vec<Waker>,
}

/// What became of the wish for another coding.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// It is being made.
    InHand,
    /// Too much is waiting; so many jobs had ended then.
    Full(u64),
}

impl Encoder {
    /// Starts its threads: one for each four cores.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(cores: usize) -> std::io::Result<Self> {
        let helper = Helper::start("encoder", cores / 4, JOBS_MAX)?;
        Ok(Self { helper, desk: Arc::default() })
    }

    /// Waits until the other coding is there, or until it is clear that there will be none now.
    async fn made(&self, entry: &Arc<Entry>, recipe: Recipe) {
        loop {
            match self.wish(entry, move |it| recipe.make(it)) {
                Wish::InHand => return self.desk.ended(entry).await,
                Wish::Full(ended) if entry.marks().gzip => self.desk.room(ended).await,
                Wish::Full(_) => return,
            }
        }
    }

    fn wish(
        &self,
        entry: &Arc<Entry>,
        make: impl FnOnce(&Entry) -> Option<Encoded> + Send + 'static,
    ) -> Wish {
        let bytes = entry.body().len() as u64;
        let mut state = self.desk.lock();
        if state.making.contains_key(&address(entry)) || is_known(entry) {
            return Wish::InHand;
        }
        // One that is larger than all may be passes while nothing else waits.
        let full = state.bytes > 0 && state.bytes + bytes > QUEUE_BYTES_MAX;
        if full || state.making.len() >= JOBS_MAX {
            return Wish::Full(state.ended);
        }
        state.making.insert(address(entry), Vec::new());
        state.bytes += bytes;
        drop(state);
        let hand = InHand { desk: Arc::clone(&self.desk), entry: Arc::clone(entry) };
        let job = move || {
            hand.entry.keep_other_coding(make(&hand.entry));
            drop(hand);
        };
        match self.helper.take(Box::new(job)) {
            Ok(()) => Wish::InHand,
            Err(job) => {
                // The note of it is taken back first.
                drop(job);
                Wish::Full(self.desk.lock().ended)
            }
        }
    }
}

impl Desk {
    /// Waits until nobody makes it any more.
    async fn ended(&self, entry: &Arc<Entry>) {
        poll_fn(|cx| match self.lock().making.get_mut(&address(entry)) {
            None => Poll::Ready(()),
            Some(waiting) => {
                note(waiting, cx.waker());
                Poll::Pending
            }
        })
        .await;
    }

    /// Waits until another job has ended.
    async fn room(&self, ended: u64) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.ended != ended {
                return Poll::Ready(());
            }
            note(&mut state.room, cx.waker());
            Poll::Pending
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry that is being recoded; tells who waits when it is over, however it ends.
struct InHand {
    desk: Arc<Desk>,
    entry: Arc<Entry>,
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut state = self.desk.lock();
        let mut wakers = state.making.remove(&address(&self.entry)).unwrap_or_default();
        state.bytes -= self.entry.body().len() as u64;
        state.ended += 1;
        wakers.append(&mut state.room);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Whether there is nothing more to find out about the other coding.
fn is_known(entry: &Entry) -> bool {
    entry.other_coding() != OtherCoding::NotMade
}

fn note(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|it| it.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}

fn address(entry: &Arc<Entry>) -> usize {
    Arc::as_ptr(entry).addr()
}

/// Recoded on the core up to this length: 1.6 ms at level 6.
const ON_CORE_BYTES_MAX: u64 = 64 * 1024;
/// The default.
const LEVEL_USUAL: u32 = 6;
/// Stored bytes that may wait to be recoded: 0.2 s of work at level 6 for one thread. Beyond, to
/// send it plain is quicker.
const QUEUE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Entries that may wait to be recoded.
const JOBS_MAX: usize = 256;

#[cfg(test)]
mod tests;
