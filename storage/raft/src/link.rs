//! One long-lived stream to one peer on one lane, dialled when it is wanted and
//! again after it broke. Answers find their requests by a route number.
//!
//! ```text
//!   caller ── send ──► stream ──► peer
//!   caller ◄─ route ── reader ◄── peer
//! ```
//!
//! Invariant: when the stream breaks, every route of it ends; a caller never
//! waits for an answer of a stream that is gone. Dialling happens in a task of
//! the link's own, never in the caller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};
use triarch_env::{Env, Mono, Scope};

use crate::codec;
use crate::config::Timers;
use crate::counters::{Counters, add};
use crate::transport::{Lane, Message, Peer, PeerError, PeerStream, SharedTransport};

/// Answers one route may hold before its reader takes them.
const ROUTE_DEPTH: usize = 1024;
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// An answer that says which request it belongs to.
pub(crate) trait Routed: DeserializeOwned + Send + 'static {
    /// Whether a request has one answer at most. One that was given up, or that
    /// turned out to need none, is then not waited for.
    const ONCE: bool;

    fn route(&self) -> u64;
}

impl Routed for crate::wire::Appended {
    const ONCE: bool = false;

    fn route(&self) -> u64 {
        self.session
    }
}

impl Routed for crate::wire::Forwarded {
    const ONCE: bool = true;

    fn route(&self) -> u64 {
        self.batch
    }
}

/// An open stream.
pub(crate) struct Conn<T> {
    tx: mpsc::Sender<Message>,
    /// `None` once the stream is broken.
    routes: Mutex<Option<BTreeMap<u64, mpsc::Sender<T>>>>,
    sent: AtomicU64,
    answered: AtomicU64,
}

impl<T: Routed> Conn<T> {
    /// Starts a route; `None` when the stream is broken.
    pub fn route(self: &Arc<Self>, id: u64) -> Option<Route<T>> {
        let (tx, rx) = mpsc::channel(ROUTE_DEPTH);
        self.routes.lock().as_mut()?.insert(id, tx);
        Some(Route { conn: self.clone(), id, rx, once: T::ONCE })
    }

    /// Requests of an exchange that was given up will not be answered.
    pub fn forgive(&self) {
        self.answered.store(self.sent.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Room for one request; `Err` when the stream is broken.
    pub async fn reserve(&self) -> Result<Room<'_>, ()> {
        let permit = self.tx.reserve().await.map_err(|_| ())?;
        Ok(Room { permit, sent: &self.sent })
    }

    /// Sends one request that will be answered once; `Err` when the stream is broken.
    pub async fn send(&self, message: Message) -> Result<(), ()> {
        self.tx.send(message).await.map_err(|_| ())?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Room for one request.
pub(crate) struct Room<'a> {
    permit: mpsc::Permit<'a, Message>,
    sent: &'a AtomicU64,
}

impl Room<'_> {
    /// Sends one request; `answered` when an answer is to come.
    pub fn send(self, message: Message, answered: bool) {
        self.permit.send(message);
        self.sent.fetch_add(u64::from(answered), Ordering::Relaxed);
    }
}

/// The answers of one route.
pub(crate) struct Route<T> {
    pub conn: Arc<Conn<T>>,
    id: u64,
    once: bool,
    pub rx: mpsc::Receiver<T>,
}

impl<T> Drop for Route<T> {
    fn drop(&mut self) {
        let open = self.conn.routes.lock().as_mut().is_some_and(|routes| routes.remove(&self.id).is_some());
        if open && self.once {
            self.conn.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

enum State<T> {
    /// Nobody asked for it since it broke.
    Idle,
    /// A task is at it.
    Dialling,
    Open(Arc<Conn<T>>),
}

struct Inner<T> {
    env: Env,
    scope: Scope,
    transport: SharedTransport,
    peer: Peer,
    lane: Lane,
    timers: Timers,
    counters: Arc<Counters>,
    state: Mutex<State<T>>,
    failed: AtomicU64,
    changed: Notify,
    last_error: Mutex<String>,
}

/// A handle on the stream; cheap to clone.
pub(crate) struct Link<T>(Arc<Inner<T>>);

impl<T> Clone for Link<T> {
    fn clone(&self) -> Self {
        Link(self.0.clone())
    }
}

impl<T: Routed> Link<T> {
    pub fn new(
        env: Env,
        scope: Scope,
        transport: SharedTransport,
        peer: Peer,
        lane: Lane,
        timers: Timers,
        counters: Arc<Counters>,
    ) -> Link<T> {
        Link(Arc::new(Inner {
            env,
            scope,
            transport,
            peer,
            lane,
            timers,
            counters,
            state: Mutex::new(State::Idle),
            failed: AtomicU64::new(0),
            changed: Notify::new(),
            last_error: Mutex::new(String::new()),
        }))
    }

    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// The open stream. Dials when there is none and waits for it until an
    /// attempt fails or `wait` is over.
    pub async fn conn(&self, wait: Duration) -> Result<Arc<Conn<T>>, PeerError> {
        let failed = self.0.failed.load(Ordering::Acquire);
        let waited = self.0.env.timeout(wait, async {
            loop {
                let changed = self.0.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                if let Some(conn) = self.want() {
                    return Ok(conn);
                }
                if self.0.failed.load(Ordering::Acquire) != failed {
                    return Err(self.unreachable());
                }
                changed.await;
            }
        });
        // The common case needs no timer.
        match self.want() {
            Some(conn) => Ok(conn),
            None => waited.await.unwrap_or_else(|_| Err(self.unreachable())),
        }
    }

    fn unreachable(&self) -> PeerError {
        PeerError::Unreachable(self.0.peer.id, self.0.last_error.lock().clone())
    }

    /// The open stream, or `None` after seeing to it that it is dialled.
    fn want(&self) -> Option<Arc<Conn<T>>> {
        let mut state = self.0.state.lock();
        match &*state {
            State::Open(conn) => return Some(conn.clone()),
            State::Dialling => return None,
            State::Idle => *state = State::Dialling,
        }
        drop(state);
        let this = self.clone();
        self.0.env.spawn_in(&self.0.scope, "peer link", async move { this.run().await });
        None
    }

    /// Dials until it is open, serves it until it breaks.
    async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        let inner = &self.0;
        // Given up after a while: the next caller starts anew.
        for _ in 0..8 {
            let opened = inner.env.timeout(inner.timers.connect, inner.transport.open(&inner.peer, inner.lane)).await;
            let error = match opened {
                Ok(Ok(stream)) => {
                    self.serve(stream).await;
                    *inner.state.lock() = State::Idle;
                    add(&inner.counters.streams_broken, 1);
                    *inner.last_error.lock() = "the stream broke".into();
                    inner.failed.fetch_add(1, Ordering::Release);
                    inner.changed.notify_waiters();
                    return;
                }
                Ok(Err(e)) => e.to_string(),
                Err(_) => format!("no connection within {:?}", inner.timers.connect),
            };
            tracing::debug!(peer = inner.peer.id, lane = ?inner.lane, error, "cannot open a stream");
            *inner.last_error.lock() = error;
            inner.failed.fetch_add(1, Ordering::Release);
            inner.changed.notify_waiters();
            inner.env.sleep(inner.env.jitter(backoff, 20)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        *inner.state.lock() = State::Idle;
    }

    async fn serve(&self, stream: PeerStream) {
        let inner = &self.0;
        let PeerStream { tx, mut rx } = stream;
        let conn = Arc::new(Conn {
            tx,
            routes: Mutex::new(Some(BTreeMap::new())),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        });
        *inner.state.lock() = State::Open(conn.clone());
        inner.changed.notify_waiters();
        let mut watch = Stall { at: inner.env.mono(), sent: 0, answered: 0 };
        let mut tick = inner.env.sleep(inner.timers.stream_stall / 2).fuse();
        loop {
            let message = futures::select_biased! {
                message = rx.recv().fuse() => message,
                () = tick => {
                    tick = inner.env.sleep(inner.timers.stream_stall / 2).fuse();
                    if watch.stalled(&conn, inner.env.mono(), inner.timers.stream_stall) {
                        tracing::warn!(peer = inner.peer.id, lane = ?inner.lane, "no answer from the peer; breaking the stream off");
                        break;
                    }
                    continue;
                }
            };
            let Some(message) = message else { break };
            conn.answered.fetch_add(1, Ordering::Relaxed);
            let answer: T = match codec::decode("an answer", &message.body) {
                Ok(answer) => answer,
                Err(e) => {
                    tracing::warn!(peer = inner.peer.id, error = %e, "breaking the stream off");
                    break;
                }
            };
            let route = conn.routes.lock().as_mut().and_then(|routes| match T::ONCE {
                true => routes.remove(&answer.route()),
                false => routes.get(&answer.route()).cloned(),
            });
            // A route that is gone has lost interest; one that is full has stopped reading.
            if let Some(route) = route
                && matches!(route.try_send(answer), Err(mpsc::error::TrySendError::Full(_)))
            {
                break;
            }
        }
        *conn.routes.lock() = None;
    }
}

/// Notices that requests stay unanswered.
struct Stall {
    at: Mono,
    sent: u64,
    answered: u64,
}

impl Stall {
    fn stalled<T>(&mut self, conn: &Conn<T>, now: Mono, limit: Duration) -> bool {
        let (sent, answered) = (conn.sent.load(Ordering::Relaxed), conn.answered.load(Ordering::Relaxed));
        // A session that ended early leaves requests without answers; only a
        // stream that is used and silent counts.
        let busy = sent > self.sent || sent > answered;
        if answered != self.answered || !busy {
            *self = Stall { at: now, sent, answered };
            return false;
        }
        self.sent = sent;
        now.since(self.at) >= limit
    }
}
