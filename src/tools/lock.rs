//! The locks of what threads share here; the model check puts its own in their place.

pub use std::sync::{Condvar, Mutex, MutexGuard};
