//! The one place of this folder that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::Wall;

/// Now. A clock set before 1970 reads as 1970.
pub(crate) fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall::EPOCH.plus(since)
}
