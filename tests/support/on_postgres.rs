//! Stores on PostgreSQL, for the tests of what they share and of what becomes of a fault.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::time::Duration;

use apiproxyd::store::{Backend, GetOutcome, Settings, StoreHandle};

use crate::cluster::Database;
use crate::support::{Desk, digest, eventually, row};

/// Settings with short time limits.
pub fn settings(dsn: String) -> Settings {
    Settings {
        backend: Backend::Postgres,
        dsn,
        statement_timeout: Duration::from_millis(500),
        connect_timeout: Duration::from_secs(1),
        ..Settings::default()
    }
}

/// Opens a store.
pub fn start(settings: &Settings) -> Desk {
    Desk::new(StoreHandle::open(settings).unwrap())
}

/// Opens a store and waits until it works.
pub fn open(database: &Database) -> Desk {
    let desk = start(&settings(database.dsn()));
    ready(&desk);
    desk
}

/// Waits until the store is available.
pub fn ready(desk: &Desk) {
    eventually("the store is available", || {
        let found = desk.get(digest(u32::MAX));
        !matches!(found, GetOutcome::Unavailable(_)) && desk.wait(desk.client.usage()).is_ok()
    });
}

/// Waits until what is put is found.
pub fn works(desk: &Desk) {
    ready(desk);
    // What was queued while the database was away may still be given up.
    eventually("a put is stored", || {
        desk.put(row(4_000_000, "/works"));
        desk.flush();
        matches!(desk.get(digest(4_000_000)), GetOutcome::Hit(_))
    });
    eventually("all is well", || desk.handle.stats().unavailable().is_none());
}
