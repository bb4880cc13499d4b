//! Which of a run's tasks may start.

pub mod graph;
#[cfg(feature = "extension-module")]
pub mod python;
