//! Which of a run's tasks may start, and which again; how much of what is limited may be used.

pub mod graph;
pub mod limiter;
pub mod limits;
mod lock;
mod meter;
#[cfg(feature = "extension-module")]
pub mod python;
#[cfg(feature = "extension-module")]
pub mod python_limiter;
pub mod retries;
