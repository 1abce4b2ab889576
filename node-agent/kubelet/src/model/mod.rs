//! The part of the API's objects that a node acts on, as plain values.
//!
//! A pod in an agent's memory is the fields below and nothing else: what the
//! node has no use for is skipped while decoding, which keeps thousands of
//! them in a few megabytes.

mod container;
mod pod;
mod status;

pub use container::*;
pub use pod::*;
pub use status::*;
