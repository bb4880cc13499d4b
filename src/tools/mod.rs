//! What the engine needs to run tools.

pub mod cache;
#[cfg(feature = "extension-module")]
pub mod cache_python;
#[cfg(feature = "extension-module")]
pub mod work_queue;
