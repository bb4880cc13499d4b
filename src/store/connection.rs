//! Opening the file: its format, and the settings of a writing and of a reading connection.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::failure::failure;
use crate::error::{DatabaseErrorKind as Kind, Error};

/// After a checkpoint the log file is cut to this size (bytes).
const LOG_KEPT: u64 = 16 * 1024 * 1024;
/// Pages that the writer keeps (KiB), at most: indexes of what comes in no order are met all over.
const PAGES_KEPT: u32 = 16 * 1024;
/// Statements kept prepared on a connection.
const STATEMENTS_KEPT: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Each commit reaches the disk before it is acknowledged.
    Full,
    /// The log is flushed at checkpoints: a power cut may lose the last commits, a crash of the process none.
    Relaxed,
}

impl Durability {
    fn synchronous(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Relaxed => "NORMAL",
        }
    }
}

/// Why an attempt to open failed; a busy file is worth another attempt.
pub enum Refusal {
    Busy(rusqlite::Error),
    Final(Error),
}

/// The connection that writes. It never waits by itself: the writer repeats what is busy, fairly and up to its deadline.
pub fn open_writer(path: &Path, durability: Durability) -> Result<Connection, Refusal> {
    check_place(path).map_err(Refusal::Final)?;
    let refuse = |error: rusqlite::Error| {
        if super::failure::is_busy(&error) {
            Refusal::Busy(error)
        } else {
            Refusal::Final(failure(path, &error))
        }
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(refuse)?;
    // SQLite falls back to reading only; a file that cannot be written is refused before anything else is tried.
    if connection.is_readonly("main").map_err(refuse)? {
        let text = format!("{}: the file does not allow writing", path.display());
        return Err(Refusal::Final(Error::database(Kind::ReadOnly, text)));
    }
    connection.busy_timeout(Duration::ZERO).map_err(refuse)?;
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(refuse)?;
    if mode != "wal" {
        let text = format!(
            "{}: the file system offers no write-ahead log (journal mode {mode}): choose a local disk",
            path.display()
        );
        return Err(Refusal::Final(Error::database(Kind::Open, text)));
    }
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = {}; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; \
             PRAGMA journal_size_limit = {LOG_KEPT}; \
             PRAGMA cache_size = -{PAGES_KEPT}",
            durability.synchronous()
        ))
        .map_err(refuse)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(connection)
}

pub fn reader_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// A connection that only reads. It may wait inside SQLite: it lives on blocking threads.
pub fn prepare_reader(connection: &Connection, busy_timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(busy_timeout)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA temp_store = MEMORY")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

/// The mistakes that SQLite reports only as "unable to open database file".
fn check_place(path: &Path) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::database(Kind::Open, text));
    if path.is_dir() {
        return refuse(format!(
            "{} is a folder: give the path of a file",
            path.display()
        ));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return refuse(format!(
            "{}: the folder {} does not exist: create it first",
            path.display(),
            folder.display()
        ));
    }
    Ok(())
}
