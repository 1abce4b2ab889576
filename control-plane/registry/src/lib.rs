//! The generic registry: one set of verb handlers over a table of kinds. No
//! HTTP here, no handler per kind.

mod kind;

pub use kind::*;
