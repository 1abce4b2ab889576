//! The kinds that Triarch serves, one file each.
//!
//! ```text
//!   KINDS ── config_map, secret, namespace, pod, service, …    one value of Kind each
//!     └──── pod_spec, template, service::alloc, meta, print    what several share
//! ```
//! A kind's file holds its names, columns, selectable fields, defaults and
//! rules. Rules are pure: they see the objects, a moment and a snapshot of the
//! store. Texts that clients can see are upstream's. Growing is one file and
//! one line in [`KINDS`], which a test proves complete.

pub mod config_map;
pub mod duration;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod field;
pub mod ip;
pub mod lease;
pub mod meta;
pub mod namespace;
pub mod pod_spec;
pub mod print;
pub mod rbac;
pub mod secret;
pub mod service_account;
pub mod stored;
pub mod template;
pub mod value;

use triarch_registry::Kind;

/// Every kind, in the order in which discovery lists them.
pub static KINDS: &[&Kind] = &[
    &config_map::KIND,
    &endpoints::KIND,
    &event::core::KIND,
    &namespace::KIND,
    &secret::KIND,
    &service_account::KIND,
    &lease::KIND,
    &endpoint_slice::KIND,
    &event::events_k8s_io::KIND,
    &rbac::cluster_role_binding::KIND,
    &rbac::cluster_role::KIND,
    &rbac::role_binding::KIND,
    &rbac::role::KIND,
];
