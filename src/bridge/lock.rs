//! The lock of what threads share here; the model check puts its own in its place.

pub use std::sync::{Mutex, MutexGuard};
