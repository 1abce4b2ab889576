//! The Kubernetes vocabulary: the schema table and what is driven by it.
//!
//! - [`schema`]: every field of every type; [`decode`] and [`protobuf`] read bytes
//!   with it, [`canon`] gives values their one canonical form, [`defaults`],
//!   [`patch`] and [`openapi`] walk it too.
//! - [`status`], [`names`], [`selector`], [`quantity`], [`time`], [`meta`]: the
//!   small words, with upstream's exact texts.
//!
//! It owns no state, does no IO and reads no clock.

pub mod canon;
pub mod decode;
pub mod defaults;
mod field_error;
mod keys;
pub mod meta;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod text;
pub mod time;
