//! `/metrics`: Prometheus, in the format that the scraper asks for.

use std::sync::Arc;

use crate::admin::gathered::extras;
use crate::admin::reply::Answered;
use crate::metrics::{Counter, Format, render};
use crate::net::errands::Undone;
use crate::proxy::error::Refusal;
use crate::proxy::{Core, Task};

/// The exposition. It is put together by another thread, and the cores go on counting meanwhile.
pub async fn metrics(core: &Core, task: &Task) -> Result<Answered, Refusal> {
    let accept = task.head.fields.combined("Accept");
    let format = Format::negotiate(accept.as_deref());
    let shared = Arc::clone(&core.shared);
    let text = core.shared.errands.run(move || render(&shared.cells, extras(&shared), format));
    match text.await {
        Ok(text) => Ok(Answered::typed(format.content_type(), text.into_bytes())),
        Err(Undone::Shed) => Err(Refusal::Overloaded),
        Err(Undone::Broken) => {
            core.cells.inc(Counter::Panics);
            Ok(Answered::text(500, "the metrics could not be written\n"))
        }
    }
}
