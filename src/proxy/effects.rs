//! What an answer from the origin means for what is stored, beside its own storing: the head of a
//! HEAD's answer (RFC 9111 section 4.3.5), the success of an unsafe method (section 4.4), and a
//! POST's answer that says what a GET would now get (RFC 9110 section 9.3.3).

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::key::Class;
use crate::cache::{
    Entry, Facts, HeadUpdate, Keep, Key, Kind, Reason, RequestFacts, Settings, Target, fills_get,
    head_update, invalidates, invalidation_targets, storable, update,
};
use crate::http::{Method, RequestHead, ResponseHead, accept};
use crate::proxy::ask::Asked;
use crate::proxy::core::Core;
use crate::proxy::fill::{self, Ground};
use crate::proxy::inquiry::{Inquiry, is_gzip};
use crate::proxy::keeping::states_lifetime;
use crate::proxy::keyed::{Keyed, referenced_path};
use crate::proxy::plan::Upstream;
use crate::proxy::purge;
use crate::proxy::request::Task;

/// What a HEAD's answer says of the stored GET. `stored` is what was found for it, fresh or not.
pub async fn renew(
    core: &Rc<Core>,
    inquiry: &Inquiry,
    ground: &Ground,
    stored: Option<&Arc<Entry>>,
    asked: &Asked,
) {
    let primary = &inquiry.primary;
    let live = || core.shared.hub.live(primary.hash(), primary.bytes());
    let Some(entry) = stored.cloned().or_else(live) else { return };
    let bytes = match entry.kind() {
        Kind::Content => Some(entry.body().len() as u64),
        Kind::Part(part) => part.complete,
        Kind::VaryIndex(_) => return,
    };
    let (head, times) = (&asked.head, asked.times);
    match head_update(entry.status(), entry.fields(), bytes, head, times) {
        HeadUpdate::Ignore => {}
        HeadUpdate::Invalidate => {
            purge::forget(core, inquiry.upstream(core), entry.key()).await;
        }
        HeadUpdate::Update => {
            let facts = inquiry.facts.as_get();
            let updated =
                update(&facts, entry.status(), entry.fields(), head, times, &inquiry.policy);
            match updated.keep {
                Keep::Replace => {
                    let version = head.version;
                    let renewal = fill::renewed(core, inquiry, ground, &entry, &updated, version);
                    fill::replace(core, inquiry, ground, &renewal);
                    if let Some(left) = renewal.left {
                        purge::forget(core, inquiry.upstream(core), &left).await;
                    }
                }
                Keep::Leave(_) => {}
                Keep::Remove(_) => {
                    purge::forget(core, inquiry.upstream(core), entry.key()).await;
                }
            }
        }
    }
}

/// A POST's answer that is to be stored for GET.
pub struct Filling {
    /// The GET it answers.
    pub inquiry: Inquiry,
    /// After the POST's own effects.
    pub ground: Ground,
    /// What the policy made of it.
    pub facts: Facts,
}

/// Whether an answer that went past the cache means anything for what is stored.
#[must_use]
pub fn has_any(upstream: &Upstream, task: &Task, asked: &Asked) -> bool {
    let head = &task.head;
    invalidates(&head.method, asked.head.status)
        && !reads(RequestFacts::parse(&head.method, &head.fields), asked, &upstream.policy)
}

/// The same of an answer that the cache looks at, because this method's are kept.
#[must_use]
pub fn changes(inquiry: &Inquiry, asked: &Asked) -> bool {
    invalidates(&inquiry.task.head.method, asked.head.status)
        && !reads(inquiry.facts.clone(), asked, &inquiry.policy)
}

/// Whether an unsafe method has only read something. RFC 9111 section 4.4 takes every success for a
/// change. But who has POST cached says that some of them only read, and those must not undo each
/// other's keeping. Which: the ones whose answer may be kept by its own words, says for how long,
/// and names no other resource (201, Location, Content-Location). A request that for itself asks
/// not to keep it (`no-store`, no canonical body) reads no less.
fn reads(mut request: RequestFacts, asked: &Asked, policy: &Settings) -> bool {
    let head = &asked.head;
    let names_another = ["Location", "Content-Location"].iter().any(|it| head.fields.contains(it));
    request.control.no_store = false;
    // Nothing of a method that is not cached is storable.
    let facts = storable(&request, head, asked.times, policy);
    head.status != 201 && !names_another && facts.is_ok_and(|it| states_lifetime(&it))
}

/// Whether an answer that may not be stored, for this reason, says that what is stored for the same
/// request holds no longer: another representation, another place, or none.
///
/// Not so an error, a refusal, or what answers one request only (304, 206, 401); and not what an
/// Authorization brought, which is for one client while what is stored is for all.
#[must_use]
pub const fn supersedes(status: u16, why: Reason) -> bool {
    let definite = match status {
        206 | 304 => false,
        404 | 410 => true,
        _ => status >= 200 && status < 400,
    };
    definite && !matches!(why, Reason::Authorization | Reason::RequestNoStore)
}

/// Does what the answer to an unsafe method means for what is stored, in every core and tier,
/// before that answer is sent. `before` is from before the request went out.
pub async fn settle(
    core: &Rc<Core>,
    task: &Task,
    upstream: &Upstream,
    before: &Ground,
    asked: &Asked,
) -> Option<Filling> {
    debug_assert!(invalidates(&task.head.method, asked.head.status));
    let head = &asked.head;
    let filling = get_of(core, task, upstream, asked);
    let filling = filling.filter(|(inquiry, _)| before.spares(core, &inquiry.primary));

    let journal = &core.shared.journal;
    let start = journal.mark();
    let (path, query) = (&task.head.path, task.head.query.as_deref());
    let mut removed = vec![purge::invalidate(core, upstream, path, query).await];
    let authorities = [task.head.authority.as_str(), upstream.target.authority()];
    let target = Target { authorities: &authorities, path, query };
    for reference in invalidation_targets(&target, head) {
        let Some(path) = referenced_path(core.plan(), upstream, &reference.path) else { continue };
        let query = reference.query.as_deref();
        let Some(query) = normal_query(query) else { continue };
        removed.push(purge::invalidate(core, upstream, &path, query.as_deref()).await);
    }
    let ground = Ground::new(core, None);
    let (inquiry, facts) = filling?;
    let key = inquiry.primary.bytes();
    let own = removed.iter().filter(|matches| matches(key)).count() * purge::NOTES;
    // Somebody else's purge of this key among ours: this answer may be older than what that one
    // was about.
    (journal.concerning(start, key) == Some(own)).then_some(Filling { inquiry, ground, facts })
}

/// The GET that a POST's answer also answers, and what is to be known of it.
fn get_of(
    core: &Core,
    task: &Task,
    upstream: &Upstream,
    asked: &Asked,
) -> Option<(Inquiry, Facts)> {
    let head = &asked.head;
    let small = asked.connection.length().is_some_and(|it| it <= FILLING_BYTES_MAX);
    let plain = !head.fields.contains("Content-Encoding") || is_gzip(head);
    if !small || !plain || !answers_get(task, upstream, head) {
        return None;
    }
    let policy = core.plan().policy(upstream, task.head.path.as_bytes());
    let facts = RequestFacts::parse(&Method::Get, &task.head.fields);
    let stored = storable(&facts, head, asked.times, &policy).ok()?;
    let mut key = Vec::new();
    let keyed = Keyed {
        class: Class::Read,
        path: task.head.path.as_bytes(),
        query: task.head.query.as_deref().map(str::as_bytes),
        api_key: task.head.fields.get("X-API-Key"),
        body: None,
    };
    keyed.write(core.plan(), upstream, &mut key);
    let get = task.with_head(RequestHead { method: Method::Get, ..task.head.clone() });
    let inquiry = Inquiry {
        codings: accept::codings(&get.head.fields),
        task: Box::new(get),
        upstream: upstream.index,
        policy,
        facts,
        primary: Key::new(&key, &core.shared.seed),
        body: Bytes::new(),
    };
    Some((inquiry, stored))
}

/// Whether the answer to this request is what a GET of the same target would now get, in the
/// origin's terms: with its own name and base path.
fn answers_get(task: &Task, upstream: &Upstream, head: &ResponseHead) -> bool {
    let mut path = Vec::new();
    upstream.target.push_path(task.head.path.as_bytes(), &mut path);
    let authorities = [upstream.target.authority()];
    let path = String::from_utf8_lossy(&path);
    let target =
        Target { authorities: &authorities, path: &path, query: task.head.query.as_deref() };
    fills_get(&task.head.method, &target, head)
}

/// A query in the spelling that keys have; `None` for what no request could have asked for.
fn normal_query(query: Option<&str>) -> Option<Option<String>> {
    let Some(query) = query else { return Some(None) };
    let normal = crate::http::target::normalise_query(query.as_bytes()).ok()?;
    String::from_utf8(normal.into_owned()).ok().map(Some)
}

/// Up to this length a POST's answer is gathered to be stored.
const FILLING_BYTES_MAX: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definite_answer_supersedes_what_is_stored() {
        for (status, why, expected) in [
            (200, Reason::NoStore, true),
            (200, Reason::Private, true),
            (200, Reason::ResponseTooLarge, true),
            (200, Reason::Authorization, false),
            (204, Reason::NoValidator, true),
            (206, Reason::PartUnusable, false),
            (301, Reason::NoFreshness, true),
            (304, Reason::Status, false),
            (401, Reason::Status, false),
            (403, Reason::NoFreshness, false),
            (404, Reason::NoFreshness, true),
            (410, Reason::NoStore, true),
            (429, Reason::Status, false),
            (500, Reason::NoFreshness, false),
        ] {
            assert_eq!(supersedes(status, why), expected, "{status} {why:?}");
        }
    }
}
