//! The API over one in-memory store, on loopback, in plain HTTP, without
//! authentication: to try kubectl and other clients against.
//!
//! `cargo run -p triarch-apiserver --example local -- 127.0.0.1:8001`, then
//! `kubectl --server http://127.0.0.1:8001 get configmaps`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use parking_lot::Mutex;
use triarch_apiserver::audit::Audit;
use triarch_apiserver::{ApiServer, Check, Limits, Parts, VersionInfo, bind, serve};
use triarch_env::{Env, Scope, TokioRuntime};
use triarch_mvcc::LocalDb;
use triarch_registry::{AdmitAll, AlwaysAllow, Authenticator, AuthnError, Credentials, KindTable, Registry, UserInfo};

/// Everybody is an administrator here.
struct Everybody;

#[async_trait]
impl Authenticator for Everybody {
    async fn authenticate(&self, _: &Credentials) -> Result<Option<UserInfo>, AuthnError> {
        Ok(Some(UserInfo::new("admin", &["system:masters", "system:authenticated"])))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address: SocketAddr = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:8001".into())
        .parse()
        .context("usage: local [ADDRESS:PORT]")?;
    let env = Env::new(TokioRuntime::current());
    let kinds = KindTable::new(triarch_kinds::KINDS);
    let registry = Registry::new(LocalDb::new(triarch_mvcc::Limits::default()), env, kinds, Arc::new(AdmitAll));
    let scope = Scope::new();
    let server = ApiServer::new(Parts {
        registry,
        authenticator: Arc::new(Everybody),
        authorizer: Arc::new(AlwaysAllow),
        connector: None,
        checks: vec![Check::new("store", true, || Ok(()))],
        pages: Vec::new(),
        prometheus: Arc::new(Mutex::default()),
        audit: Audit::disabled(),
        version: VersionInfo::default(),
        limits: Limits::default(),
        address: address.to_string(),
        scope: scope.clone(),
    });
    let listener = bind(address, false).with_context(|| format!("cannot listen on {address}"))?;
    println!("serving on http://{address}");
    tokio::spawn({
        let scope = scope.clone();
        async move {
            let _ = tokio::signal::ctrl_c().await;
            scope.cancel();
        }
    });
    serve(server, listener, None, scope).await;
    Ok(())
}
