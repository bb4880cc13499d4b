//! This process's id without a system call for each question: every operation asks, and it changes only by a fork.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

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
}
