//! A thin client for a container runtime on a unix socket.
//!
//! Owns: the connection, deadlines, and what a failed call means
//! ([`CriError`]). Does not own: any decision about pods (`triarch-kubelet`).
//! The protocol is the Container Runtime Interface v1, plus containerd's own
//! event stream for runtimes that have no CRI one.

mod client;
mod error;
mod events;

pub use client::Cri;
pub use error::CriError;
pub use events::{ContainerChange, EventStream};

/// Messages of the Container Runtime Interface, version 1.
#[allow(clippy::doc_lazy_continuation)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

pub(crate) mod containerd {
    tonic::include_proto!("containerd.services.events.v1");
}
