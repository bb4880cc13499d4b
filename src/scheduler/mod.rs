//! Which of a run's tasks may start, and which again.

pub mod graph;
#[cfg(feature = "extension-module")]
pub mod python;
pub mod retries;
