//! The node's session with the control plane.
//!
//! ```text
//!   Uplink (any replica) ─► ControlMessage ─► Assignment ─► Ledger, NodeStore, Kubelet
//!   Kubelet, heartbeat ─► Outbox ─► AgentMessage ─► Uplink
//! ```
//! Names no transport: the binary gives it gRPC over TLS, tests and the
//! simulation give it channels. Invariant: what is taken from the control plane
//! never goes back to an older term or revision.

pub mod assignment;
pub mod events;
pub mod outbox;
pub mod run;

use async_trait::async_trait;
use futures::stream::BoxStream;
use triarch_rpc::node::{AgentMessage, ControlMessage, TunnelFrame, TunnelOpen};

/// Why a stream could not be opened or has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UplinkError {
    /// The replica cannot be reached, or the stream broke.
    #[error("{0}")]
    Unreachable(String),
    /// The replica answers and says no.
    #[error("{0}")]
    Refused(String),
}

pub type Inbound<T> = BoxStream<'static, Result<T, UplinkError>>;
pub type Outbound<T> = BoxStream<'static, T>;

/// The way to the replicas. `replica` counts from 0.
#[async_trait]
pub trait Uplink: Send + Sync + 'static {
    fn replicas(&self) -> usize;
    async fn session(
        &self,
        replica: usize,
        node: &str,
        outbound: Outbound<AgentMessage>,
    ) -> Result<Inbound<ControlMessage>, UplinkError>;
    /// Tunnels that the replica wants opened towards the node.
    async fn tunnels(&self, replica: usize, node: &str) -> Result<Inbound<TunnelOpen>, UplinkError>;
    async fn tunnel(
        &self,
        replica: usize,
        node: &str,
        outbound: Outbound<TunnelFrame>,
    ) -> Result<Inbound<TunnelFrame>, UplinkError>;
    /// The control plane says where it is now; used from the next dial on.
    fn servers_changed(&self, _servers: &[String]) {}
}
