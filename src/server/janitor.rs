//! What must be done for the whole process now and then: expired rows, dead slots of the hub.
//!
//! A task of the first core; the work itself is the storage thread's, in bounded batches between
//! other writes, and the hub's, a stripe at a time. (Each core sweeps its own part of L1.)

use std::rc::Rc;

use crate::net::{mono, wall};
use crate::proxy::Core;

/// Goes round every `cache.cleanup_interval`, for ever.
pub async fn run(core: Rc<Core>) {
    let interval = core.plan().settings.cache.cleanup_interval;
    loop {
        monoio::time::sleep(interval).await;
        core.shared.hub.sweep(mono());
        let Some(store) = &core.store else { continue };
        match store.sweep(wall()).await {
            Ok(rows) => tracing::debug!(rows, "expired rows removed"),
            Err(reason) => tracing::warn!(reason = reason.as_str(), "expired rows not removed"),
        }
    }
}
