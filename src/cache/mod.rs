//! The policy of a shared cache: RFC 9111 and its neighbours as pure functions over parsed facts.
//!
//! Called by the proxy, which hands in heads and instants and does what it is told. Does no I/O,
//! reads no clock, holds no entry while deciding. The order in which an exchange meets the files:
//!
//! | step | file | question | answer |
//! |---|---|---|---|
//! | request in | `request` | may the cache be asked at all | look up, or forward and why |
//! | key | `vary` | which variant | the secondary key |
//! | stored response found | `reuse` | may it answer | fresh, stale, validate, refuse |
//! | to the origin | `validate` | with which validators | If-None-Match, If-Modified-Since |
//! | 200 back | `storable` | may it be stored, without which fields | facts, or why not |
//! | 206 back | `part` | which bytes, and what they make whole | a part, a longer one, a 200 |
//! | 304 or HEAD back | `update` | which fields change | new fields and facts |
//! | unsafe method answered | `invalidate` | what is out of date now | targets |
//! | failure back | `reuse` | may the stale one stand in | why, or why not |
//! | answer out | `status` | what happened | Cache-Status, X-Cache |
//!
//! `control` and `targeted` parse directives, `freshness` does the arithmetic of age and lifetime,
//! `facts` is what is kept of a response, `reason` is the one list of reasons.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod control;
pub mod encode;
pub mod entry;
pub mod facts;
pub mod freshness;
pub mod invalidate;
pub mod json;
pub mod key;
pub mod ledger;
mod packed;
pub mod part;
pub mod reason;
pub mod record;
pub mod request;
pub mod reuse;
pub mod settings;
pub mod shard;
pub mod status;
pub mod storable;
pub mod targeted;
pub mod update;
pub mod validate;
pub mod vary;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod simulation;

pub use control::{RequestControl, ResponseControl};
pub use entry::{Encoded, Entry, Kind, Marks, OtherCoding, VaryIndex};
pub use facts::{Exchange, Facts, LifetimeSource};
pub use invalidate::{Reference, Target, fills_get, invalidates, invalidation_targets};
pub use key::{Key, KeyWriter};
pub use ledger::{Arriving, Ledger};
pub use part::Part;
pub use reason::Reason;
pub use request::RequestFacts;
pub use reuse::{Reuse, is_error, reuse, stale_on_error};
pub use settings::{Methods, Settings};
pub use shard::{Cursor, Shard};
pub use status::{CacheStatus, Forward, Outcome};
pub use storable::{WRITTEN_ANEW, own_fields, storable, stored_fields};
pub use update::{HeadUpdate, Keep, Updated, head_update, update};
pub use validate::{conditional_request, range_request, selects, unconditional_request};
pub use vary::{AcceptEncoding, Vary, VarySpec, secondary_key, secondary_key_of};
