//! Tunnels: a replica asks for one, the agent opens it towards that replica.
//!
//! Every replica can reach every node this way, whichever carries the session.
//! Bytes flow under HTTP/2 flow control through a small queue.

mod copy;
mod logs;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use triarch_env::Scope;
use triarch_rpc::node::tunnel_frame::Body;
use triarch_rpc::node::tunnel_open::Kind;
use triarch_rpc::node::{DialRequest, TunnelError, TunnelFrame, TunnelHello, TunnelOpen};

use crate::node::Node;
use crate::session::{Inbound, Uplink, UplinkError};

/// Tunnels of one node at a time.
const MAX_TUNNELS: usize = 256;
/// Frames that wait for the replica.
const QUEUE: usize = 8;
/// Bytes in one frame.
pub(crate) const FRAME: usize = 16 * 1024;
const RETRY: Duration = Duration::from_millis(200);
/// A replica waits a little longer than this for a node that it has lost.
const MAX_RETRY: Duration = Duration::from_secs(3);

/// An error that the client gets as a Status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: u32,
    pub reason: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal { code: 400, reason: "BadRequest", message: message.into() }
    }
    pub fn not_found(message: impl Into<String>) -> Refusal {
        Refusal { code: 404, reason: "NotFound", message: message.into() }
    }
    pub fn internal(message: impl Into<String>) -> Refusal {
        Refusal { code: 500, reason: "InternalError", message: message.into() }
    }
}

pub(crate) type Frames = mpsc::Sender<TunnelFrame>;

pub(crate) fn data(bytes: impl Into<bytes::Bytes>) -> TunnelFrame {
    TunnelFrame { body: Some(Body::Data(bytes.into())) }
}

pub(crate) fn eof() -> TunnelFrame {
    TunnelFrame { body: Some(Body::Eof(true)) }
}

/// Keeps listening for tunnels at `replica` until `scope` ends.
pub async fn keep(node: Arc<Node>, uplink: Arc<dyn Uplink>, replica: usize, scope: Scope) {
    let env = node.env().clone();
    let slots = Arc::new(Semaphore::new(MAX_TUNNELS));
    let mut retry = RETRY;
    loop {
        if let Ok(mut opens) = uplink.tunnels(replica, node.name()).await {
            retry = RETRY;
            while let Some(Ok(open)) = opens.next().await {
                let Ok(slot) = slots.clone().try_acquire_owned() else {
                    tracing::warn!(node = %node.name(), "too many tunnels; one was not opened");
                    continue;
                };
                let (node, uplink) = (node.clone(), uplink.clone());
                env.spawn_in(&scope, "tunnel", async move {
                    let _slot = slot;
                    if let Err(e) = serve(&node, &*uplink, replica, open).await {
                        tracing::debug!(error = %e, "tunnel");
                    }
                });
            }
        }
        env.sleep(env.jitter(retry, 50)).await;
        retry = (retry * 2).min(MAX_RETRY);
    }
}

async fn serve(node: &Arc<Node>, uplink: &dyn Uplink, replica: usize, open: TunnelOpen) -> Result<(), UplinkError> {
    let (tx, rx) = mpsc::channel(QUEUE);
    let hello = TunnelFrame { body: Some(Body::Hello(TunnelHello { id: open.id })) };
    let rest = futures::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|f| (f, rx)) });
    let outbound = futures::stream::once(async { hello }).chain(rest).boxed();
    let inbound = uplink.tunnel(replica, node.name(), outbound).await?;
    let done = match open.kind {
        Some(Kind::Logs(request)) => logs::serve(node, request, &tx, inbound).await,
        Some(Kind::Stream(request)) => stream::serve(node, request, &tx, inbound).await,
        Some(Kind::Dial(request)) => dial(node, request, &tx, inbound).await,
        None => Err(Refusal::bad_request("the tunnel asks for nothing that this agent knows")),
    };
    if let Err(r) = done {
        let error = TunnelError { code: r.code, reason: r.reason.to_owned(), message: r.message };
        let _ = tx.send(TunnelFrame { body: Some(Body::Error(error)) }).await;
    }
    Ok(())
}

/// A TCP connection made inside the node.
async fn dial(node: &Node, r: DialRequest, tx: &Frames, inbound: Inbound<TunnelFrame>) -> Result<(), Refusal> {
    let limit = Duration::from_millis(u64::from(r.timeout_ms.clamp(100, 60_000)));
    let unavailable = |text: String| Refusal { code: 503, reason: "ServiceUnavailable", message: text };
    match node.env().timeout(limit, tokio::net::TcpStream::connect(&r.address)).await {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            // An empty frame says that the connection stands.
            let _ = tx.send(data(bytes::Bytes::new())).await;
            copy::both_ways(node.env(), stream, tx, inbound).await;
            Ok(())
        }
        Ok(Err(e)) => Err(unavailable(format!("dial tcp {}: {e}", r.address))),
        Err(_) => Err(unavailable(format!("dial tcp {}: i/o timeout", r.address))),
    }
}
