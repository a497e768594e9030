//! A connection for blocking use, on which every step has a deadline of its own.
//!
//! The server's `statement_timeout` ends what takes it too long. It does nothing against a server,
//! or something on the way to it, that takes bytes and never answers: the blocking driver would
//! wait for ever, and with it the thread. So the asynchronous driver runs here, in an event loop of
//! this connection that turns only while somebody waits. A step that is late is given up, and the
//! connection with it: what its answer belongs to is not known any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Error, Row, SimpleQueryMessage, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::fault::{Fault, Unavailable};
use crate::store::postgres::conn::fault;

/// An open connection.
pub(crate) struct Wire {
    client: Client,
    /// Always there; taken out to be dropped without waiting for a hung name look-up.
    runtime: Option<Runtime>,
    span: Duration,
    /// A step was given up.
    broken: bool,
    /// Set with each notification.
    notified: Arc<AtomicBool>,
}

impl Wire {
    /// Connects, within `connect` for each host that may be tried; steps may take `span`.
    pub(crate) fn connect(
        config: &Config,
        tls: MakeRustlsConnect,
        connect: Duration,
        span: Duration,
    ) -> Result<Self, Fault> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|err| Fault::new(Unavailable::Io, err))?;
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len()).max(1);
        let limit = connect * u32::try_from(hosts).unwrap_or(u32::MAX);
        let connecting = async { timeout(limit, config.connect(tls)).await };
        let (client, mut connection) = match runtime.block_on(connecting) {
            Ok(connected) => connected.map_err(fault)?,
            Err(_) => {
                runtime.shutdown_background();
                return Err(Fault::new(Unavailable::Disconnected, "no connection in time"));
            }
        };
        let notified = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&notified);
        runtime.spawn(async move {
            // Ends with the connection; whoever waits for an answer is told by the client.
            while let Some(Ok(message)) =
                std::future::poll_fn(|cx| connection.poll_message(cx)).await
            {
                if let AsyncMessage::Notification(_) = message {
                    flag.store(true, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { client, runtime: Some(runtime), span, broken: false, notified })
    }

    /// Whether it is of no use any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.broken || self.client.is_closed()
    }

    /// Whether a notification has come since the last time. Looks at what has arrived.
    pub(crate) fn is_notified(&mut self) -> bool {
        if let Some(runtime) = &self.runtime {
            runtime.block_on(async { tokio::time::sleep(LOOK).await });
        }
        self.notified.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn batch_execute(&mut self, sql: &str) -> Result<(), Fault> {
        self.run(async |client| client.batch_execute(sql).await)
    }

    pub(crate) fn simple_query(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Fault> {
        self.run(async |client| client.simple_query(sql).await)
    }

    pub(crate) fn prepare(&mut self, sql: &str) -> Result<Statement, Fault> {
        self.run(async |client| client.prepare(sql).await)
    }

    pub(crate) fn execute(&mut self, sql: &str, params: &Params<'_>) -> Result<u64, Fault> {
        self.run(async |client| client.execute(sql, params).await)
    }

    pub(crate) fn execute_prepared(
        &mut self,
        statement: &Statement,
        params: &Params<'_>,
    ) -> Result<u64, Fault> {
        self.run(async |client| client.execute(statement, params).await)
    }

    pub(crate) fn query(&mut self, sql: &str, params: &Params<'_>) -> Result<Vec<Row>, Fault> {
        self.run(async |client| client.query(sql, params).await)
    }

    pub(crate) fn query_prepared(
        &mut self,
        statement: &Statement,
        params: &Params<'_>,
    ) -> Result<Vec<Row>, Fault> {
        self.run(async |client| client.query(statement, params).await)
    }

    pub(crate) fn query_one(&mut self, sql: &str, params: &Params<'_>) -> Result<Row, Fault> {
        self.run(async |client| client.query_one(sql, params).await)
    }

    fn run<T>(&mut self, step: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, Fault> {
        let Some(runtime) = self.runtime.as_ref().filter(|_| !self.broken) else {
            return Err(Fault::new(Unavailable::Disconnected, "the connection was given up"));
        };
        let step = async { timeout(self.span, step(&self.client)).await };
        match runtime.block_on(step) {
            Ok(result) => result.map_err(fault),
            Err(_) => {
                self.broken = true;
                Err(Fault::new(Unavailable::Timeout, "no answer in time"))
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Parameters of a statement.
pub(crate) type Params<'a> = [&'a (dyn ToSql + Sync)];

/// Long enough for the event loop to look at the socket once.
const LOOK: Duration = Duration::from_millis(1);
