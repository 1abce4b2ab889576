//! Watches, upgrades and listeners.

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::*;
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use triarch_api::status::Status;
use triarch_apiserver::respond::{self, Body};
use triarch_apiserver::{ConnectRequest, Connector, Tls, bind, serve};
use triarch_mvcc::{Op, Txn};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Lines of a streamed body.
struct Lines(Response<Incoming>, Vec<u8>);

impl Lines {
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.1.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.1.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.0.body_mut().frame())
                .await
                .expect("an event in time")?;
            self.1.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }
}

fn seen(event: &Value) -> (String, String) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
}

#[tokio::test]
async fn a_watch_streams_over_both_versions_of_http_and_ends_with_the_server() {
    let f = fixture();
    f.post(MAPS, &config_map("a", "1")).await;
    let path =
        format!("{MAPS}?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let h1 = f.send(request(Method::GET, &path, &[], "")).await;
    assert_eq!(h1.headers()["content-type"], "application/json");
    let mut sender = f.h2().await;
    let h2 = sender.send_request(request(Method::GET, &format!("http://local{path}"), &[], "")).await.unwrap();
    assert_eq!(h2.version(), http::Version::HTTP_2);
    let (mut h1, mut h2) = (Lines(h1, Vec::new()), Lines(h2, Vec::new()));
    for lines in [&mut h1, &mut h2] {
        assert_eq!(seen(&lines.next().await.unwrap()), ("ADDED".into(), "a".into()));
        let bookmark = lines.next().await.unwrap();
        assert_eq!(
            (
                bookmark["type"].as_str(),
                bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"].as_str()
            ),
            (Some("BOOKMARK"), Some("true"))
        );
    }
    let (_, b) = f.post(MAPS, &config_map("b", "1")).await;
    f.json(request(Method::DELETE, &format!("{MAPS}/b"), &[], "")).await;
    for lines in [&mut h1, &mut h2] {
        let added = lines.next().await.unwrap();
        assert_eq!((seen(&added), &added["object"]), (("ADDED".into(), "b".into()), &b));
        let deleted = lines.next().await.unwrap();
        assert_eq!((seen(&deleted), &deleted["object"]["data"]), (("DELETED".into(), "b".into()), &b["data"]));
        assert_ne!(deleted["object"]["metadata"]["resourceVersion"], b["metadata"]["resourceVersion"]);
    }
    f.scope.cancel();
    assert!(h1.next().await.is_none() && h2.next().await.is_none());
}

#[tokio::test]
async fn a_watched_table_shows_its_columns_once() {
    let f = fixture();
    f.post(MAPS, &config_map("a", "1")).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let r = f.send(request(Method::GET, &format!("{MAPS}?watch=1&timeoutSeconds=1"), &accept, "")).await;
    f.post(MAPS, &config_map("b", "1")).await;
    let mut lines = Lines(r, Vec::new());
    let (first, second) = (lines.next().await.unwrap(), lines.next().await.unwrap());
    assert!(first["object"]["columnDefinitions"].is_array() && second["object"]["columnDefinitions"].is_null());
    assert_eq!(
        (&first["object"]["rows"][0]["cells"][0], &second["object"]["rows"][0]["cells"][0]),
        (&json!("a"), &json!("b"))
    );
    assert!(lines.next().await.is_none(), "timeoutSeconds ends it");
}

#[tokio::test]
async fn a_revision_that_is_gone_is_an_event_of_the_watch_and_a_slow_watcher_is_told() {
    let f = fixture();
    f.post(MAPS, &config_map("a", "1")).await;
    let slow = f.send(request(Method::GET, &format!("{MAPS}?watch=1&resourceVersion=1"), &[], "")).await;
    // More than the pipe takes: the watcher is not read, its cursor stays behind.
    let big = "x".repeat(100_000);
    for i in 0..20 {
        f.post(
            MAPS,
            &config_map(&format!("c{i}"), "1")
                .as_object()
                .map(|m| {
                    let mut m = m.clone();
                    m.insert("data".into(), json!({"k": big}));
                    Value::Object(m)
                })
                .unwrap(),
        )
        .await;
    }
    let head = f.registry.mvcc().revision();
    f.registry.db().commit(Txn { ops: vec![Op::Compact(head)], ..Txn::default() }).await.unwrap();
    let r = f.send(request(Method::GET, &format!("{MAPS}?watch=1&resourceVersion=1"), &[], "")).await;
    assert_eq!(r.status(), 200);
    let mut lines = Lines(r, Vec::new());
    let gone = lines.next().await.unwrap();
    assert_eq!(
        (gone["type"].as_str(), &gone["object"]["code"], gone["object"]["reason"].as_str()),
        (Some("ERROR"), &json!(410), Some("Expired"))
    );
    assert!(lines.next().await.is_none());
    // What the slow one had taken arrives, in order; what it had not is a 410 at the end, or nothing is missing.
    let (mut lines, mut names, mut last) = (Lines(slow, Vec::new()), Vec::new(), Value::Null);
    while names.len() < 20 {
        let event = lines.next().await.unwrap();
        if event["type"] == "ERROR" {
            last = event;
            break;
        }
        names.push(seen(&event).1);
    }
    assert_eq!(names, (0..names.len()).map(|i| format!("c{i}")).collect::<Vec<_>>());
    assert!(names.len() == 20 || last["object"]["code"] == 410);
}

/// Answers an upgrade with 101 and echoes; anything else with the request's tail.
struct Echo;

#[async_trait]
impl Connector for Echo {
    async fn connect(&self, request: ConnectRequest) -> Result<Response<Body>, Status> {
        let Some(upgrade) = request.upgrade else {
            return Ok(respond::text(
                200,
                format!("{} {} {} {}", request.name, request.subresource, request.rest, request.query.get("a")),
            ));
        };
        let protocol = request.headers["upgrade"].clone();
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.expect("the stream after 101"));
            let mut buf = [0; 5];
            io.read_exact(&mut buf).await.unwrap();
            io.write_all(&buf).await.unwrap();
            io.shutdown().await.unwrap();
        });
        let mut r = respond::response(101, "text/plain", respond::full(""));
        r.headers_mut().remove("content-type");
        r.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        r.headers_mut().insert("upgrade", protocol);
        Ok(r)
    }
}

#[tokio::test]
async fn an_upgrade_hands_the_connection_to_the_connector() {
    let mut p = parts();
    p.connector = Some(Arc::new(Echo));
    let f = start(p);
    let exec = "/api/v1/namespaces/default/pods/p/exec?command=x";
    let r = f.send(request(Method::POST, exec, &[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")], "")).await;
    assert_eq!((r.status().as_u16(), r.headers()["upgrade"].to_str().unwrap()), (101, "SPDY/3.1"));
    let mut io = TokioIo::new(hyper::upgrade::on(r).await.unwrap());
    io.write_all(b"hello").await.unwrap();
    let mut back = Vec::new();
    io.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"hello");
    let proxied =
        f.send(request(Method::GET, "/api/v1/namespaces/default/services/https:s:web/proxy/x%2Fy/?a=b", &[], "")).await;
    assert_eq!(body(proxied).await, "https:s:web proxy x%2Fy/ b");
    let refused = fixture().get("/api/v1/namespaces/default/pods/p/log").await;
    assert_eq!(refused.0, 503);
}

#[tokio::test]
async fn tls_offers_both_protocols_and_client_certificates_name_the_user() {
    use triarch_env::Wall;
    use triarch_pki::ca::{AltNames, Ca, Usage};
    use triarch_pki::identity::Identity;
    use triarch_pki::tls::{ClientAuth, client, server};
    let env = triarch_env::Env::new(triarch_env::TokioRuntime::current());
    let now = env.wall();
    let hour = Duration::from_secs(3600);
    let (ca, other) = (Ca::generate("ca", now).unwrap(), Ca::generate("other", now).unwrap());
    let served =
        ca.issue(&Identity::new("server", &[]), &AltNames::parse(["localhost"]), Usage::Server, now, hour).unwrap();
    let shown = ca.issue(&Identity::new("me", &[]), &AltNames::default(), Usage::Client, now, hour).unwrap();
    let client_of =
        |ca: &Ca, at| ca.issue(&Identity::new("me", &[]), &AltNames::default(), Usage::Client, at, hour).unwrap();
    let (foreign, expired) = (client_of(&other, now), client_of(&ca, Wall::from_secs(now.secs() - 3 * 3600)));
    let config = server(&served, ca.certificate_pem(), ClientAuth::Optional, &["h2", "http/1.1"]).unwrap();
    let f = fixture();
    let listener = bind("127.0.0.1:0".parse().unwrap(), true).unwrap();
    let address = listener.local_addr().unwrap();
    let shared = bind(address, true).expect("a second process may share the port");
    drop(shared);
    let serving = tokio::spawn(serve(f.server.clone(), listener, Some(Tls::new(config, env)), f.scope.clone()));
    for (cert, alpn, code) in [
        (Some(&shown), "h2", 200),
        (Some(&shown), "http/1.1", 200),
        (None, "http/1.1", 403),
        // What does not count is said in the API's own words, not by a broken connection.
        (Some(&foreign), "http/1.1", 401),
        (Some(&expired), "h2", 401),
    ] {
        let config = Arc::new(client(ca.certificate_pem(), cert, &[alpn]).unwrap());
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        let io = TokioIo::new(stream);
        let anonymous = [("authorization", "")];
        let answer = if alpn == "h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request(Method::GET, &format!("https://localhost{MAPS}"), &anonymous, "")).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request(Method::GET, MAPS, &anonymous, "")).await
        };
        assert_eq!(answer.map_or(0, |r| r.status().as_u16()), code, "{alpn}");
    }
    f.scope.cancel();
    tokio::time::timeout(Duration::from_secs(10), serving).await.expect("the listener leaves").unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
