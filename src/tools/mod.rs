//! What the engine needs to run tools off the loop.

#[cfg(feature = "extension-module")]
pub mod work_queue;
