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
pub mod csr;
pub mod deployment;
pub mod describe;
pub mod diff;
pub mod duration;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod field;
pub mod go_form;
pub mod ip;
pub mod lease;
pub mod meta;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod pod_spec;
pub mod print;
pub mod rbac;
pub mod replica_set;
pub mod reviews;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod stored;
pub mod template;
pub mod value;

use triarch_registry::Kind;

/// Every kind, in the order in which discovery lists them.
pub static KINDS: &[&Kind] = &[
    &reviews::BINDING,
    &config_map::KIND,
    &endpoints::KIND,
    &event::core::KIND,
    &namespace::KIND,
    &node::KIND,
    &pod::KIND,
    &secret::KIND,
    &service_account::KIND,
    &service::KIND,
    &event::events_k8s_io::KIND,
    &reviews::SELF_SUBJECT_REVIEW,
    &reviews::TOKEN_REVIEW,
    &reviews::LOCAL_SUBJECT_ACCESS_REVIEW,
    &reviews::SELF_SUBJECT_ACCESS_REVIEW,
    &reviews::SELF_SUBJECT_RULES_REVIEW,
    &reviews::SUBJECT_ACCESS_REVIEW,
    &deployment::KIND,
    &replica_set::KIND,
    &csr::KIND,
    &rbac::cluster_role_binding::KIND,
    &rbac::cluster_role::KIND,
    &rbac::role_binding::KIND,
    &rbac::role::KIND,
    &lease::KIND,
    &endpoint_slice::KIND,
];
