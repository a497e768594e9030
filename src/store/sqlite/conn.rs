//! Connections: pragmas, the schema, whose file it is, and what SQLite's errors mean.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::ffi::ErrorCode;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::store::fault::{Fault, Unavailable};

/// Marks a file as ours: "apxd". Never to be changed.
const APPLICATION_ID: i32 = 0x6170_7864;
/// Version of the tables below. Another version's tables are dropped: it is a cache.
const FORMAT: i32 = 1;
/// FINDINGS.md: 8192 beats 4096 for rows of about 1 KiB.
pub(crate) const PAGE_BYTES: u64 = 8192;
/// Page caches, in KiB: more than 64 MiB adds nothing to reads.
const CACHE_KIB_READER: i64 = 64 * 1024;
const CACHE_KIB_WRITER: i64 = 32 * 1024;
/// How long to wait for another process that locks the file. Ours is the only one by rights.
const BUSY_READER: Duration = Duration::from_millis(100);
const BUSY_WRITER: Duration = Duration::from_millis(1_000);

const SCHEMA: &str = "
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        stored_at INTEGER NOT NULL,
        keep_until INTEGER NOT NULL,
        expired_at INTEGER,
        checksum INTEGER NOT NULL,
        path BLOB NOT NULL,
        meta BLOB NOT NULL,
        body BLOB NOT NULL
    );
    CREATE INDEX entries_by_path ON entries (path);
    CREATE INDEX entries_by_end ON entries (keep_until) WHERE keep_until < 9223372036854775807;
    CREATE TABLE state (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        cleared_id INTEGER NOT NULL,
        expired_id INTEGER NOT NULL,
        expired_at INTEGER NOT NULL,
        probes INTEGER NOT NULL -- not used any more
    );
    INSERT INTO state VALUES (1, 0, 0, 0, 0);
";

/// What an existing file turned out to be, where it is not simply ours.
pub(crate) enum Owner {
    Ours,
    /// Ours now; its tables of another format are gone.
    Emptied,
    /// The daemon's predecessor, which kept its cache under the same default path.
    Predecessor,
    Foreign,
}

/// Opens for writing. The file must exist.
pub(crate) fn open_writer(path: &Path) -> Result<(Connection, Owner), Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(fault)?;
    conn.busy_timeout(BUSY_WRITER).map_err(fault)?;
    // Until it is known whose file it is, leave its log alone.
    set_log(&conn, AtClose::LeaveLog)?;
    let owner = identify(&conn)?;
    if matches!(owner, Owner::Ours | Owner::Emptied) {
        set_log(&conn, AtClose::WriteLogBack)?;
        configure(&conn, CACHE_KIB_WRITER)?;
    }
    Ok((conn, owner))
}

/// Opens for reading only. Never checkpoints: that would block look-ups, and at its end could hit
/// the log of a file that has taken this one's place.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(fault)?;
    conn.busy_timeout(BUSY_READER).map_err(fault)?;
    set_log(&conn, AtClose::LeaveLog)?;
    configure(&conn, CACHE_KIB_READER)?;
    Ok(conn)
}

/// Closes a connection to a file that was removed: what it would write or remove by name may be
/// another's by then.
pub(crate) fn leave(conn: Connection) {
    drop(set_log(&conn, AtClose::LeaveLog));
    drop(conn);
}

/// What becomes of the log when the last connection is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtClose {
    LeaveLog,
    WriteLogBack,
}

fn set_log(conn: &Connection, at_close: AtClose) -> Result<(), Fault> {
    let option = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    conn.set_db_config(option, at_close == AtClose::LeaveLog).map(|_| ()).map_err(fault)
}

fn configure(conn: &Connection, cache_kib: i64) -> Result<(), Fault> {
    conn.set_prepared_statement_cache_capacity(32);
    for (name, value) in [
        // SQLite counts pages when positive, KiB when negative.
        ("cache_size", -cache_kib),
        ("mmap_size", 0),
        // NORMAL: a commit survives the process, and a power cut leaves the file consistent.
        ("synchronous", 1),
        ("temp_store", 2),
        ("trusted_schema", 0),
        ("cell_size_check", 1),
    ] {
        conn.pragma_update(None, name, value).map_err(fault)?;
    }
    Ok(())
}

/// Finds out whose file it is; makes the tables in an empty one and in one of another version.
fn identify(conn: &Connection) -> Result<Owner, Fault> {
    let id: i32 = pragma(conn, "application_id")?;
    let version: i32 = pragma(conn, "user_version")?;
    let objects = "SELECT count(*) FROM sqlite_schema";
    let objects: i64 = conn.query_row(objects, [], |row| row.get(0)).map_err(fault)?;
    match (id, objects) {
        (APPLICATION_ID, _) if version == FORMAT => Ok(Owner::Ours),
        (APPLICATION_ID, _) => {
            tracing::warn!(version, wanted = FORMAT, "cache file of another format: emptied");
            create(conn)?;
            Ok(Owner::Emptied)
        }
        (0, 0) => {
            create(conn)?;
            Ok(Owner::Ours)
        }
        (0, _) if is_predecessor(conn)? => Ok(Owner::Predecessor),
        _ => Ok(Owner::Foreign),
    }
}

/// Its one table; `key`, `value` and `expires_at` were in every version of it.
fn is_predecessor(conn: &Connection) -> Result<bool, Fault> {
    let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table'
        AND name NOT LIKE 'sqlite_%'";
    let tables: i64 = conn.query_row(tables, [], |row| row.get(0)).map_err(fault)?;
    let columns = "SELECT count(*) FROM pragma_table_info('cache_entries')
        WHERE name IN ('key', 'value', 'expires_at')";
    let columns: i64 = conn.query_row(columns, [], |row| row.get(0)).map_err(fault)?;
    Ok(tables == 1 && columns == 3)
}

fn create(conn: &Connection) -> Result<(), Fault> {
    // Both take effect in a file without tables only, and before it turns to WAL.
    conn.pragma_update(None, "page_size", PAGE_BYTES.cast_signed()).map_err(fault)?;
    conn.pragma_update(None, "auto_vacuum", 2).map_err(fault)?;
    let wal: String =
        conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(fault)?;
    if wal != "wal" {
        tracing::warn!(mode = wal, "cache file without WAL: writes will block look-ups");
    }
    let tx = conn.unchecked_transaction().map_err(fault)?;
    let drop_all =
        "SELECT group_concat('DROP TABLE \"' || replace(name, '\"', '\"\"') || '\";', '')
        FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let drop_all: Option<String> =
        tx.query_row(drop_all, [], |row| row.get(0)).optional().map_err(fault)?.flatten();
    tx.execute_batch(&drop_all.unwrap_or_default()).map_err(fault)?;
    tx.execute_batch(SCHEMA).map_err(fault)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(fault)?;
    tx.pragma_update(None, "user_version", FORMAT).map_err(fault)?;
    tx.commit().map_err(fault)
}

/// Reads one pragma.
pub(crate) fn pragma<T: rusqlite::types::FromSql>(
    conn: &Connection,
    name: &str,
) -> Result<T, Fault> {
    conn.pragma_query_value(None, name, |row| row.get(0)).map_err(fault)
}

/// What an error of the library means for the store.
pub(crate) fn fault(err: rusqlite::Error) -> Fault {
    Fault::new(reason(&err), &err)
}

fn reason(err: &rusqlite::Error) -> Unavailable {
    let Some(code) = err.sqlite_error_code() else { return Unavailable::Bug };
    match code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => Unavailable::Locked,
        ErrorCode::DiskFull => Unavailable::DiskFull,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Unavailable::Damaged,
        ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::ReadOnly
        | ErrorCode::PermissionDenied
        | ErrorCode::NoLargeFileSupport => Unavailable::Io,
        ErrorCode::TooBig => Unavailable::Refused,
        _ => Unavailable::Bug,
    }
}
