//! Rust futures as Python awaitables.
//!
//! A finished operation pushes an owned value and an id to the completion queue of the loop that awaits it
//! (`queue`, an `inbox`); the first push into an empty queue wakes the loop (`wake`). The loop's own thread then collects all that
//! is there and resolves its asyncio futures (`event_loop`). Python objects never leave the loop's side, so no tokio
//! thread waits for the interpreter, and there is nothing to say when a loop has gone.

#[cfg(feature = "extension-module")]
pub mod awaitable;
#[cfg(feature = "extension-module")]
mod call;
pub mod caught;
#[cfg(feature = "extension-module")]
pub mod event_loop;
pub mod inbox;
mod lock;
#[cfg(feature = "extension-module")]
pub mod messenger;
pub mod queue;
pub mod value;
pub mod wake;

#[cfg(feature = "extension-module")]
pub use event_loop::Bridges;
