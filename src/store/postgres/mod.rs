//! The PostgreSQL backend: a table that several instances may share.
//!
//! Few connections do better than many (FINDINGS.md): at most four read, each with a batch of what
//! is queued as one `= ANY` query; one writes, and listens. Where only one may be open it does
//! both. Down at start or later: look-ups are unavailable, puts are dropped, both connections come
//! back by themselves.
//!
//! Purges between instances. The truth is a table of purges in the order of their numbers. Who
//! purges holds an advisory lock alone, who puts holds it shared, and each group of puts first
//! looks whether there is a purge that it has not heard of: so no instance can put back what
//! another has purged. An instance that was cut off for so long that it can't know, or served
//! before it first reached the database, takes that for a clear. `NOTIFY`, one a purge, makes it
//! quick; a poll twice a second makes it sure.
//!
//! Rows carry ids from a sequence as in the SQLite backend: a clear is one changed row, and the
//! hidden rows are removed afterwards, step by step. Table names end in the format version, so
//! that instances of two versions can share a database while they are being replaced.

mod conn;
mod purge;
mod reader;
mod single;
mod tls;
mod wire;
mod writer;

use std::sync::Arc;
use std::sync::Mutex;

use crate::store::backend::{Backend, Reader, Writer};
use crate::store::fault::{Fault, StartError};
use crate::store::postgres::conn::Link;
use crate::store::postgres::reader::PgReader;
use crate::store::postgres::single::{Single, SingleReader, SingleWriter};
use crate::store::postgres::writer::{Known, PgWriter};
use crate::store::settings::Settings;
use crate::store::shared::Shared;

/// Measured: four connections answer most look-ups; eight fewer, and 25 with a long tail.
const READERS_MAX: usize = 4;

/// The backend.
pub(crate) struct Postgres {
    link: Arc<Link>,
    readers: usize,
    /// What the writer knows of purges; outlives its connections.
    known: Arc<Mutex<Known>>,
    /// Where only one connection may be open.
    single: Option<Arc<Single>>,
}

impl Postgres {
    /// Reads the connection string; connects nowhere.
    ///
    /// # Errors
    /// When the string or the trust anchors that it names are of no use.
    pub(crate) fn open(settings: &Settings, shared: Arc<Shared>) -> Result<Self, StartError> {
        let link = Arc::new(Link::new(settings, shared)?);
        let connections = match settings.max_open_conns {
            0 => usize::MAX,
            most => most,
        };
        // One connection is the writer's.
        let readers = connections.saturating_sub(1).clamp(1, READERS_MAX);
        let single = (connections < 2).then(Arc::default);
        Ok(Self { link, readers, single, known: Arc::new(Mutex::new(Known::nothing())) })
    }
}

impl Backend for Postgres {
    fn reader(&self, index: usize) -> Result<Box<dyn Reader>, Fault> {
        if let Some(single) = &self.single {
            return Ok(Box::new(SingleReader::new(single, &self.link)));
        }
        Ok(Box::new(PgReader::open(&self.link, index)?))
    }

    fn writer(&self) -> Result<Box<dyn Writer>, Fault> {
        if let Some(single) = &self.single {
            return Ok(Box::new(SingleWriter::open(single, &self.link, &self.known)?));
        }
        Ok(Box::new(PgWriter::open(&self.link, &self.known)?))
    }

    fn readers(&self) -> usize {
        self.readers
    }

    /// A server may keep its caller waiting, even a single one.
    fn blocks(&self) -> bool {
        true
    }
}
