//! Bad beginnings are refused by name, and certificates are renewed in time:
//! the real program and the real TLS against a small gateway.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tonic::{Request, Response, Status, Streaming};
use triarch_agent::address::Address;
use triarch_agent::identity::{Identity, keep_renewed};
use triarch_agent::session::{Uplink, UplinkError};
use triarch_agent::uplink::GrpcUplink;
use triarch_env::{Env, TokioRuntime, Wall};
use triarch_pki::ca::{AltNames, Ca, Usage};
use triarch_pki::identity::Identity as Subject;
use triarch_pki::tls::ClientAuth;
use triarch_rpc::node::node_gateway_server::{NodeGateway, NodeGatewayServer};
use triarch_rpc::node::*;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// A gateway that renews certificates and does nothing else.
struct Renewing {
    ca: Arc<Ca>,
    env: Env,
    renewed: Arc<AtomicUsize>,
}

type Nothing<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl NodeGateway for Renewing {
    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented("join"))
    }
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let csr = request.into_inner().csr_der;
        let certificate = self.ca.sign_csr_as(&csr, &subject(), Usage::Client, self.env.wall(), YEAR);
        let certificate = certificate.map_err(|e| Status::internal(e.to_string()))?;
        self.renewed.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(RenewResponse { certificate_pem: certificate.into_bytes().into(), ..Default::default() }))
    }
    type SessionStream = Nothing<ControlMessage>;
    async fn session(&self, _: Request<Streaming<AgentMessage>>) -> Result<Response<Self::SessionStream>, Status> {
        Ok(Response::new(futures::stream::pending().boxed()))
    }
    type TunnelsStream = Nothing<TunnelOpen>;
    async fn tunnels(&self, _: Request<TunnelsRequest>) -> Result<Response<Self::TunnelsStream>, Status> {
        Err(Status::unimplemented("tunnels"))
    }
    type TunnelStream = Nothing<TunnelFrame>;
    async fn tunnel(&self, _: Request<Streaming<TunnelFrame>>) -> Result<Response<Self::TunnelStream>, Status> {
        Err(Status::unimplemented("tunnel"))
    }
}

fn env() -> Env {
    Env::new(TokioRuntime::current())
}

fn subject() -> Subject {
    Subject::new("system:node:n1", &["system:nodes"])
}

fn ca(name: &str) -> Arc<Ca> {
    triarch_pki::install_crypto();
    Arc::new(Ca::generate(name, env().wall()).unwrap())
}

/// Serves on a unix socket as a replica of the cluster whose authority is `ca`.
fn replica(dir: &Path, ca: &Arc<Ca>) -> (Address, Arc<AtomicUsize>) {
    let names = AltNames::parse(["localhost"]);
    let own = ca.issue(&Subject::new("replica", &[]), &names, Usage::Server, env().wall(), YEAR).unwrap();
    let tls = triarch_pki::tls::server(&own, ca.certificate_pem(), ClientAuth::Optional, &["h2"]).unwrap();
    let (acceptor, clients) = (tokio_rustls::TlsAcceptor::from(tls.config), tls.clients);
    let path = dir.join("replica.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let renewed = Arc::new(AtomicUsize::new(0));
    let (ca, count) = (ca.clone(), renewed.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, clients, ca, renewed) = (acceptor.clone(), clients.clone(), ca.clone(), count.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let refused = clients.verify(shown, env().wall()).map_err(|e| Status::unauthenticated(e.to_string()));
                let admit = move |request| refused.clone().map(|()| request);
                let service = NodeGatewayServer::with_interceptor(Renewing { ca, env: env(), renewed }, admit);
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ended = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
            });
        }
    });
    (Address::Unix(path), renewed)
}

/// A data directory as joining leaves it, with a certificate issued at `at`.
fn joined(dir: &Path, ca: &Ca, at: Wall, lifetime: Duration) {
    let pair = ca.issue(&subject(), &AltNames::default(), Usage::Client, at, lifetime).unwrap();
    std::fs::write(dir.join("node.crt"), &pair.certificate_pem).unwrap();
    std::fs::write(dir.join("node.key"), pair.key_pem.expose()).unwrap();
    std::fs::write(dir.join("ca.crt"), ca.certificate_pem()).unwrap();
    std::fs::write(dir.join("cluster.json"), r#"{"nodeName":"n1","clusterID":"c"}"#).unwrap();
}

fn ago(seconds: i64) -> Wall {
    Wall::from_secs(env().wall().secs() - seconds)
}

async fn session(dir: &Path, server: Address) -> Result<(), UplinkError> {
    let identity = Arc::new(Identity::load(dir, "n1").unwrap().unwrap());
    let uplink = GrpcUplink::new(identity, &[server], 1);
    uplink.session(0, "n1", futures::stream::pending().boxed()).await.map(drop)
}

fn agent(arguments: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_triarch-node")).args(arguments).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn a_missing_container_runtime_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let socket = dir.path().join("containerd.sock");
    let arguments = ["--server", "unix:///nowhere", "--token", "t", "--node-name", "n1"];
    let (data, socket) = (data.to_str().unwrap(), socket.to_str().unwrap());
    let (code, said) = agent(&[&arguments[..], &["--data-dir", data, "--cri", socket]].concat());
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(socket) && said.contains("systemctl start containerd"), "{said}");
    assert!(!said.contains('\u{1b}'), "colours in a pipe: {said:?}");
}

#[test]
fn a_taken_port_is_said_with_what_to_do_before_anything_is_joined() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let arguments = ["--server", "unix:///nowhere", "--token", "t", "--hollow", "1", "--metrics", &at];
    let (code, said) = agent(&[&arguments[..], &["--data-dir", data.to_str().unwrap()]].concat());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("--metrics: cannot listen on {at}")), "{said}");
    assert!(said.contains("stop what listens there, or choose another"), "{said}");
    assert!(!data.join("node.crt").exists());
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_name_before_anything_is_dialled() {
    let dir = tempfile::tempdir().unwrap();
    joined(dir.path(), &ca("a"), ago(7200), Duration::from_secs(3600));
    let arguments = ["--server", "unix:///nowhere", "--hollow", "1", "--data-dir", dir.path().to_str().unwrap()];
    std::fs::write(dir.path().join("cluster.json"), r#"{"nodeName":"hollow-*","clusterID":"c"}"#).unwrap();
    let (code, said) = agent(&arguments);
    assert!(code.is_some_and(|c| c != 0), "{said}");
    for part in ["node.crt", "expired at", "triarch token create --class node"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[tokio::test]
async fn a_certificate_that_expired_under_way_is_refused_by_name() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), ca("a"));
    let (server, _) = replica(dir.path(), &ca);
    joined(dir.path(), &ca, ago(7200), Duration::from_secs(3600));
    let said = session(dir.path(), server).await.unwrap_err().to_string();
    assert!(said.contains("refused this node's certificate because it has expired"), "{said}");
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused_by_name_from_either_side() {
    let (dir, ours, theirs) = (tempfile::tempdir().unwrap(), ca("a"), ca("b"));
    let (server, _) = replica(dir.path(), &ours);
    // The node trusts its own cluster and finds another.
    joined(dir.path(), &theirs, ago(0), YEAR);
    let said = session(dir.path(), server.clone()).await.unwrap_err().to_string();
    assert!(said.contains("the replica is of another cluster"), "{said}");
    // The node believes the replica, which does not believe the node.
    std::fs::write(dir.path().join("ca.crt"), ours.certificate_pem()).unwrap();
    let said = session(dir.path(), server.clone()).await.unwrap_err().to_string();
    assert!(said.contains("refused this node's certificate because it is of another cluster"), "{said}");
    joined(dir.path(), &ours, ago(0), YEAR);
    session(dir.path(), server).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_once_it_is_old_and_not_before() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), ca("a"));
    let (server, renewed) = replica(dir.path(), &ca);
    // Five sixths of its life are over.
    joined(dir.path(), &ca, ago(5 * 86_400), Duration::from_secs(6 * 86_400));
    let identity = Arc::new(Identity::load(dir.path(), "n1").unwrap().unwrap());
    let (_, ends) = identity.renewal().unwrap();
    let renewing = tokio::spawn(keep_renewed(env(), identity.clone(), vec![server]));
    while renewed.load(Ordering::SeqCst) == 0 || identity.renewal().unwrap().1 == ends {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What is kept is what is used, and a young certificate is left alone.
    let kept = Identity::load(dir.path(), "n1").unwrap().unwrap();
    assert_eq!(kept.renewal().unwrap(), identity.renewal().unwrap());
    assert!(kept.renewal().unwrap().0 > env().wall());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(renewed.load(Ordering::SeqCst), 1);
    renewing.abort();
}
