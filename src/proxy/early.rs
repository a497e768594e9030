//! What of an answer that is still arriving a request may have before its end: by its head alone,
//! conditions (RFC 9110 section 13) and, where the length is known, one range (section 14).

use crate::base::Wall;
use crate::http::RequestHead;
use crate::http::conditional::{Precondition, Validators, evaluate, wanted_ranges};
use crate::http::range::{Resolved, Span, resolve};
use crate::proxy::flight::Incoming;

/// What it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Early {
    /// Nothing but the head: the client has the rest already.
    NotModified,
    /// All of it, as it comes.
    All,
    /// One run of it, as it comes.
    Run {
        /// Which.
        span: Span,
        /// Length of the whole.
        complete: u64,
    },
    /// What is wanted can only be made of the whole.
    Nothing,
}

impl Early {
    /// What this request may have of an answer whose body has the coding that it wants.
    #[must_use]
    pub fn of(request: &RequestHead, incoming: &Incoming, now: Wall) -> Self {
        let head = &incoming.head;
        let validators = Validators::of(head, incoming.received);
        if evaluate(&request.method, &request.fields, &validators, now) == Precondition::NotModified
        {
            return Self::NotModified;
        }
        let wanted = wanted_ranges(&request.method, &request.fields, &validators, now);
        let Some(wanted) = wanted.filter(|_| head.status == 200) else { return Self::All };
        let Some(complete) = incoming.length else { return Self::Nothing };
        match resolve(&wanted, complete) {
            Resolved::Whole => Self::All,
            Resolved::One(span) => Self::Run { span, complete },
            Resolved::Many(_) | Resolved::Unsatisfiable => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests;
