//! What the suites that all backends pass share: the backends, and a test for each fact on each.

#![allow(dead_code, reason = "not every suite uses every backend")]

use std::any::Any;

use apiproxyd::store::{Backend, GetOutcome, Settings, StoreHandle};

use crate::cluster;
use crate::support::{Desk, digest, eventually};

/// A backend under test, and what must live as long as it.
pub struct Place {
    settings: Settings,
    _keep: Box<dyn Any>,
}

impl Place {
    /// Opens it and waits until it works.
    pub fn open(&self) -> Desk {
        let desk = Desk::new(StoreHandle::open(&self.settings).unwrap());
        eventually("the backend is open", || {
            !matches!(desk.get(digest(u32::MAX)), GetOutcome::Unavailable(_))
                && desk.wait(desk.client.usage()).is_ok()
        });
        desk
    }
}

/// The reference.
pub fn memory() -> Option<Place> {
    let settings = Settings { backend: Backend::Memory, ..Settings::default() };
    Some(Place { settings, _keep: Box::new(()) })
}

/// A file in a folder of its own.
pub fn sqlite() -> Option<Place> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache").join("cache.db");
    let settings = Settings { path, ..Settings::default() };
    Some(Place { settings, _keep: Box::new(folder) })
}

/// A database in the cluster of the process; none if PostgreSQL is not installed.
pub fn postgres() -> Option<Place> {
    let database = cluster::database()?;
    let dsn = database.dsn();
    let settings = Settings { backend: Backend::Postgres, dsn, ..Settings::default() };
    Some(Place { settings, _keep: Box::new(database) })
}

/// One module a backend, one test a fact.
macro_rules! conformance {
    ($facts:tt: $($module:ident($backend:ident)),+) => {
        $(conformance!(@one $module $backend $facts);)+
    };
    (@one $module:ident $backend:ident [$($fact:ident,)+]) => {
        mod $module {
            $(#[test]
            fn $fact() {
                if let Some(place) = crate::$backend() {
                    crate::$fact(&place);
                }
            })+
        }
    };
}
