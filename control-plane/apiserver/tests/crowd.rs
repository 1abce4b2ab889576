//! Clients that are slow, silent or many: each holds what its bound says and no
//! more, it is counted, and nobody who writes waits for them.

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use triarch_apiserver::{ApiServer, Body, Bounds, Connections, Handler, Limits, Peer, Refusal, Tls, bind, serve};
use triarch_pki::ca::{AltNames, Ca, Usage};
use triarch_pki::identity::Identity;
use triarch_pki::tls::{ClientAuth, server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SOON: Duration = Duration::from_millis(150);
const LATE: Duration = Duration::from_secs(20);

/// The API with bounds of its own.
struct Narrow(Arc<ApiServer>, Bounds);

impl Handler for Narrow {
    fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> BoxFuture<'static, Response<Body>> {
        ApiServer::handle(&self.0, request, &peer)
    }

    fn bounds(&self) -> Bounds {
        self.1.clone()
    }
}

fn narrow() -> Bounds {
    Bounds { connections: 100, handshake: SOON, head: SOON, stalled: SOON, seen: Connections::new("test") }
}

/// Listens on loopback until the test ends.
async fn listen(f: &Fixture, bounds: Bounds, tls: Option<Tls>) -> SocketAddr {
    let listener = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(Arc::new(Narrow(f.server.clone(), bounds)), listener, tls, f.scope.clone()));
    address
}

/// Waits until the server has closed the connection; what it had sent.
async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut sent = Vec::new();
    let done = tokio::time::timeout(LATE, stream.read_to_end(&mut sent)).await;
    // An end or a reset: both are a close.
    done.expect("the server closes it").map_or(Vec::new(), |_| sent)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}: not in 20 s");
}

fn tls() -> Tls {
    let env = triarch_env::Env::new(triarch_env::TokioRuntime::current());
    let (now, hour) = (env.wall(), Duration::from_secs(3600));
    let ca = Ca::generate("ca", now).unwrap();
    let names = AltNames::parse(["localhost"]);
    let served = ca.issue(&Identity::new("server", &[]), &names, Usage::Server, now, hour).unwrap();
    let config = server(&served, ca.certificate_pem(), ClientAuth::Optional, &["h2", "http/1.1"]).unwrap();
    Tls::new(config, env)
}

#[tokio::test]
async fn a_handshake_that_is_never_finished_is_given_up_and_counted() {
    let f = fixture();
    let bounds = narrow();
    let address = listen(&f, bounds.clone(), Some(tls())).await;
    for begun in [&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        closed(stream).await;
    }
    until("three are counted", || bounds.seen.refused(Refusal::Handshake) == 3).await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_however_it_begins() {
    let f = fixture();
    let bounds = narrow();
    let address = listen(&f, bounds.clone(), None).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let begun: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"P".to_vec(),
        b"GET /version HT".to_vec(),
        b"GET /version HTTP/1.1\r\nhost: a\r\nx-slow: ".to_vec(),
        preface[..10].to_vec(),
        preface.to_vec(),
        [&preface[..], &settings].concat(),
    ];
    for (n, bytes) in begun.iter().enumerate() {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        closed(stream).await;
        // HTTP/1.1's own bound on heads is not counted by us.
        println!("{n}: {} refused", bounds.seen.refused(Refusal::Head));
    }
    assert!(bounds.seen.refused(Refusal::Head) >= 5, "{}", bounds.seen.refused(Refusal::Head));
    // Who has asked something may be silent for longer.
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        TokioIo::new(TcpStream::connect(address).await.unwrap()),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    for _ in 0..2 {
        let asked = sender.send_request(request(Method::GET, "http://local/version", &[], "")).await.unwrap();
        assert_eq!(asked.status(), 200);
        tokio::time::sleep(SOON * 3).await;
    }
}

#[tokio::test]
async fn more_connections_than_the_limit_are_closed_and_counted_until_there_is_room() {
    let f = fixture();
    let bounds = Bounds { connections: 3, head: LATE, ..narrow() };
    let address = listen(&f, bounds.clone(), None).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(TcpStream::connect(address).await.unwrap()))
                .await
                .unwrap();
        let driver = tokio::spawn(connection);
        assert_eq!(sender.send_request(request(Method::GET, "/version", &[], "")).await.unwrap().status(), 200);
        held.push((sender, driver));
    }
    for _ in 0..5 {
        assert_eq!(closed(TcpStream::connect(address).await.unwrap()).await, b"");
    }
    assert_eq!(bounds.seen.refused(Refusal::Limit), 5);
    let (sender, driver) = held.pop().unwrap();
    drop(sender);
    driver.abort();
    for attempt in 0.. {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        match sender.send_request(request(Method::GET, "/version", &[], "")).await {
            Ok(r) => {
                assert_eq!(r.status(), 200);
                break;
            }
            Err(_) if attempt < 1000 => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(e) => panic!("there is room again: {e}"),
        }
    }
}

/// A POST whose body sends `first` and then nothing.
fn endless(first: &'static [u8]) -> Request<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>> {
    use futures::StreamExt;
    let body = futures::stream::iter([Ok(Frame::data(Bytes::from_static(first)))]).chain(futures::stream::pending());
    let parts = request(Method::POST, MAPS, &[("content-type", "application/json")], "").into_parts().0;
    Request::from_parts(parts, StreamBody::new(body).boxed_unsync())
}

#[tokio::test]
async fn bodies_that_never_end_hold_no_place_among_the_writers_and_are_told_so() {
    let mut p = parts();
    p.limits = Limits { inflight_mutating: 1, request_timeout: Duration::from_secs(2), ..Limits::default() };
    let f = start(p);
    let slow: Vec<_> = (0..50)
        .map(|_| {
            let (server, peer) = (f.server.clone(), Peer::default());
            tokio::spawn(
                async move { ApiServer::handle(&server, endless(b"{\"metadata\":").map(no_error), &peer).await },
            )
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for n in 0..20 {
        let (code, v) = f.post(MAPS, &config_map(&format!("c{n}"), "1")).await;
        assert_eq!(code, 201, "{v}");
    }
    for answer in slow {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 504);
        let status: serde_json::Value =
            serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(status["message"], json!("Timeout: request did not complete within the allotted time (2s)"));
    }
}

fn no_error<B>(body: B) -> http_body_util::combinators::MapErr<B, fn(Infallible) -> std::io::Error>
where
    B: http_body::Body<Error = Infallible>,
{
    body.map_err((|never| match never {}) as fn(Infallible) -> std::io::Error)
}

#[tokio::test]
async fn bodies_that_are_too_much_together_are_told_to_come_back() {
    let mut p = parts();
    p.limits = Limits { bodies: 64 * 1024, ..Limits::default() };
    let prometheus = p.prometheus.clone();
    let f = start(p);
    let part: &'static [u8] = vec![b' '; 50_000].leak();
    let (server, peer) = (f.server.clone(), Peer::default());
    let slow = tokio::spawn(async move { ApiServer::handle(&server, endless(part).map(no_error), &peer).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let large = request(Method::POST, MAPS, &[("content-type", "application/json")], vec![b' '; 30_000]);
    let r = f.send(large).await;
    assert_eq!((r.status().as_u16(), r.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    let status = body(r).await;
    assert_eq!((&status["reason"], &status["code"]), (&json!("TooManyRequests"), &json!(429)), "{status}");
    assert_eq!(f.post(MAPS, &config_map("small", "1")).await.0, 201);
    slow.abort();
    let _ended = slow.await;
    let again = json!({"metadata": {"name": "large"}, "data": {"k": "x".repeat(30_000)}});
    assert_eq!(f.post(MAPS, &again).await.0, 201, "what was held is given back");
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &prometheus.lock()).unwrap();
    assert!(text.contains("apiserver_dropped_requests_total{request_kind=\"body\"} 1"), "{text}");
}

#[tokio::test]
async fn watches_beyond_the_limit_are_told_to_come_back_and_those_that_are_open_go_on() {
    let mut p = parts();
    p.limits = Limits { long_running: 10, ..Limits::default() };
    let f = start(p);
    let watch = || request(Method::GET, &format!("http://local{MAPS}?watch=1"), &[], "");
    let mut sender = f.h2().await;
    let mut open = Vec::new();
    for _ in 0..10 {
        let r = sender.send_request(watch()).await.unwrap();
        assert_eq!(r.status(), 200);
        open.push(r.into_body());
    }
    let refused = sender.send_request(watch()).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(body(refused).await["reason"], json!("TooManyRequests"));
    assert_eq!(f.post(MAPS, &config_map("a", "1")).await.0, 201);
    for body in &mut open {
        let event = tokio::time::timeout(LATE, body.frame()).await.unwrap().unwrap().unwrap().into_data().unwrap();
        assert!(event.starts_with(b"{\"type\":\"ADDED\""), "{event:?}");
    }
    drop(open.pop());
    for _ in 0..1000 {
        if sender.send_request(watch()).await.unwrap().status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("a watch that has ended leaves its place");
}

#[tokio::test]
async fn watchers_that_never_read_hold_up_no_writer_and_are_dropped() {
    let f = fixture();
    let bounds = Bounds { head: LATE, ..narrow() };
    let address = listen(&f, bounds.clone(), None).await;
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        socket2::SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
        let ask = format!("GET {MAPS}?watch=1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer admin\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        deaf.push(stream);
    }
    for n in 0..100 {
        let big = json!({"metadata": {"name": format!("c{n}")}, "data": {"k": "x".repeat(100_000)}});
        let made = tokio::time::timeout(LATE, f.post(MAPS, &big)).await.expect("a writer does not wait");
        assert_eq!(made.0, 201);
    }
    until("all are dropped", || bounds.seen.refused(Refusal::Stalled) == 20).await;
}

/// The issue's 10,000 connections with 100 watches each, in small.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_watchers_is_served_up_to_the_limit_while_writes_go_on() {
    const CONNECTIONS: usize = 100;
    const WATCHES: usize = 20;
    let mut p = parts();
    p.limits = Limits { long_running: 1_500, ..Limits::default() };
    let f = start(p);
    let bounds = Bounds { connections: 1_000, head: LATE, stalled: LATE, ..narrow() };
    let address = listen(&f, bounds, None).await;
    let (mut open, mut refused) = (Vec::new(), 0);
    for _ in 0..CONNECTIONS {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        for n in 0..WATCHES {
            let path = format!("http://local{MAPS}?watch=1&fieldSelector=metadata.name%3Dw{n}");
            let r = sender.send_request(request(Method::GET, &path, &[], "")).await.unwrap();
            match r.status().as_u16() {
                200 => open.push((n, r.into_body(), sender.clone())),
                429 => refused += 1,
                other => panic!("{other}"),
            }
        }
    }
    assert_eq!((open.len(), refused), (1_500, CONNECTIONS * WATCHES - 1_500));
    for n in 0..WATCHES {
        assert_eq!(f.post(MAPS, &config_map(&format!("w{n}"), "1")).await.0, 201);
    }
    for (n, body, _) in &mut open {
        let event = tokio::time::timeout(LATE, body.frame()).await.unwrap().unwrap().unwrap().into_data().unwrap();
        let event: serde_json::Value = serde_json::from_slice(&event).unwrap();
        assert_eq!(event["object"]["metadata"]["name"], json!(format!("w{n}")));
    }
}

/// The kernel completes connections that nobody has accepted yet: closing the
/// socket would reset them, with the request that is on its way.
#[tokio::test]
async fn who_had_connected_before_the_listener_stopped_is_answered() {
    let f = fixture();
    let listener = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let address = listener.local_addr().unwrap();
    let mut early: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        early.push(TcpStream::connect(address).await.unwrap());
    }
    let scope = f.scope.child();
    scope.cancel();
    let serving = tokio::spawn(serve(Arc::new(Narrow(f.server.clone(), narrow())), listener, None, scope));
    for mut stream in early {
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let answer = String::from_utf8(closed(stream).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    serving.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn who_connected_since_the_runtime_last_looked_is_answered_as_well() {
    let f = fixture();
    let listener = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let address = listener.local_addr().unwrap();
    let scope = f.scope.child();
    let serving = tokio::spawn(serve(Arc::new(Narrow(f.server.clone(), narrow())), listener, None, scope.clone()));
    tokio::time::sleep(Duration::from_millis(20)).await;
    // One thread: until this task waits, the runtime hears of nothing.
    let early: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    scope.cancel();
    for stream in early {
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream).unwrap();
        stream.write_all(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let answer = String::from_utf8(closed(stream).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    serving.await.unwrap();
}
