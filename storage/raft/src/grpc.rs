//! The peer protocol over gRPC: the production [`PeerTransport`], and the
//! service that a server mounts on its peer listener.
//!
//! TLS is the caller's: the client side takes a rustls configuration with this
//! replica's certificate, the service side sits behind a listener that has
//! terminated TLS and verified the client's certificate. Which certificate may
//! speak for which replica is asked of the caller ([`VerifyPeer`]).
//!
//! One HTTP/2 connection per peer carries all its calls and streams; keepalive
//! pings find a peer that is gone without a word.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status, Streaming};
use triarch_rpc::raft::Frame;
use triarch_rpc::raft::raft_client::RaftClient;
use triarch_rpc::raft::raft_server::{Raft, RaftServer};

use crate::transport::{
    Call, Incoming, Lane, Message, Peer, PeerError, PeerHandler, PeerStream, PeerTransport, STREAM_DEPTH, Sender,
};
use crate::types::NodeId;

/// Larger than any append message or forwarded batch.
const MAX_MESSAGE: usize = 96 << 20;
const WINDOW: u32 = 8 << 20;
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Dials of peers that were members once are not kept for ever.
const MAX_CHANNELS: usize = 64;

/// How peers are dialled.
#[derive(Clone)]
pub struct PeerTls {
    /// With this replica's certificate; ALPN must offer `h2`.
    pub config: Arc<rustls::ClientConfig>,
    /// The name that a replica's certificate is verified for.
    pub server_name: String,
}

/// The way to other replicas over gRPC.
pub struct GrpcTransport {
    me: Sender,
    tls: Option<PeerTls>,
    connect: Duration,
    channels: Mutex<BTreeMap<(NodeId, String), Channel>>,
}

impl GrpcTransport {
    /// Dials as the replica that `cluster_id`, `id` and `incarnation` name;
    /// without `tls` in plain text, for tests.
    pub fn new(
        cluster_id: impl Into<String>,
        id: NodeId,
        incarnation: u64,
        tls: Option<PeerTls>,
        connect: Duration,
    ) -> GrpcTransport {
        let me = Sender { cluster_id: cluster_id.into(), id, incarnation, to: 0 };
        GrpcTransport { me, tls, connect, channels: Mutex::default() }
    }

    fn client(&self, peer: &Peer) -> Result<RaftClient<Channel>, PeerError> {
        let key = (peer.id, peer.address.clone());
        let mut channels = self.channels.lock();
        let channel = match channels.get(&key) {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.channel(peer)?;
                if channels.len() >= MAX_CHANNELS {
                    channels.clear();
                }
                channels.insert(key, channel.clone());
                channel
            }
        };
        Ok(RaftClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    /// Connects when it is first used, and again when it broke.
    fn channel(&self, peer: &Peer) -> Result<Channel, PeerError> {
        let bad = |e: &dyn std::fmt::Display| PeerError::Unreachable(peer.id, format!("address {}: {e}", peer.address));
        let endpoint = Endpoint::from_shared(format!("http://{}", peer.address))
            .map_err(|e| bad(&e))?
            .connect_timeout(self.connect)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW * 2)
            .tcp_nodelay(true);
        let (address, tls) = (peer.address.clone(), self.tls.clone());
        let name = match &tls {
            Some(tls) => Some(ServerName::try_from(tls.server_name.clone()).map_err(|e| bad(&e))?),
            None => None,
        };
        let connector = tower::service_fn(move |_: Uri| {
            let (address, tls, name) = (address.clone(), tls.clone(), name.clone());
            async move {
                let tcp = TcpStream::connect(&address).await?;
                tcp.set_nodelay(true)?;
                Ok::<_, std::io::Error>(match (tls, name) {
                    (Some(tls), Some(name)) => {
                        let stream = tokio_rustls::TlsConnector::from(tls.config).connect(name, tcp).await?;
                        TokioIo::new(Io::Tls(Box::new(stream)))
                    }
                    _ => TokioIo::new(Io::Plain(tcp)),
                })
            }
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    fn frame(&self, peer: &Peer, body: Bytes) -> Frame {
        Frame {
            cluster_id: self.me.cluster_id.clone(),
            from: self.me.id,
            to: peer.id,
            incarnation: self.me.incarnation,
            body,
            ..Frame::default()
        }
    }
}

fn error(peer: &Peer, status: &Status) -> PeerError {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => PeerError::Refused(status.message().into()),
        Code::Internal => PeerError::Failed(peer.id, status.message().into()),
        _ => {
            // What the transport says hides why; the cause does not.
            let mut text = status.message().to_owned();
            let mut source = std::error::Error::source(status);
            while let Some(e) = source {
                text = format!("{text}: {e}");
                source = e.source();
            }
            PeerError::Unreachable(peer.id, text)
        }
    }
}

#[async_trait]
impl PeerTransport for GrpcTransport {
    async fn call(&self, peer: &Peer, call: Call, body: Bytes) -> Result<Bytes, PeerError> {
        let mut client = self.client(peer)?;
        let frame = self.frame(peer, body);
        let answer = match call {
            Call::Vote => client.vote(frame).await,
            Call::TransferLeader => client.transfer_leader(frame).await,
            Call::ReadIndex => client.read_index(frame).await,
            Call::LeaderLost => client.leader_lost(frame).await,
            Call::Status => client.status(frame).await,
            Call::Introduce => client.introduce(frame).await,
            Call::Ask => client.ask(frame).await,
        };
        answer.map(|r| r.into_inner().body).map_err(|s| error(peer, &s))
    }

    async fn open(&self, peer: &Peer, lane: Lane) -> Result<PeerStream, PeerError> {
        let mut client = self.client(peer)?;
        let (tx, rx) = mpsc::channel(STREAM_DEPTH);
        let hello = Frame { lane: lane.number(), ..self.frame(peer, Bytes::new()) };
        let out = futures::stream::iter([hello]).chain(ReceiverStream::new(rx).map(to_frame));
        let answer = match lane {
            Lane::Log | Lane::Heartbeat => client.append(out).await,
            Lane::Forward => client.forward(out).await,
            Lane::Snapshot => client.snapshot(out).await,
        };
        let incoming = answer.map_err(|s| error(peer, &s))?.into_inner();
        Ok(PeerStream { tx, rx: messages(incoming) })
    }
}

fn to_frame(message: Message) -> Frame {
    Frame { body: message.body, payloads: message.payloads, ..Frame::default() }
}

/// A stream's messages; what breaks it ends them.
fn messages(incoming: Streaming<Frame>) -> Incoming {
    let received = incoming.take_while(|f| futures::future::ready(f.is_ok())).filter_map(|frame| {
        let message = frame.ok().map(|f| Message { body: f.body, payloads: f.payloads });
        futures::future::ready(message)
    });
    Incoming::Direct(received.boxed())
}

/// Plain or encrypted.
enum Io {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

macro_rules! io {
    ($self:ident, $inner:ident => $do:expr) => {
        match $self.get_mut() {
            Io::Plain(s) => {
                let $inner = Pin::new(s);
                $do
            }
            Io::Tls(s) => {
                let $inner = Pin::new(s.as_mut());
                $do
            }
        }
    };
}

impl tokio::io::AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        io!(self, s => s.poll_read(cx, buf))
    }
}

impl tokio::io::AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        io!(self, s => s.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        io!(self, s => s.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        io!(self, s => s.poll_shutdown(cx))
    }
}

/// Whether a connection may speak for a sender: given the request's extensions,
/// where the listener has put the client's certificate.
pub type VerifyPeer = Arc<dyn Fn(&tonic::Extensions, &Sender) -> Result<(), String> + Send + Sync>;

/// The service for the peer listener, which must set TCP_NODELAY on what it
/// accepts: an answer to a heartbeat that waits for Nagle's algorithm comes too
/// late. `verify` of `None` trusts every
/// connection, for tests.
pub fn raft_service(handler: Arc<dyn PeerHandler>, verify: Option<VerifyPeer>) -> RaftServer<GrpcPeers> {
    RaftServer::new(GrpcPeers { handler, verify })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// The receiving side; made by [`raft_service`].
pub struct GrpcPeers {
    handler: Arc<dyn PeerHandler>,
    verify: Option<VerifyPeer>,
}

type Out = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

fn refuse(e: &PeerError) -> Status {
    match e {
        PeerError::Refused(why) => Status::permission_denied(why),
        PeerError::Unreachable(_, why) => Status::unavailable(why),
        PeerError::Failed(_, why) => Status::internal(why),
    }
}

impl GrpcPeers {
    fn sender(&self, extensions: &tonic::Extensions, frame: &Frame) -> Result<Sender, Status> {
        let sender = Sender {
            cluster_id: frame.cluster_id.clone(),
            id: frame.from,
            incarnation: frame.incarnation,
            to: frame.to,
        };
        if let Some(verify) = &self.verify {
            verify(extensions, &sender).map_err(|why| {
                self.handler.refused(&sender, &why);
                Status::permission_denied(why)
            })?;
        }
        Ok(sender)
    }

    async fn call(&self, call: Call, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let sender = self.sender(request.extensions(), request.get_ref())?;
        let body = self.handler.call(&sender, call, request.into_inner().body).await.map_err(|e| refuse(&e))?;
        Ok(Response::new(Frame { body, ..Frame::default() }))
    }

    async fn open(&self, lanes: &[Lane], request: Request<Streaming<Frame>>) -> Result<Response<Out>, Status> {
        let (_, extensions, mut incoming) = request.into_parts();
        let hello = incoming.message().await?.ok_or_else(|| Status::invalid_argument("a stream without a sender"))?;
        let lane = Lane::from_number(hello.lane)
            .filter(|l| lanes.contains(l))
            .ok_or_else(|| Status::invalid_argument(format!("no lane {} here", hello.lane)))?;
        let sender = self.sender(&extensions, &hello)?;
        let (tx, rx) = mpsc::channel(STREAM_DEPTH);
        let stream = PeerStream { tx, rx: messages(incoming) };
        self.handler.stream(&sender, lane, stream).map_err(|e| refuse(&e))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(rx).map(|m| Ok(to_frame(m))))))
    }
}

#[tonic::async_trait]
impl Raft for GrpcPeers {
    type AppendStream = Out;
    type SnapshotStream = Out;
    type ForwardStream = Out;

    async fn append(&self, request: Request<Streaming<Frame>>) -> Result<Response<Out>, Status> {
        self.open(&[Lane::Log, Lane::Heartbeat], request).await
    }

    async fn vote(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.call(Call::Vote, request).await
    }

    async fn transfer_leader(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.call(Call::TransferLeader, request).await
    }

    async fn snapshot(&self, request: Request<Streaming<Frame>>) -> Result<Response<Out>, Status> {
        self.open(&[Lane::Snapshot], request).await
    }

    async fn read_index(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.call(Call::ReadIndex, request).await
    }

    async fn forward(&self, request: Request<Streaming<Frame>>) -> Result<Response<Out>, Status> {
        self.open(&[Lane::Forward], request).await
    }

    async fn leader_lost(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.call(Call::LeaderLost, request).await
    }

    async fn status(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.call(Call::Status, request).await
    }

    async fn introduce(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.call(Call::Introduce, request).await
    }

    async fn ask(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        self.call(Call::Ask, request).await
    }
}
