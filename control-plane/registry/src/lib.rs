//! The generic registry: one set of verb handlers over a table of kinds. No
//! HTTP here, no async runtime, no handler per kind.
//!
//! ```text
//!   create · update · patch · delete ─► admission ─► defaults ─► rules ─► canonical bytes ─► Db::commit
//!   get · list · watch ◄── bytes with a revision in their slot ◄── Mvcc
//! ```
//!
//! Invariants: every write is guarded by the revision that it was judged
//! against; a negative answer comes only from a memory known to be current;
//! a write that changes nothing takes no revision.

mod action;
mod admission;
mod auth;
mod client;
mod context;
mod create;
pub mod decode;
mod delete;
pub mod encode;
mod err;
mod ext;
mod filter;
mod kind;
mod object_meta;
mod options;
mod patch;
mod read;
mod registry;
mod scale;
mod served;
mod table;
mod token;
mod update;
mod watch;

pub use admission::{Admission, AdmitAll, Attributes, Operation};
pub use auth::{AlwaysAllow, Authenticator, AuthnError, Authorizer, AuthzAttributes, Credentials, Decision};
pub use client::{Client, Write};
pub use context::{RequestContext, UserInfo};
pub use ext::{Issuer, Virtual};
pub use filter::Filter;
pub use kind::*;
pub use options::{DeleteOptions, FieldValidation, ListOptions, RevisionMatch, Target, WriteOptions};
pub use patch::{PATCH_TYPES, PatchType};
pub use registry::Registry;
pub use served::{Body, ListPage, Response, Served, set_type, write_header};
pub use table::KindTable;
pub use update::Transform;
pub use watch::{Change, Watch, WatchEvent};

#[cfg(test)]
mod tests;
