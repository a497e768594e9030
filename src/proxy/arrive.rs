//! From the origin into a growing body: to its end, or until nobody wants more of it.
//!
//! What is being stored goes on when its last reader has left, since the next one will want it,
//! but not without bounds: an origin that never ends its answer would hold a connection and memory
//! for nobody. So it goes on for the time of one exchange and, where nobody knows how long it will
//! be, for as many bytes as an entry in memory may have.

use std::pin::pin;

use bytes::Bytes;

use crate::cache::{Arriving, Entry};
use crate::net::mono;
use crate::net::ticks::Deadline;
use crate::proxy::ask::Asked;
use crate::proxy::core::Core;
use crate::proxy::error::Fault;
use crate::proxy::growing::Growing;
use crate::proxy::hub::Lead;
use crate::proxy::pass;
use crate::proxy::plan::Upstream;
use crate::proxy::race::{First, race};

/// A body on its way.
pub struct Arrival<'a> {
    /// The core that reads it.
    pub core: &'a Core,
    /// Who sends it.
    pub upstream: &'a Upstream,
    /// Where it goes.
    pub body: &'a Growing,
    /// How long all of it will be, where that is known.
    pub length: Option<u64>,
    /// More of unknown length is not kept.
    pub bytes_max: u64,
}

/// What became of a body that was to be stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is whole.
    Whole,
    /// There was no room for it, and it has gone to those who read it; or nobody did any more.
    Not,
}

impl Arrival<'_> {
    /// Moves a body that is to be stored until its end, while there is room for it.
    ///
    /// # Errors
    /// As [`pass::next`].
    pub async fn keep(
        &self,
        lead: &Lead<Entry>,
        asked: &mut Asked,
        mut room: Arriving,
    ) -> Result<Kept, Fault> {
        let mut unread = None;
        let mut bytes = 0;
        loop {
            let chunk = match self.next(asked, &mut unread).await? {
                Next::Chunk(chunk) => chunk,
                Next::End => return Ok(Kept::Whole),
                Next::GivenUp => {
                    lead.detach(mono());
                    return Ok(Kept::Not);
                }
            };
            bytes += chunk.len() as u64;
            let takes = || bytes <= self.bytes_max && self.core.takes(bytes);
            let fits = self.length.is_some() || (takes() && room.grow(chunk.len() as u64));
            self.body.push(chunk);
            if !fits {
                drop(room);
                // Those who read it get it to its end; others ask for themselves.
                lead.detach(mono());
                if self.body.let_go() {
                    self.pass_on(asked).await?;
                }
                return Ok(Kept::Not);
            }
        }
    }

    /// Moves a body that is not stored until its end, or until nobody reads it any more.
    ///
    /// # Errors
    /// As [`pass::next`].
    pub async fn pass_on(&self, asked: &mut Asked) -> Result<(), Fault> {
        while self.body.room().await {
            match race(pass::next(self.upstream, asked), self.body.deserted()).await {
                First::Left(Ok(Some(chunk))) => self.body.push(chunk),
                First::Left(Ok(None)) | First::Right(()) => return Ok(()),
                First::Left(Err(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    /// The next bytes, within what is left where nobody reads.
    async fn next(&self, asked: &mut Asked, unread: &mut Option<Unread>) -> Result<Next, Fault> {
        let used_up = unread.as_ref().is_some_and(|it| it.bytes == 0);
        if used_up && self.body.give_up() {
            return Ok(Next::GivenUp);
        }
        // Never dropped before its end: the bytes that it is about to bring would be lost.
        let mut next = pin!(pass::next(self.upstream, asked));
        let chunk = loop {
            if self.body.is_read() {
                *unread = None;
            } else if unread.is_none() {
                *unread = Some(self.unread());
            }
            match unread {
                None => match race(next.as_mut(), self.body.unread()).await {
                    First::Left(chunk) => break chunk?,
                    First::Right(()) => {}
                },
                Some(left) => match left.until.bound(next.as_mut()).await {
                    Ok(chunk) => break chunk?,
                    Err(_) if self.body.give_up() => return Ok(Next::GivenUp),
                    Err(_) => {}
                },
            }
        };
        let Some(chunk) = chunk else { return Ok(Next::End) };
        if let Some(left) = unread {
            left.bytes = left.bytes.saturating_sub(chunk.len() as u64);
        }
        Ok(Next::Chunk(chunk))
    }

    fn unread(&self) -> Unread {
        let bytes = self.core.plan().memory_object_bytes_max;
        Unread {
            until: Deadline::after(self.upstream.request_timeout),
            bytes: if self.length.is_some() { u64::MAX } else { bytes },
        }
    }
}

enum Next {
    Chunk(Bytes),
    End,
    /// Nobody has read it for as long as it may go on then; nobody will.
    GivenUp,
}

/// How far a body goes on that nobody reads.
struct Unread {
    until: Deadline,
    bytes: u64,
}
