//! A control-plane replica: what is wired to what, who leads, and the command
//! line. Everything of substance is in the crates below.

pub mod admin;
pub mod api;
pub mod birth;
pub mod bootstrap;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod connector;
pub mod dial;
pub mod etcd;
pub mod keys;
pub mod kubeconfig;
pub mod leader;
pub mod listen;
pub mod metrics;
pub mod plugins;
pub mod quorum;
pub mod reachable;
pub mod report;
pub mod run;
pub mod telemetry;

/// The Kubernetes release whose API is served.
pub const KUBERNETES_VERSION: &str = "v1.37.0";
/// The admin socket's file name in a data directory.
pub const ADMIN_SOCKET: &str = "admin.sock";
