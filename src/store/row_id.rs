//! Which row id a statement inserted. SQLite keeps only the last one of the connection, whoever's statement it was.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::Arc;

use rusqlite::hooks::Action;
use rusqlite::Connection;

/// The last row id before a statement, and whether the statement inserted that very id again (in another table).
#[derive(Default)]
pub struct RowIds(Arc<Watch>);

#[derive(Default)]
struct Watch {
    before: AtomicI64,
    again: AtomicBool,
}

impl RowIds {
    pub fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let ids = Self::default();
        let watch = Arc::clone(&ids.0);
        connection.update_hook(Some(move |action, _: &str, _: &str, id| {
            if action == Action::SQLITE_INSERT && id == watch.before.load(Relaxed) {
                watch.again.store(true, Relaxed);
            }
        }))?;
        Ok(ids)
    }

    /// A statement begins.
    pub fn begin(&self, connection: &Connection) {
        self.0.before.store(connection.last_insert_rowid(), Relaxed);
        self.0.again.store(false, Relaxed);
    }

    /// The row id that the statement inserted last, if it inserted any.
    pub fn inserted(&self, connection: &Connection) -> Option<i64> {
        let id = connection.last_insert_rowid();
        let inserted = id != self.0.before.load(Relaxed) || self.0.again.load(Relaxed);
        inserted.then_some(id)
    }
}
