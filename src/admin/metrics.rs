//! `/metrics`.

use crate::admin::reply::Answered;
use crate::proxy::{Core, Task};

/// The exposition.
pub fn metrics(core: &Core, task: &Task) -> Answered {
    let _ = (core, task);
    Answered::text(200, "")
}
