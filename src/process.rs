//! This process's id without a system call for each question: every operation asks, and it changes only by a fork.

use crate::error::Error;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::Arc;

/// 0 until somebody asks, and again in a forked child.
static ID: AtomicU32 = AtomicU32::new(0);

pub fn id() -> u32 {
    match ID.load(Relaxed) {
        0 => {
            let id = std::process::id();
            ID.store(id, Relaxed);
            id
        }
        id => id,
    }
}

/// Python calls this in a forked child, before any other code runs there.
#[cfg(feature = "extension-module")]
#[pyo3::pyfunction]
pub fn forked() {
    ID.store(0, Relaxed);
    crate::logs::forked();
}

/// What has threads, locks or open files of the process that made it. A forked child can neither use nor close it: its
/// locks may be held for ever there, and SQLite's locks and the connections are the parent's.
pub struct Owned<T> {
    owner: u32,
    what: &'static str,
    /// None only while it is dropped.
    value: Option<Arc<T>>,
}

impl<T> Owned<T> {
    /// `what`: its name in errors.
    pub fn new(what: &'static str, value: T) -> Self {
        Self {
            owner: id(),
            what,
            value: Some(Arc::new(value)),
        }
    }

    /// It, where it is this process's.
    pub fn get(&self) -> Result<&Arc<T>, Error> {
        let current = id();
        match &self.value {
            Some(value) if current == self.owner => Ok(value),
            _ => Err(Error::Forked {
                what: self.what,
                owner: self.owner,
                current,
            }),
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if id() != self.owner {
            std::mem::forget(self.value.take());
        }
    }
}
