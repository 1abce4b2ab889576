//! Listeners: TCP with or without TLS, HTTP/1.1 and h2 by ALPN or by preface.
//!
//! A listener leaves at once when its scope ends; connections finish what they
//! are doing inside a bound.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::conn::auto::HttpServerConnExec;
use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use triarch_env::{Env, Scope};
use triarch_pki::tls::ServerTls;

use crate::bounds::{Bounds, Refusal};
use crate::respond::Body;
use crate::server::{ApiServer, Peer};
use crate::together::Together;
use crate::turn::Held;

/// What answers the requests of a listener: the API, or a process that serves
/// more than the API on the same port.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request; never fails.
    fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> BoxFuture<'static, Response<Body>>;

    /// Whether the requests of a connection are served in its own task instead
    /// of one each. That is for many small requests that mostly wait: what
    /// becomes ready together is answered with one write. It is not for
    /// requests that work for long, which would hold up their neighbours.
    fn together(&self) -> bool {
        false
    }

    /// What its connections may cost.
    fn bounds(&self) -> Bounds {
        Bounds::default()
    }
}

impl Handler for ApiServer {
    fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> BoxFuture<'static, Response<Body>> {
        ApiServer::handle(&self, request, &peer)
    }
}

/// A socket that connections come from.
trait Accept: Send {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// A connection, and who is at its other end, for logs and audit.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, String)>> + Send;
    /// Those that wait to be accepted when nobody accepts any more, asked of the
    /// kernel itself: the runtime may not have heard of them yet. Closes the socket.
    fn leave(self) -> Vec<(Self::Stream, String)>;
}

/// Takes connections until none waits; at most as many as can wait.
fn waiting<S>(mut accept: impl FnMut() -> io::Result<S>) -> Vec<S> {
    let mut all = Vec::new();
    while all.len() < BACKLOG as usize {
        match accept() {
            Ok(stream) => all.push(stream),
            // It was gone again before it was accepted.
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
            Err(_) => break,
        }
    }
    all
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))?;
    let alive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    socket.set_tcp_keepalive(&alive)
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn accept(&self) -> io::Result<(TcpStream, String)> {
        let (stream, from) = TcpListener::accept(self).await?;
        prepare(&stream)?;
        Ok((stream, from.ip().to_string()))
    }

    fn leave(self) -> Vec<(TcpStream, String)> {
        let Ok(socket) = self.into_std() else { return Vec::new() };
        let adopt = |(stream, from): (std::net::TcpStream, SocketAddr)| {
            stream.set_nonblocking(true)?;
            let stream = TcpStream::from_std(stream)?;
            prepare(&stream)?;
            io::Result::Ok((stream, from.ip().to_string()))
        };
        waiting(|| socket.accept()).into_iter().filter_map(|s| adopt(s).ok()).collect()
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    async fn accept(&self) -> io::Result<(UnixStream, String)> {
        Ok((UnixListener::accept(self).await?.0, "unix".to_owned()))
    }

    fn leave(self) -> Vec<(UnixStream, String)> {
        let Ok(socket) = self.into_std() else { return Vec::new() };
        let adopt = |stream: std::os::unix::net::UnixStream| {
            stream.set_nonblocking(true)?;
            io::Result::Ok((UnixStream::from_std(stream)?, "unix".to_owned()))
        };
        waiting(|| socket.accept()).into_iter().filter_map(|(s, _)| adopt(s).ok()).collect()
    }
}

/// What connections get to finish after the scope has ended.
const DRAIN: Duration = Duration::from_secs(5);
/// Who has only just connected then gets this long to ask, and its answer: a
/// client does not repeat a request on a connection that never answered one.
const FIRST: Duration = Duration::from_secs(1);
const H2_STREAM_WINDOW: u32 = 1024 * 1024;
const H2_CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const H2_STREAMS: u32 = 1_000;
/// Requests of one connection that were given up before they were looked at. Beyond it the
/// connection is closed, as one that only costs work; a peer that was cut off has some.
const H2_GIVEN_UP: usize = 256;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A TLS configuration that can be replaced while listeners run (renewed certificates).
#[derive(Clone)]
pub struct Tls {
    current: Arc<RwLock<ServerTls>>,
    /// The clock that certificates are judged by.
    env: Env,
}

impl Tls {
    /// The configuration needs ALPN `h2` and `http/1.1`.
    pub fn new(tls: ServerTls, env: Env) -> Tls {
        Tls { current: Arc::new(RwLock::new(tls)), env }
    }

    pub fn replace(&self, tls: ServerTls) {
        *self.current.write() = tls;
    }

    fn current(&self) -> ServerTls {
        self.current.read().clone()
    }
}

/// A listening socket. With `shared`, several processes may listen on the same
/// port (SO_REUSEPORT) and the kernel spreads connections over them.
pub fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the scope ends, then drains. The socket is closed first, so
/// that a shared port sends new connections elsewhere at once.
pub async fn serve(handler: Arc<dyn Handler>, listener: TcpListener, tls: Option<Tls>, scope: Scope) {
    accept_from(handler, listener, tls, scope).await;
}

/// The same on a unix socket.
pub async fn serve_unix(handler: Arc<dyn Handler>, listener: UnixListener, tls: Option<Tls>, scope: Scope) {
    accept_from(handler, listener, tls, scope).await;
}

async fn accept_from<L: Accept>(handler: Arc<dyn Handler>, listener: L, tls: Option<Tls>, scope: Scope) {
    let (open, bounds) = (Arc::new(AtomicUsize::new(0)), handler.bounds());
    let admit = |stream: L::Stream, from: String| {
        let full = open.load(Ordering::Relaxed) >= bounds.connections;
        let news = bounds.seen.is_news(full);
        if full {
            bounds.seen.refuse(Refusal::Limit);
            if news {
                tracing::warn!(%from, limit = bounds.connections, "too many connections: refused, as are those to come");
            }
            return;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (handler, tls, scope, open, bounds) =
            (handler.clone(), tls.clone(), scope.clone(), open.clone(), bounds.clone());
        tokio::spawn(async move {
            let counted = bounds.seen.opened();
            if let Err(e) = connection(handler, stream, &from, tls, &scope, &bounds).await {
                tracing::debug!(%from, error = %e, "connection ended");
            }
            drop(counted);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    };
    loop {
        let accepted = match scope.run(listener.accept()).await {
            None => break,
            Some(accepted) => accepted,
        };
        match accepted {
            Ok((stream, from)) => admit(stream, from),
            Err(e) => {
                // Out of descriptors, or a connection that was gone already.
                tracing::warn!(error = %e, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    // Connections that wait to be accepted would be reset with the socket.
    listener.leave().into_iter().for_each(|(stream, from)| admit(stream, from));
    let deadline = tokio::time::Instant::now() + DRAIN;
    while open.load(Ordering::Relaxed) > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

type HandlerFuture =
    futures::future::Map<BoxFuture<'static, Response<Body>>, fn(Response<Body>) -> Result<Response<Body>, Infallible>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn connection<S>(
    handler: Arc<dyn Handler>,
    stream: S,
    from: &str,
    tls: Option<Tls>,
    scope: &Scope,
    bounds: &Bounds,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut peer = Peer { address: from.to_owned(), ..Peer::default() };
    match tls {
        None => http(handler, Bounded::new(stream, bounds.clone()), peer, scope).await,
        Some(tls) => {
            let ServerTls { config, clients } = tls.current();
            let agreed = tokio::time::timeout(bounds.handshake, TlsAcceptor::from(config).accept(stream)).await;
            let stream = match agreed {
                Ok(Ok(stream)) => stream,
                other => {
                    bounds.seen.refuse(Refusal::Handshake);
                    return Err(other.map_or_else(Failure::from, |r| r.map_or_else(Failure::from, |_| "agreed".into())));
                }
            };
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            match clients.verify(shown, tls.env.wall()) {
                Ok(()) => peer.certificates = Arc::new(shown.iter().map(|c| c.to_vec()).collect()),
                Err(e) => peer.refused = Some(e.to_string().into()),
            }
            http(handler, Bounded::new(stream, bounds.clone()), peer, scope).await
        }
    }
}

/// Speaks HTTP on a stream of any kind (tests use pipes).
pub async fn http(
    handler: Arc<dyn Handler>,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    scope: &Scope,
) -> Result<(), Failure> {
    let socket = Held::new(io);
    let turns = socket.turns();
    if handler.together() {
        let tasks = Together::default();
        let connection = speak(tasks.clone(), false, handler, socket, peer, scope);
        return turns.drive(tasks.drive(connection)).await;
    }
    turns.drive(speak(TokioExecutor::new(), true, handler, socket, peer, scope)).await
}

async fn speak<E>(
    executor: E,
    dated: bool,
    handler: Arc<dyn Handler>,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    scope: &Scope,
) -> Result<(), Failure>
where
    E: HttpServerConnExec<HandlerFuture, Body> + Clone + Send + Sync + 'static,
{
    let bounds = handler.bounds();
    let mut builder = auto::Builder::new(executor);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(bounds.head).max_headers(128).half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_concurrent_streams(H2_STREAMS)
        .max_pending_accept_reset_streams(H2_GIVEN_UP)
        .max_header_list_size(64 * 1024)
        .auto_date_header(dated)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let asked = Arc::new((AtomicBool::new(false), Notify::new()));
    let first = asked.clone();
    let service = service_fn(move |request| -> HandlerFuture {
        if !first.0.swap(true, Ordering::Relaxed) {
            first.1.notify_one();
        }
        handler.clone().handle(request, peer.clone()).map(Ok as fn(_) -> _)
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    // Before the protocol is known, and before its first request, nothing else has a bound.
    let opened = tokio::time::Instant::now();
    let mut head = std::pin::pin!(tokio::time::sleep(bounds.head));
    let mut waiting = true;
    loop {
        tokio::select! {
            biased;
            done = connection.as_mut() => return done,
            () = scope.cancelled() => break,
            () = head.as_mut(), if waiting => {
                waiting = false;
                if !asked.0.load(Ordering::Relaxed) {
                    bounds.seen.refuse(Refusal::Head);
                    return Err("no request came in time".into());
                }
            }
        }
    }
    tokio::select! {
        biased;
        done = connection.as_mut() => return done,
        () = asked.1.notified() => {}
        () = tokio::time::sleep_until(opened + FIRST) => {}
    }
    connection.as_mut().graceful_shutdown();
    match tokio::time::timeout(DRAIN, connection).await {
        Ok(done) => done,
        Err(_) => Ok(()),
    }
}

/// A stream whose writes may not stall for ever: a client that stops reading
/// is disconnected, and everything that waits for it is freed.
struct Bounded<S> {
    inner: S,
    stalled: Option<Pin<Box<Sleep>>>,
    /// It has been given up; whoever tries again is told so.
    over: bool,
    bounds: Bounds,
}

impl<S> Bounded<S> {
    fn new(inner: S, bounds: Bounds) -> Bounded<S> {
        Bounded { inner, stalled: None, over: false, bounds }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let limit = self.bounds.stalled;
        let sleep = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => {
                if !std::mem::replace(&mut self.over, true) {
                    self.bounds.seen.refuse(Refusal::Stalled);
                }
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watch(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.watch(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
