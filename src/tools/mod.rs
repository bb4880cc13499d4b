//! What the engine needs to run tools: the chain of calls, earlier results, and the queue of those that leave the loop.

pub mod cache;
#[cfg(feature = "extension-module")]
pub mod cache_python;
pub mod call_stack;
mod lock;
pub mod places;
#[cfg(feature = "extension-module")]
pub mod work_queue;
