//! A server over one in-memory store, and clients that talk to it through pipes.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::Value;
use triarch_apiserver::audit::Audit;
use triarch_apiserver::{ApiServer, Check, Limits, Parts, Peer, VersionInfo, http};
use triarch_env::{Env, Scope, TokioRuntime};
use triarch_mvcc::LocalDb;
use triarch_registry::{
    AdmitAll, Authenticator, AuthnError, Authorizer, AuthzAttributes, Credentials, Decision, KindTable, Registry,
    UserInfo,
};

/// Bearer tokens are user names; `bad` is not one. A client certificate is the user `cert`.
pub struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, c: &Credentials) -> Result<Option<UserInfo>, AuthnError> {
        if !c.peer_certificates.is_empty() {
            return Ok(Some(UserInfo::new("cert", &[])));
        }
        if let Some(why) = &c.refused_certificate {
            return Err(AuthnError::Invalid(why.clone()));
        }
        match c.authorization.as_deref().and_then(|a| a.strip_prefix("Bearer ")) {
            None => Ok(None),
            Some("bad") => Err(AuthnError::Invalid("unknown token".into())),
            Some(name) => Ok(Some(UserInfo::new(name, &["system:authenticated"]))),
        }
    }
}

/// `admin` and `cert` may do everything, others may look at /version.
pub struct Names;

#[async_trait]
impl Authorizer for Names {
    async fn authorize(&self, user: &UserInfo, a: &AuthzAttributes) -> Decision {
        if matches!(user.name.as_str(), "admin" | "cert") || a.path == "/version" {
            Decision::Allow { reason: String::new() }
        } else {
            Decision::NoOpinion { reason: String::new() }
        }
    }
}

pub struct Fixture {
    pub server: Arc<ApiServer>,
    pub registry: Arc<Registry>,
    pub scope: Scope,
}

pub fn parts() -> Parts {
    let env = Env::new(TokioRuntime::current());
    let db = LocalDb::new(triarch_mvcc::Limits::default());
    let registry = Registry::new(db, env, KindTable::new(triarch_kinds::KINDS), Arc::new(AdmitAll));
    Parts {
        registry,
        authenticator: Arc::new(Tokens),
        authorizer: Arc::new(Names),
        connector: None,
        checks: vec![Check::new("store", true, || Ok(()))],
        pages: Vec::new(),
        prometheus: Arc::new(Mutex::default()),
        audit: Audit::disabled(),
        version: VersionInfo::default(),
        limits: Limits::default(),
        address: "127.0.0.1:6443".into(),
        scope: Scope::new(),
    }
}

pub fn start(parts: Parts) -> Fixture {
    let (registry, scope) = (parts.registry.clone(), parts.scope.clone());
    Fixture { server: ApiServer::new(parts), registry, scope }
}

pub fn fixture() -> Fixture {
    start(parts())
}

impl Fixture {
    fn pipe(&self) -> TokioIo<tokio::io::DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (server, scope) = (self.server.clone(), self.scope.clone());
        let peer = Peer { address: "192.0.2.1".into(), ..Peer::default() };
        tokio::spawn(async move {
            let _ = http(server, theirs, peer, &scope).await;
        });
        TokioIo::new(ours)
    }

    pub async fn h1(&self) -> http1::SendRequest<Full<Bytes>> {
        let (sender, connection) = http1::handshake(self.pipe()).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    pub async fn h2(&self) -> http2::SendRequest<Full<Bytes>> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), self.pipe()).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// One request of `admin` over HTTP/1.1 on a connection of its own.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let mut sender = self.h1().await;
        tokio::time::timeout(Duration::from_secs(20), sender.send_request(request)).await.unwrap().unwrap()
    }

    pub async fn json(&self, request: Request<Full<Bytes>>) -> (u16, Value) {
        let response = self.send(request).await;
        let code = response.status().as_u16();
        (code, body(response).await)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.json(request(Method::GET, path, &[], "")).await
    }

    pub async fn post(&self, path: &str, object: &Value) -> (u16, Value) {
        self.json(request(Method::POST, path, &[("content-type", "application/json")], object.to_string())).await
    }
}

pub async fn bytes(response: Response<Incoming>) -> Bytes {
    tokio::time::timeout(Duration::from_secs(20), response.into_body().collect()).await.unwrap().unwrap().to_bytes()
}

/// The body as JSON; text that is not JSON becomes a string.
pub async fn body(response: Response<Incoming>) -> Value {
    let bytes = bytes(response).await;
    serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
}

/// A request of `admin`, unless a header says otherwise.
pub fn request(method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut builder = Request::builder().method(method).uri(path).header("host", "local");
    if !headers.iter().any(|(k, _)| *k == "authorization") {
        builder = builder.header("authorization", "Bearer admin");
    }
    for (k, v) in headers.iter().filter(|(_, v)| !v.is_empty()) {
        builder = builder.header(*k, *v);
    }
    builder.body(Full::new(body.into())).unwrap()
}

pub fn config_map(name: &str, value: &str) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"v": value}}, "data": {"k": value}})
}
