//! Documents as JSON (RFC 8259), MessagePack and protobuf (proto3), from and to a tree of plain values.
//!
//! Reading is generic over what is built (`build.rs`), so that it can be tested and fuzzed without an interpreter. All
//! depths and sizes are bounded, and what cannot be read or written faithfully is refused.

pub mod build;
pub mod frames;
pub mod json;
mod json_text;
pub mod json_write;
pub mod msgpack;
pub mod number;
pub mod protobuf;
#[cfg(feature = "extension-module")]
pub mod python;
#[cfg(feature = "extension-module")]
mod python_build;
#[cfg(feature = "extension-module")]
mod python_protobuf;
#[cfg(feature = "extension-module")]
mod python_quick;
#[cfg(feature = "extension-module")]
mod python_walk;
pub mod schema;
pub mod write;

/// Lists and maps inside each other; `_fallback/codec` has the same.
pub const DEEPEST: usize = 100;

/// The bytes of the largest integer, in two's complement.
pub const WIDEST_INTEGER: usize = 512;

/// Where a record keeps the protobuf fields whose numbers it does not know.
pub const UNKNOWN: &str = "$protobuf";
