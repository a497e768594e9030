//! `/metrics`: Prometheus, in the format that the scraper asks for.

use crate::admin::gathered::extras;
use crate::admin::reply::Answered;
use crate::metrics::{Format, render};
use crate::proxy::{Core, Task};

/// The exposition. The cores go on counting while it is put together.
pub fn metrics(core: &Core, task: &Task) -> Answered {
    let accept = task.head.fields.combined("Accept");
    let format = Format::negotiate(accept.as_deref());
    let text = render(&core.shared.cells, extras(core), format);
    Answered::typed(format.content_type(), text.into_bytes())
}
