//! The gRPC face of the gateway.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use triarch_env::Scope;
use triarch_pki::ca::Ca;
use triarch_pki::identity;
use triarch_pki::token::TokenClass;
use triarch_rpc::node::node_gateway_server::{NodeGateway, NodeGatewayServer};
use triarch_rpc::node::tunnel_frame::Body;
use triarch_rpc::node::{
    AgentMessage, ControlMessage, JoinRequest, JoinResponse, RenewRequest, RenewResponse, TunnelFrame, TunnelOpen,
    TunnelsRequest,
};

use crate::join;
use crate::session::{self, Shared};
use crate::tunnels::TunnelHub;

/// Messages to an agent that wait for HTTP/2 to take them.
const OUTBOX: usize = 64;
/// Largest message from an agent, bytes.
const MAX_MESSAGE: usize = 8 << 20;

/// The peer's certificate chain (DER, leaf first), put into a request's
/// extensions by whoever terminated TLS.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificates(pub Arc<Vec<Vec<u8>>>);

/// The node gateway of one replica.
#[derive(Clone)]
pub struct Gateway {
    pub shared: Shared,
    pub scope: Scope,
    pub hub: Arc<TunnelHub>,
    pub ca: Arc<Ca>,
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Gateway {
    /// The service to mount.
    pub fn server(self) -> NodeGatewayServer<Gateway> {
        NodeGatewayServer::new(self).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }

    /// The node that the caller's certificate names.
    fn holder<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let certs = request.extensions().get::<PeerCertificates>().cloned().unwrap_or_default();
        let leaf = certs.0.first().ok_or_else(|| Status::unauthenticated("a node's client certificate is needed"))?;
        let info = identity::from_der(leaf).map_err(|e| Status::unauthenticated(e.to_string()))?;
        let node = info.identity.user.strip_prefix("system:node:").map(str::to_owned);
        let is_node = info.identity.groups.iter().any(|g| g == triarch_auth::NODES);
        node.filter(|_| is_node).ok_or_else(|| Status::permission_denied("the certificate is not a node's"))
    }

    async fn fresh(&self) -> Result<(), Status> {
        let barrier = self.shared.registry.db().read_barrier().await;
        barrier.map(drop).map_err(|e| Status::unavailable(e.to_string()))
    }
}

#[tonic::async_trait]
impl NodeGateway for Gateway {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let r = request.into_inner();
        if let Some(why) = join::bad_name(&r.node_name) {
            return Err(Status::invalid_argument(why));
        }
        self.fresh().await?;
        let now = self.shared.env.wall();
        join::check_token(self.shared.registry.mvcc(), &r.token, TokenClass::Node, now)
            .map_err(|e| Status::unauthenticated(e.to_string()))?;
        let certificate =
            join::sign(&self.ca, &r.csr_der, &r.node_name, now).map_err(|e| Status::invalid_argument(e.to_string()))?;
        tracing::info!(node = r.node_name, "node joined");
        let s = (self.shared.settings)();
        Ok(Response::new(JoinResponse {
            certificate_pem: certificate.into_bytes().into(),
            ca_pem: self.ca.certificate_pem().as_bytes().to_vec().into(),
            cluster_id: s.cluster_id,
            servers: s.servers,
            cluster_domain: s.cluster_domain,
            service_cidr: s.service_cidr,
            api_endpoints: s.api_endpoints,
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let node = self.holder(&request)?;
        let certificate = join::sign(&self.ca, &request.into_inner().csr_der, &node, self.shared.env.wall())
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(Response::new(RenewResponse {
            certificate_pem: certificate.into_bytes().into(),
            ca_pem: self.ca.certificate_pem().as_bytes().to_vec().into(),
        }))
    }

    type SessionStream = Outgoing<ControlMessage>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let holder = self.holder(&request)?;
        let (tx, rx) = mpsc::channel(OUTBOX);
        let (errors, inbound) = (mpsc::channel(1), request.into_inner());
        let (shared, scope) = (self.shared.clone(), self.scope.clone());
        let error_tx = errors.0;
        self.shared.env.spawn("gateway-session", async move {
            let ended = session::run(shared, scope, |node| join::speaks_for(&holder, node), inbound, tx).await;
            if let Err(e) = ended {
                tracing::warn!(holder, error = %e, "node session refused");
                let _gone = error_tx.try_send(Status::failed_precondition(e.to_string()));
            }
        });
        // Messages, then the reason for the end when there is one.
        let messages = receiver(rx).map(Ok);
        let reason = receiver(errors.1).map(Err);
        Ok(Response::new(Box::pin(messages.chain(reason))))
    }

    type TunnelsStream = Outgoing<TunnelOpen>;

    async fn tunnels(&self, request: Request<TunnelsRequest>) -> Result<Response<Self::TunnelsStream>, Status> {
        let holder = self.holder(&request)?;
        let node = request.into_inner().node_name;
        if !join::speaks_for(&holder, &node) {
            return Err(Status::permission_denied(format!("the certificate does not speak for node {node:?}")));
        }
        let attached = self.hub.attach(&node);
        let scope = self.scope.clone();
        let stream = futures::stream::unfold((attached, scope), |(mut attached, scope)| async move {
            let open = scope.run(attached.next()).await??;
            Some((Ok(open), (attached, scope)))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    type TunnelStream = Outgoing<TunnelFrame>;

    async fn tunnel(&self, request: Request<Streaming<TunnelFrame>>) -> Result<Response<Self::TunnelStream>, Status> {
        let holder = self.holder(&request)?;
        let mut frames = request.into_inner();
        let Some(Ok(TunnelFrame { body: Some(Body::Hello(hello)) })) = frames.next().await else {
            return Err(Status::invalid_argument("the first frame of a tunnel is TunnelHello"));
        };
        let outgoing = self
            .hub
            .opened(&hello.id, |node| join::speaks_for(&holder, node), frames)
            .ok_or_else(|| Status::not_found("nobody waits for this tunnel"))?;
        Ok(Response::new(Box::pin(receiver(outgoing).map(Ok))))
    }
}

fn receiver<T: Send + 'static>(rx: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    futures::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|v| (v, rx)) })
}
