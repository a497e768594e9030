//! What must be done for the whole process now and then: expired rows, dead keys of the hub.
//!
//! A task of the first core; the work itself is the storage thread's, in bounded batches between
//! other writes, and the hub's, some hundred keys at a time with pauses in between. (Each core
//! sweeps its own part of L1.)

use std::rc::Rc;
use std::time::Duration;

use crate::net::{mono, wall};
use crate::proxy::Core;
use crate::proxy::hub::Reach;

/// Goes round every `cache.cleanup_interval`, for ever.
pub async fn run(core: Rc<Core>) {
    let interval = core.plan().settings.cache.cleanup_interval;
    loop {
        monoio::time::sleep(interval).await;
        let hub = &core.shared.hub;
        let mut walk = hub.walk(&Reach::Any);
        while hub.sweep_some(&mut walk, mono()) {
            monoio::time::sleep(PAUSE).await;
        }
        let Some(store) = &core.store else { continue };
        match store.sweep(wall()).await {
            Ok(rows) => tracing::debug!(rows, "expired rows removed"),
            Err(reason) => tracing::warn!(reason = reason.as_str(), "expired rows not removed"),
        }
    }
}

/// Between two steps through the hub, each of which takes some 25 us.
const PAUSE: Duration = Duration::from_millis(1);
