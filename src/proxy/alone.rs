//! To the origin for one client, with an answer that the cache may still be able to keep: what
//! can't or need not share a fetch (a HEAD, Authorization, a key whose answers could not be
//! stored lately).

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use crate::cache::{CacheStatus, Entry, Facts, Reason, own_fields, storable};
use crate::http::Method;
use crate::net::wall;
use crate::proxy::ask::{Asked, Question};
use crate::proxy::core::Core;
use crate::proxy::deliver;
use crate::proxy::downstream::Downstream;
use crate::proxy::effects;
use crate::proxy::error::Fault;
use crate::proxy::fill::{self, Ground, Material};
use crate::proxy::hub::Published;
use crate::proxy::inquiry::Inquiry;
use crate::proxy::origin::{Patience, Purpose};
use crate::proxy::pass::{self, ask, clean, gather};
use crate::proxy::race::{First, race};
use crate::proxy::record;
use crate::proxy::rescue;

/// A request that goes to the origin by itself.
pub struct Alone<'a> {
    /// The request.
    pub inquiry: &'a Inquiry,
    /// The index of variants that was found.
    pub index: Option<Arc<Entry>>,
    /// What is stored and won't do as it is.
    pub stored: Option<Arc<Entry>>,
    /// Why it goes.
    pub status: CacheStatus,
}

impl Alone<'_> {
    /// Asks, keeps what can be kept, answers.
    pub async fn run(self, core: &Rc<Core>, client: &impl Downstream) {
        let inquiry = self.inquiry;
        let ground = Ground::new(core, self.index.clone());
        let upstream = inquiry.upstream(core);
        let question = Question {
            task: &inquiry.task,
            upstream,
            purpose: self.purpose(),
            body: inquiry.body.clone(),
            patience: if self.stored.is_some() { Patience::None } else { Patience::Some },
        };
        let asked = match race(ask(core, &question, client), client.gone()).await {
            First::Left(Ok(asked)) => asked,
            First::Left(Err(fault)) => return self.rescue(core, fault, client).await,
            First::Right(()) => return record::left(core, &inquiry.task),
        };
        let code = asked.head.status;
        let status = CacheStatus { fwd_status: Some(code), ..self.status };
        if inquiry.task.head.method == Method::Head {
            // Boxed: it may have to purge, which is large.
            let renewing = effects::renew(core, inquiry, &ground, self.stored.as_ref(), &asked);
            Box::pin(renewing).await;
        }
        if let Purpose::Pass = question.purpose {
            return pass::send(core, &inquiry.task, upstream, asked, status, client).await;
        }
        let head = &asked.head;
        let facts = storable(&inquiry.facts, head, asked.times, &inquiry.policy);
        let small = asked.connection.length().is_some_and(|it| it <= GATHER_BYTES_MAX);
        // What must be cut, decoded or judged by conditions must be whole first.
        let partial = inquiry.is_partial() || inquiry.must_decode(head);
        if small && (facts.is_ok() || partial) {
            let filling = self.filled(core, &ground, asked, facts, status, client);
            return Box::pin(filling).await;
        }
        let why = facts.err().unwrap_or(Reason::ResponseTooLarge);
        let status = status.unstored(why);
        pass::send(core, &inquiry.task, upstream, asked, status, client).await;
    }

    /// The conditions of a HEAD are the origin's to judge, and nothing is filled by it; the whole
    /// of what may be large is not fetched for a part that will not be stored.
    fn purpose(&self) -> Purpose<'static> {
        let inquiry = self.inquiry;
        if inquiry.task.head.method == Method::Head || inquiry.facts.range {
            return Purpose::Pass;
        }
        Purpose::Fill { stored: None, gzip: inquiry.codings.gzip.is_acceptable() }
    }

    async fn rescue(&self, core: &Rc<Core>, fault: Fault, client: &impl Downstream) {
        let mut unused = None;
        if let Some(stored) = &self.stored {
            match rescue::stale(core, self.inquiry, stored, fault, client).await {
                Ok(()) => return,
                Err(reason) => unused = Some(reason),
            }
        }
        rescue::fault(core, self.inquiry, fault, unused, client).await;
    }

    /// Gathers an answer, stores it where it may be, and sends what this request wants of it.
    async fn filled(
        &self,
        core: &Rc<Core>,
        ground: &Ground,
        mut asked: Asked,
        facts: Result<Facts, Reason>,
        status: CacheStatus,
        client: &impl Downstream,
    ) {
        let inquiry = self.inquiry;
        let (task, upstream) = (&inquiry.task, inquiry.upstream(core));
        let gathered = {
            let mut gathering = pin!(gather(&mut asked));
            match race(gathering.as_mut(), client.gone()).await {
                First::Left(gathered) => gathered,
                // What can be stored is completed for the next reader.
                First::Right(()) if facts.is_ok() => gathering.await,
                First::Right(()) => return record::left(core, task),
            }
        };
        let body = match gathered {
            Ok(body) => body,
            Err(fault) => {
                asked.fail(core, fault);
                return self.rescue(core, fault, client).await;
            }
        };
        let (head, times) = (asked.take_head(), asked.times);
        asked.finish(core, upstream);
        match facts {
            Ok(facts) => {
                let own = own_fields(&head);
                let material = Material { head, times, facts, body };
                let (entry, published) = fill::fill_solo(core, inquiry, ground, material);
                let status = match published {
                    Published::Doomed => status.unstored(Reason::Purged),
                    Published::New | Published::Replaced => CacheStatus { stored: true, ..status },
                };
                deliver::entry_with(core, inquiry, &entry, &own, status, client).await;
            }
            Err(why) => {
                let status = status.unstored(why);
                let head = clean(head);
                let mut whole = deliver::conditioned(inquiry, head, body, times.responded, wall());
                deliver::note(&mut whole.head.fields, &status);
                let result = deliver::result_of(&status);
                deliver::whole(core, task, whole, result, client).await;
            }
        }
    }
}

/// Up to this length a storable answer is gathered and kept.
const GATHER_BYTES_MAX: u64 = 256 * 1024;
