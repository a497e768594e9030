//! The memory that request bodies take which must be whole before they go on, counted once for the
//! whole process: many clients that send large ones at a time must not take all there is.
//!
//! A body is charged for what it has reserved, as it grows, and refunded when the last holder of
//! its bytes lets go: a fetch that outlives its client, for one. Two relaxed additions each time
//! that it grows; bodies that are passed on as they come are not counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// The account. One for a process.
#[derive(Debug)]
pub struct Bodies {
    bytes: AtomicU64,
    bytes_max: u64,
}

/// There is no room for more of a body now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A body that grows, and its share of the account.
#[derive(Debug)]
pub struct Gathered {
    bytes: Vec<u8>,
    /// As many as will come at most.
    bytes_max: usize,
    charged: u64,
    account: Arc<Bodies>,
}

impl Bodies {
    /// An empty account with a limit in bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), bytes_max })
    }

    /// Bytes held by bodies.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A body of that length, where it is known.
    ///
    /// # Errors
    /// No room for its beginning.
    pub fn body(self: &Arc<Self>, length: Option<u64>) -> Result<Gathered, Full> {
        let bytes_max = length.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
        let (bytes, account) = (Vec::new(), Arc::clone(self));
        let mut body = Gathered { bytes, bytes_max, charged: 0, account };
        if length.is_some() {
            // Room is reserved only as far as bytes have to come for it soon.
            body.grow_to(bytes_max.min(ROOM_BYTES))?;
        }
        Ok(body)
    }
}

impl Gathered {
    /// Adds a piece.
    ///
    /// # Errors
    /// No room for it: other bodies have all the memory. One that is larger than that passes while
    /// there is no other.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Full> {
        let needed = self.bytes.len() + piece.len();
        let capacity = self.bytes.capacity();
        if needed > capacity {
            let twice = needed.max((capacity * 2).min(self.bytes_max));
            self.grow_to(twice).or_else(|_| self.grow_to(needed))?;
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// What has come.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// All of it, charged until the last copy is dropped.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    fn grow_to(&mut self, capacity: usize) -> Result<(), Full> {
        let more = (capacity as u64).saturating_sub(self.charged);
        let before = self.account.bytes.fetch_add(more, Ordering::Relaxed);
        let others = before.saturating_sub(self.charged);
        if others > 0 && before.saturating_add(more) > self.account.bytes_max {
            self.account.bytes.fetch_sub(more, Ordering::Relaxed);
            return Err(Full);
        }
        self.charged += more;
        self.bytes.reserve_exact(capacity.saturating_sub(self.bytes.len()));
        Ok(())
    }
}

impl AsRef<[u8]> for Gathered {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.account.bytes.fetch_sub(self.charged, Ordering::Relaxed);
    }
}

/// Reserved at once for a body of known length.
const ROOM_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_what_there_is_and_give_it_back() {
        let account = Bodies::new(1_000);
        let mut one = account.body(Some(400)).unwrap();
        one.push(&[b'x'; 400]).unwrap();
        let other = account.body(Some(500)).unwrap();
        assert_eq!(account.bytes(), 900);
        one.push(&[b'x'; 50]).expect("not twice as much, but what it needs");
        assert_eq!(account.bytes(), 950);
        assert_eq!(one.push(&[b'x'; 51]), Err(Full));
        assert_eq!(account.body(Some(51)).unwrap_err(), Full);
        assert_eq!((account.bytes(), one.as_slice().len()), (950, 450));
        drop(other);
        one.push(&[b'x'; 5_000]).expect("larger than all, and alone");
        assert_eq!(account.body(Some(1)).unwrap_err(), Full);
        let bytes = one.into_bytes();
        let copy = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(account.bytes(), 5_450);
        drop(copy);
        assert_eq!(account.bytes(), 0);
    }

    #[test]
    fn what_is_charged_is_what_is_reserved() {
        let account = Bodies::new(u64::MAX);
        let mut body = account.body(None).unwrap();
        for size in [1, 10, 100, 1_000, 10_000, 3] {
            body.push(&vec![b'x'; size]).unwrap();
            assert_eq!(account.bytes(), body.bytes.capacity() as u64);
        }
        // Of known length, not more than that.
        let account = Bodies::new(u64::MAX);
        let mut body = account.body(Some(300_000)).unwrap();
        assert_eq!(account.bytes(), 65_536);
        for _ in 0..30 {
            body.push(&[b'x'; 10_000]).unwrap();
        }
        assert_eq!(account.bytes(), 300_000);
    }
}
