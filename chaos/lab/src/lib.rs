//! Clusters on one machine: what `./up`, the tests, the benches and the faults
//! share.
//!
//! ```text
//!   up ─► lab ─┬─► cluster   replicas as processes, hurt by handle
//!              ├─► node      namespaces, containerd, agent
//!              ├─► images    made on the spot
//!              ├─► relay     a loopback port into a node
//!              └─► etcd      as a peer, to be held against
//!   kube: a small client      preflight: can containers run here?
//! ```
//! Owns processes, namespaces and files. Knows the programs only by their
//! command lines and their wire. Invariant: what it starts ends with it.

pub mod binaries;
pub mod cluster;
pub mod crowd;
pub mod disk;
pub mod error;
pub mod etcd;
pub mod images;
pub mod kube;
pub mod lab;
pub mod layers;
pub mod netns;
pub mod node;
pub mod ports;
pub mod preflight;
pub mod process;
pub mod progress;
pub mod relay;
pub mod sample;
pub mod scenario;
pub mod suite;
pub mod up;
pub mod usage;
pub mod user;

pub use binaries::{Binaries, Profile};
pub use cluster::{Cluster, Options, Replica, TokenClass};
pub use error::{LabError, Result};
pub use kube::{KubeClient, KubeError, Kubeconfig, PatchKind};
pub use lab::{Lab, LabOptions, Nodes};
pub use progress::Progress;
