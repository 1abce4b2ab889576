//! A small client of the Kubernetes API, so that the lab needs no kubectl.
//!
//! Owns: reading our kubeconfig, HTTPS with its client certificate, the verbs,
//! watches by lines. Does not cache and does not retry: callers see each failure.

mod client;
mod config;
mod transport;
mod watch;

pub use client::{KubeClient, KubeError, PatchKind, path_for};
pub use config::Kubeconfig;
pub use watch::Watch;
