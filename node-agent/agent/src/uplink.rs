//! The way to the replicas: gRPC over TLS, a few connections to each.
//!
//! A process of simulated nodes shares connections ("lanes") among them, few
//! enough streams on each that no server's limit is met.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tonic::transport::{Channel, Endpoint, Uri};
use triarch_rpc::node::node_gateway_client::NodeGatewayClient;
use triarch_rpc::node::{AgentMessage, ControlMessage, TunnelFrame, TunnelOpen, TunnelsRequest};

use crate::address::Address;
use crate::identity::{Identity, explain};
use crate::session::{Inbound, Outbound, Uplink, UplinkError};

/// Replicas that are known at most.
const MAX_REPLICAS: usize = 16;
/// Simulated nodes on one connection.
pub const NODES_PER_LANE: usize = 50;
const MAX_MESSAGE: usize = 64 << 20;

/// A lazy connection to `address`; dialled again whenever it is lost.
pub fn channel(address: &Address, tls: Arc<ClientConfig>) -> Channel {
    channel_with(address, Arc::new(move || tls.clone()))
}

fn channel_with(address: &Address, tls: Arc<dyn Fn() -> Arc<ClientConfig> + Send + Sync>) -> Channel {
    let address = address.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (address, tls) = (address.clone(), tls());
        async move { Ok::<_, std::io::Error>(TokioIo::new(address.connect(tls).await?)) }
    });
    Endpoint::from_static("http://triarch")
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .connect_with_connector_lazy(connector)
}

pub struct GrpcUplink {
    identity: Arc<Identity>,
    lanes: usize,
    /// Addresses with their channels; only ever extended.
    replicas: Mutex<Vec<(Address, Vec<Channel>)>>,
    /// Addresses that the control plane tells of are used too.
    learns: bool,
}

impl GrpcUplink {
    /// `lanes`: connections to each replica.
    pub fn new(identity: Arc<Identity>, servers: &[Address], lanes: usize) -> GrpcUplink {
        // Over unix sockets the node has no route to the replicas' addresses.
        let learns = servers.iter().all(|s| matches!(s, Address::Tcp { .. }));
        let uplink = GrpcUplink { identity, lanes: lanes.max(1), replicas: Mutex::default(), learns };
        servers.iter().for_each(|s| uplink.add(s.clone()));
        uplink
    }

    fn add(&self, address: Address) {
        let mut replicas = self.replicas.lock();
        if replicas.len() >= MAX_REPLICAS || replicas.iter().any(|(a, _)| *a == address) {
            return;
        }
        let identity = self.identity.clone();
        let tls: Arc<dyn Fn() -> Arc<ClientConfig> + Send + Sync> = Arc::new(move || identity.tls());
        let channels = (0..self.lanes).map(|_| channel_with(&address, tls.clone())).collect();
        replicas.push((address, channels));
    }

    pub fn addresses(&self) -> Vec<Address> {
        self.replicas.lock().iter().map(|(a, _)| a.clone()).collect()
    }

    fn client(&self, replica: usize, node: &str) -> Result<NodeGatewayClient<Channel>, UplinkError> {
        let replicas = self.replicas.lock();
        let unknown = || UplinkError::Unreachable(format!("there is no replica {replica}"));
        let (_, channels) = replicas.get(replica).ok_or_else(unknown)?;
        let number: usize = node.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let channel = channels[number % channels.len()].clone();
        Ok(NodeGatewayClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE))
    }
}

fn failed(status: tonic::Status) -> UplinkError {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled | tonic::Code::DeadlineExceeded => {
            UplinkError::Unreachable(explain(&status))
        }
        _ => UplinkError::Refused(explain(&status)),
    }
}

fn inbound<T: Send + 'static>(stream: tonic::Streaming<T>) -> Inbound<T> {
    stream.map(|m| m.map_err(failed)).boxed()
}

/// An outbound stream under a name of its own, which the generated client's
/// bounds need.
struct Messages<T>(Outbound<T>);

impl<T> futures::Stream for Messages<T> {
    type Item = T;
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.get_mut().0.as_mut().poll_next(cx)
    }
}

#[async_trait]
impl Uplink for GrpcUplink {
    fn replicas(&self) -> usize {
        self.replicas.lock().len()
    }

    async fn session(
        &self,
        replica: usize,
        node: &str,
        outbound: Outbound<AgentMessage>,
    ) -> Result<Inbound<ControlMessage>, UplinkError> {
        let mut client = self.client(replica, node)?;
        Ok(inbound(client.session(Messages(outbound)).await.map_err(failed)?.into_inner()))
    }

    async fn tunnels(&self, replica: usize, node: &str) -> Result<Inbound<TunnelOpen>, UplinkError> {
        let request = TunnelsRequest { node_name: node.to_owned() };
        Ok(inbound(self.client(replica, node)?.tunnels(request).await.map_err(failed)?.into_inner()))
    }

    async fn tunnel(
        &self,
        replica: usize,
        node: &str,
        outbound: Outbound<TunnelFrame>,
    ) -> Result<Inbound<TunnelFrame>, UplinkError> {
        Ok(inbound(self.client(replica, node)?.tunnel(Messages(outbound)).await.map_err(failed)?.into_inner()))
    }

    fn servers_changed(&self, servers: &[String]) {
        if !self.learns {
            return;
        }
        for server in servers {
            match Address::parse(server) {
                Ok(address) => self.add(address),
                Err(e) => tracing::warn!(error = %e, "the control plane named an address that cannot be used"),
            }
        }
    }
}
