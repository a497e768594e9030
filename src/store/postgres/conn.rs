//! Connections: time-outs, the schema, and what errors mean.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Config;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::dsn::Dsn;
use crate::store::fault::{Fault, StartError, Unavailable};
use crate::store::postgres::tls;
use crate::store::postgres::wire::Wire;
use crate::store::settings::Settings;
use crate::store::shared::Shared;

/// What every connection is made from.
pub(crate) struct Link {
    config: Config,
    tls: MakeRustlsConnect,
    connect_timeout: Duration,
    statement_timeout: Duration,
    pub(crate) max_idle_conns: usize,
    pub(crate) max_lifetime: Duration,
    pub(crate) max_idle_time: Duration,
    pub(crate) shared: Arc<Shared>,
}

/// Advisory locks are of 64 bits, common to all users of a database: "apxd" and a number.
pub(crate) const LOCK_PURGE: i64 = 0x6170_7864_0000_0001;
const LOCK_SCHEMA: i64 = 0x6170_7864_0000_0002;

/// Another version's tables have other names; `_v1` stands in every statement of this folder.
///
/// `checksum` is a CRC-32 in an integer without sign. Long paths fit no index entry: the first 512
/// bytes do. Bodies are stored as they come, most are compressed already.
const SCHEMA: &str = "
    CREATE SEQUENCE IF NOT EXISTS apiproxyd_ids_v1;
    CREATE TABLE IF NOT EXISTS apiproxyd_entries_v1 (
        digest bytea PRIMARY KEY,
        id bigint NOT NULL,
        stored_at bigint NOT NULL,
        keep_until bigint NOT NULL,
        expired_at bigint,
        checksum bigint NOT NULL,
        path bytea NOT NULL,
        meta bytea NOT NULL,
        body bytea NOT NULL
    );
    ALTER TABLE apiproxyd_entries_v1 ALTER COLUMN body SET STORAGE EXTERNAL;
    CREATE INDEX IF NOT EXISTS apiproxyd_entries_v1_id ON apiproxyd_entries_v1 (id);
    CREATE INDEX IF NOT EXISTS apiproxyd_entries_v1_path
        ON apiproxyd_entries_v1 (substring(path, 1, 512));
    CREATE INDEX IF NOT EXISTS apiproxyd_entries_v1_end
        ON apiproxyd_entries_v1 (keep_until) WHERE keep_until < 9223372036854775807;
    CREATE TABLE IF NOT EXISTS apiproxyd_purges_v1 (
        seq bigserial PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT now(),
        effect smallint NOT NULL,
        selection smallint NOT NULL,
        subject bytea NOT NULL
    );
    CREATE TABLE IF NOT EXISTS apiproxyd_state_v1 (
        one boolean PRIMARY KEY CHECK (one),
        cleared_id bigint NOT NULL,
        expired_id bigint NOT NULL,
        expired_at bigint NOT NULL
    );
    INSERT INTO apiproxyd_state_v1 VALUES (true, 0, 0, 0) ON CONFLICT DO NOTHING;
";

impl Link {
    pub(crate) fn new(settings: &Settings, shared: Arc<Shared>) -> Result<Self, StartError> {
        let dsn = Dsn::parse(&settings.dsn).map_err(|detail| StartError::Dsn { detail })?;
        let tls = tls::connector(&dsn)?;
        let mut config = dsn.config;
        config.ssl_mode(dsn.mode);
        if config.get_application_name().is_none() {
            config.application_name("apiproxyd");
        }
        // The driver's own covers the connection, ours what follows on it too.
        let connect_timeout = config.get_connect_timeout().copied();
        let connect_timeout = connect_timeout.unwrap_or(settings.connect_timeout);
        config.connect_timeout(connect_timeout);
        // A peer that has vanished is noticed by these too, while nobody waits.
        config.tcp_user_timeout(settings.statement_timeout * 2);
        config.keepalives_idle(Duration::from_secs(5));
        config.keepalives_interval(Duration::from_secs(1));
        config.keepalives_retries(3);
        Ok(Self {
            config,
            tls,
            connect_timeout,
            statement_timeout: settings.statement_timeout,
            max_idle_conns: settings.max_idle_conns,
            max_lifetime: settings.conn_max_lifetime,
            max_idle_time: settings.conn_max_idle_time,
            shared,
        })
    }

    /// Connects and sets the session's time-outs.
    pub(crate) fn connect(&self) -> Result<Session, Fault> {
        // A little more than the server's own limit, which gives the better reason.
        let span = self.statement_timeout + self.statement_timeout / 4;
        let mut wire = Wire::connect(&self.config, self.tls.clone(), self.connect_timeout, span)?;
        let millis = self.statement_timeout.as_millis().max(1);
        // Every statement here has its index; a plan made while the table was small must not
        // scan it when it has grown. Compiling such short statements costs more than it saves.
        wire.batch_execute(&format!(
            "SET statement_timeout = {millis}; SET lock_timeout = {millis};
             SET idle_in_transaction_session_timeout = {millis};
             SET enable_seqscan = off; SET jit = off"
        ))?;
        let now = Instant::now();
        Ok(Session { wire, opened: now, used: now })
    }
}

/// An open connection.
pub(crate) struct Session {
    pub(crate) wire: Wire,
    opened: Instant,
    /// When it last did something.
    used: Instant,
}

/// A connection idle for longer is checked before it is used.
const TRUST: Duration = Duration::from_secs(1);

impl Session {
    /// Whether it may be used once more: neither too old nor dead. Costs a round trip after idling.
    pub(crate) fn is_fit(&mut self, link: &Link) -> bool {
        let doubtful = self.used.elapsed() > TRUST;
        if self.is_too_old(link) || self.wire.is_closed() || (doubtful && !self.answers()) {
            return false;
        }
        self.used = Instant::now();
        true
    }

    /// Whether the server answers in time. Does not count as use.
    pub(crate) fn answers(&mut self) -> bool {
        self.wire.batch_execute("").is_ok()
    }

    pub(crate) fn is_too_old(&self, link: &Link) -> bool {
        !link.max_lifetime.is_zero() && self.opened.elapsed() >= link.max_lifetime
    }

    pub(crate) fn idle_for(&self) -> Duration {
        self.used.elapsed()
    }

    /// Makes the tables unless they are there: a role may be allowed to use and not to make them.
    pub(crate) fn make_schema(&mut self) -> Result<(), Fault> {
        let there = "SELECT count(*) FROM unnest(ARRAY['apiproxyd_entries_v1',
            'apiproxyd_purges_v1', 'apiproxyd_state_v1', 'apiproxyd_ids_v1']) AS t(name)
            WHERE to_regclass(name) IS NOT NULL";
        let there: i64 = self.wire.query_one(there, &[])?.get(0);
        if there == 4 {
            return Ok(());
        }
        // Several instances may start at once, and IF NOT EXISTS alone races.
        self.wire.batch_execute(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock({LOCK_SCHEMA}); {SCHEMA}; COMMIT"
        ))?;
        tracing::info!("tables made in the cache database");
        Ok(())
    }
}

/// What an error of the driver means for the store.
pub(crate) fn fault(err: tokio_postgres::Error) -> Fault {
    let detail = match err.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(&err) {
            Some(cause) => format!("{err}: {cause}"),
            None => err.to_string(),
        },
    };
    Fault::new(reason(&err), detail)
}

fn reason(err: &tokio_postgres::Error) -> Unavailable {
    let Some(code) = err.code() else {
        // Not from the server: the connection, or a type that the schema should not have.
        return Unavailable::Disconnected;
    };
    if *code == SqlState::QUERY_CANCELED
        || *code == SqlState::LOCK_NOT_AVAILABLE
        || *code == SqlState::T_R_DEADLOCK_DETECTED
    {
        return Unavailable::Timeout;
    }
    if *code == SqlState::DISK_FULL {
        return Unavailable::DiskFull;
    }
    if *code == SqlState::UNDEFINED_TABLE {
        // The writer makes the tables when it connects, again if need be.
        return Unavailable::Starting;
    }
    if *code == SqlState::UNDEFINED_COLUMN || *code == SqlState::DATATYPE_MISMATCH {
        return Unavailable::Foreign;
    }
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        // The session may be what is read-only, or what stands behind the address has changed.
        return Unavailable::Disconnected;
    }
    // By class: connection exceptions, resources, operator intervention, system errors.
    match code.code().get(..2) {
        Some("08" | "57") => Unavailable::Disconnected,
        Some("58" | "XX") => Unavailable::Io,
        Some(_) | None => Unavailable::Refused,
    }
}
