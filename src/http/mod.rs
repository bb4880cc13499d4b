//! POST requests with a JSON body, answered whole or as a stream of server-sent events: what a model call needs of HTTP.
//!
//! A client is a pool of connections that all runs share. Its work are futures that own what they need; dropping one closes its
//! connection. Nothing here knows Python: `python.rs` is the door.

mod client;
mod events;
#[cfg(feature = "extension-module")]
mod python;
mod sse;

pub use client::{Answer, Client, Options, Request};
pub use events::Events;
#[cfg(feature = "extension-module")]
pub use python::{HttpClient, HttpStream};
