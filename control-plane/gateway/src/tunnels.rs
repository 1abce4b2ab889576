//! Tunnels: byte streams between a request at this replica and something
//! inside a node. The replica announces one on the agent's control stream, the
//! agent opens it towards us, bytes flow under HTTP/2's own flow control.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use triarch_env::Env;
use triarch_rpc::node::tunnel_frame::Body;
use triarch_rpc::node::{TunnelFrame, TunnelOpen, tunnel_open};

/// How long the agent has to open a tunnel that it was told of.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// A node that is not connected here may just be coming back (so may this
/// replica): it is waited for this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Announcements that wait on one agent's control stream.
const MAX_ANNOUNCED: usize = 256;
/// Tunnels that have been announced and not yet opened, for the whole replica.
const MAX_PENDING: usize = 4096;
/// Frames buffered in each direction before the sender waits.
pub const FRAMES: usize = 16;

/// Why a tunnel could not be opened or went on no further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    #[error("node {0:?} is not connected to this replica")]
    NotConnected(String),
    #[error("too many streams are being opened")]
    Overloaded,
    #[error("node {0:?} did not open the stream in time")]
    Timeout(String),
    /// The agent refused: HTTP status code, reason, message.
    #[error("{message}")]
    Refused { code: u16, reason: String, message: String },
    #[error("the stream to the node broke")]
    Broken,
}

/// An open tunnel.
pub struct Tunnel {
    to_agent: mpsc::Sender<TunnelFrame>,
    from_agent: mpsc::Receiver<TunnelFrame>,
}

/// What came out of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    Data(Bytes),
    /// The agent sends no more; it may still take data.
    Eof,
}

impl Tunnel {
    /// # Errors
    /// `Broken` when the agent is gone.
    pub async fn send(&self, data: Bytes) -> Result<(), TunnelError> {
        let frame = TunnelFrame { body: Some(Body::Data(data)) };
        self.to_agent.send(frame).await.map_err(|_| TunnelError::Broken)
    }

    /// Says that we send no more.
    pub async fn send_eof(&self) -> Result<(), TunnelError> {
        self.to_agent.send(TunnelFrame { body: Some(Body::Eof(true)) }).await.map_err(|_| TunnelError::Broken)
    }

    /// The next piece; an agent that went away without an end is `Broken`.
    pub async fn recv(&mut self) -> Result<Received, TunnelError> {
        loop {
            return match self.from_agent.recv().await.map(|f| f.body) {
                Some(Some(Body::Data(d))) => Ok(Received::Data(d)),
                Some(Some(Body::Eof(_))) => Ok(Received::Eof),
                Some(Some(Body::Error(e))) => Err(TunnelError::Refused {
                    code: u16::try_from(e.code).unwrap_or(500),
                    reason: e.reason,
                    message: e.message,
                }),
                Some(Some(Body::Hello(_)) | None) => continue,
                None => Err(TunnelError::Broken),
            };
        }
    }

    /// Both halves, to be driven by different tasks.
    pub fn split(self) -> (mpsc::Sender<TunnelFrame>, mpsc::Receiver<TunnelFrame>) {
        (self.to_agent, self.from_agent)
    }
}

struct Pending {
    node: String,
    opened: oneshot::Sender<Tunnel>,
}

/// The tunnels of one replica.
pub struct TunnelHub {
    env: Env,
    agents: Mutex<BTreeMap<String, (u64, mpsc::Sender<TunnelOpen>)>>,
    pending: Mutex<BTreeMap<String, Pending>>,
    next: Mutex<u64>,
    /// An agent came.
    attached: Notify,
    patience: Duration,
}

impl TunnelHub {
    pub fn new(env: Env) -> Arc<TunnelHub> {
        TunnelHub::with_patience(env, PATIENCE)
    }

    fn with_patience(env: Env, patience: Duration) -> Arc<TunnelHub> {
        let (agents, pending, next) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(TunnelHub { env, agents, pending, next, attached: Notify::new(), patience })
    }

    /// An agent's control stream: what it is to open. A newer one of the same
    /// node takes over.
    pub fn attach(self: &Arc<Self>, node: &str) -> Attached {
        let (tx, rx) = mpsc::channel(MAX_ANNOUNCED);
        let mut next = self.next.lock();
        *next += 1;
        self.agents.lock().insert(node.to_owned(), (*next, tx));
        self.attached.notify_waiters();
        Attached { hub: self.clone(), node: node.to_owned(), id: *next, announcements: rx }
    }

    pub fn connected(&self, node: &str) -> bool {
        self.agents.lock().contains_key(node)
    }

    /// Asks the agent of `node` to open a tunnel and waits for it.
    pub async fn open(&self, node: &str, kind: tunnel_open::Kind) -> Result<Tunnel, TunnelError> {
        let announce = self.agent(node).await.ok_or_else(|| TunnelError::NotConnected(node.to_owned()))?;
        let (id, (tx, rx)) = (self.env.uuid(), oneshot::channel());
        {
            let mut pending = self.pending.lock();
            if pending.len() >= MAX_PENDING {
                return Err(TunnelError::Overloaded);
            }
            pending.insert(id.clone(), Pending { node: node.to_owned(), opened: tx });
        }
        let _cleanup = Forget { hub: self, id: &id };
        announce.try_send(TunnelOpen { id: id.clone(), kind: Some(kind) }).map_err(|_| TunnelError::Overloaded)?;
        match self.env.timeout(OPEN_TIMEOUT, rx).await {
            Ok(Ok(tunnel)) => Ok(tunnel),
            Ok(Err(_)) => Err(TunnelError::Broken),
            Err(_) => Err(TunnelError::Timeout(node.to_owned())),
        }
    }

    /// The way to a node's agent, once it is there.
    async fn agent(&self, node: &str) -> Option<mpsc::Sender<TunnelOpen>> {
        let end = self.env.mono() + self.patience;
        loop {
            let mut attached = std::pin::pin!(self.attached.notified());
            // From here on no arrival is missed.
            attached.as_mut().enable();
            if let Some((_, tx)) = self.agents.lock().get(node) {
                return Some(tx.clone());
            }
            let now = self.env.mono();
            if now >= end || self.env.timeout(end - now, attached).await.is_err() {
                return None;
            }
        }
    }

    /// The agent of `node` opened tunnel `id`: pumps its frames until it ends.
    /// Returns what to send to the agent, or `None` when nobody waits for it.
    pub fn opened<S, E>(
        &self,
        id: &str,
        may_speak_for: impl Fn(&str) -> bool,
        mut frames: S,
    ) -> Option<mpsc::Receiver<TunnelFrame>>
    where
        S: Stream<Item = Result<TunnelFrame, E>> + Send + Unpin + 'static,
        E: Send,
    {
        let waiting = {
            let mut pending = self.pending.lock();
            // Only the node that was asked may answer.
            if !pending.get(id).is_some_and(|p| may_speak_for(&p.node)) {
                return None;
            }
            pending.remove(id)?
        };
        let (to_agent, outgoing) = mpsc::channel(FRAMES);
        let (incoming, from_agent) = mpsc::channel(FRAMES);
        waiting.opened.send(Tunnel { to_agent, from_agent }).ok()?;
        self.env.spawn("tunnel", async move {
            while let Some(Ok(frame)) = frames.next().await {
                if incoming.send(frame).await.is_err() {
                    break;
                }
            }
        });
        Some(outgoing)
    }
}

struct Forget<'a> {
    hub: &'a TunnelHub,
    id: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.hub.pending.lock().remove(self.id);
    }
}

/// An agent's control stream; it is gone from the hub when this is dropped.
pub struct Attached {
    hub: Arc<TunnelHub>,
    node: String,
    id: u64,
    announcements: mpsc::Receiver<TunnelOpen>,
}

impl Attached {
    pub async fn next(&mut self) -> Option<TunnelOpen> {
        self.announcements.recv().await
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut agents = self.hub.agents.lock();
        if agents.get(&self.node).is_some_and(|(id, _)| *id == self.id) {
            agents.remove(&self.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use triarch_env::TokioRuntime;
    use triarch_rpc::node::DialRequest;

    use super::*;

    fn dial() -> tunnel_open::Kind {
        tunnel_open::Kind::Dial(DialRequest { address: "127.0.0.1:80".into(), timeout_ms: 0 })
    }

    #[tokio::test]
    async fn a_node_that_is_coming_back_is_waited_for_and_one_that_does_not_come_is_said() {
        let env = Env::new(TokioRuntime::current());
        let hub = TunnelHub::with_patience(env.clone(), Duration::from_millis(20));
        assert!(matches!(hub.open("n1", dial()).await, Err(TunnelError::NotConnected(_))));
        let hub = TunnelHub::new(env);
        let of = hub.clone();
        let opening = tokio::spawn(async move { of.open("n1", dial()).await.map(drop) });
        tokio::task::yield_now().await;
        let _other = hub.attach("n2");
        let mut agent = hub.attach("n1");
        let told = agent.next().await.unwrap();
        let frames = futures::stream::pending::<Result<TunnelFrame, ()>>();
        let _outgoing = hub.opened(&told.id, |n| n == "n1", frames).unwrap();
        assert_eq!(opening.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_tunnel_carries_bytes_both_ways_and_only_for_the_node_that_was_asked() {
        let hub = TunnelHub::new(Env::new(TokioRuntime::current()));
        let mut agent = hub.attach("n1");
        let (h, opener) = (hub.clone(), tokio::spawn);
        let opening = opener(async move { h.open("n1", dial()).await });
        let told = agent.next().await.unwrap();
        let frame = |b: &'static [u8]| Ok::<_, ()>(TunnelFrame { body: Some(Body::Data(Bytes::from_static(b))) });
        let empty = futures::stream::empty::<Result<TunnelFrame, ()>>();
        assert!(hub.opened(&told.id, |n| n == "n2", empty).is_none());
        let frames = futures::stream::iter(vec![frame(b"hello"), Ok(TunnelFrame { body: Some(Body::Eof(true)) })]);
        let mut outgoing = hub.opened(&told.id, |n| n == "n1", frames).unwrap();
        let mut tunnel = opening.await.unwrap().unwrap();
        tunnel.send(Bytes::from_static(b"hi")).await.unwrap();
        assert_eq!(outgoing.recv().await.unwrap().body, Some(Body::Data(Bytes::from_static(b"hi"))));
        assert_eq!(tunnel.recv().await, Ok(Received::Data(Bytes::from_static(b"hello"))));
        assert_eq!(tunnel.recv().await, Ok(Received::Eof));
        assert_eq!(tunnel.recv().await, Err(TunnelError::Broken));
        drop(agent);
        assert!(!hub.connected("n1"));
    }
}
