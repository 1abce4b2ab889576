//! The same promises over gRPC on loopback.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{key, put, revision};
use futures::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use triarch_env::{Env, TokioRuntime, Wall};
use triarch_mvcc::Db;
use triarch_pki::ca::{AltNames, Ca, CertAndKey, Usage};
use triarch_pki::identity::Identity;
use triarch_pki::tls::{self, ClientAuth};
use triarch_raft::grpc::{GrpcTransport, PeerTls, VerifyPeer, raft_service};
use triarch_raft::{
    Call, DataDir, Lane, Message, Peer, PeerError, PeerHandler, PeerStream, PeerTransport, RaftConfig, RaftDb, Replica,
    Sender, Stores,
};

struct Node {
    db: Arc<RaftDb>,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
    _dir: (DataDir, tempfile::TempDir),
}

async fn node(env: &Env, id: u64, listener: tokio::net::TcpListener) -> Node {
    let tmp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(tmp.path()).unwrap();
    let address = listener.local_addr().unwrap();
    let stores =
        Stores::open(&dir, env, &triarch_wal::Config { segment_bytes: 1 << 20, ..Default::default() }, None).unwrap();
    let mut config = RaftConfig::new("c", id, replica(id, address));
    config.new_log = true;
    let transport = GrpcTransport::new("c", id, id, None, Duration::from_secs(1));
    let db = RaftDb::start(config, env.clone(), stores, Arc::new(transport)).await.unwrap();
    let verify: VerifyPeer = Arc::new(|_, from| if from.id == 99 { Err("not a replica".into()) } else { Ok(()) });
    let service = raft_service(db.peer_handler(), Some(verify));
    let incoming = TcpListenerStream::new(listener).inspect(|tcp| tcp.as_ref().unwrap().set_nodelay(true).unwrap());
    let server = tokio::spawn(async move {
        tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(service)
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
    Node { db, address, server, _dir: (dir, tmp) }
}

fn replica(id: u64, address: SocketAddr) -> Replica {
    Replica {
        name: format!("r{id}"),
        peer_address: address.to_string(),
        client_address: String::new(),
        incarnation: id,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_over_grpc_commit_forward_read_and_fail_over() {
    let env = Env::new(TokioRuntime::current());
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        if id > 1 {
            let first: &Node = &nodes[0];
            assert_eq!(first.db.add_replica(replica(id, address), triarch_mvcc::levels::LATEST).await.unwrap(), id);
        }
        nodes.push(node(&env, id, listener).await);
        if id == 1 {
            nodes[0].db.initialize().await.unwrap();
            nodes[0].db.leader_watch().await_leadership_change(None).await;
        } else {
            nodes[0].db.promote(id).await.unwrap();
        }
    }
    let mut last = 0;
    for n in 0..30usize {
        let done = nodes[n % 3].db.commit(put(&format!("k{n}"), "v")).await.unwrap();
        assert!(revision(&done) > last);
        last = revision(&done);
        let other = &nodes[(n + 1) % 3].db;
        assert!(other.read_barrier().await.unwrap() >= last);
        assert!(other.mvcc().get(&key(&format!("k{n}"))).is_some());
    }
    let status = nodes[1].db.status().await;
    assert!(status.replicas.iter().all(|r| r.reachable && r.voter && r.pid == std::process::id()), "{status:?}");
    // The leader's process goes, with its connections.
    let gone = nodes.remove(0);
    gone.db.abandon();
    gone.server.abort();
    gone.db.shutdown().await;
    for (n, node) in nodes.iter().enumerate() {
        node.db.commit(put(&format!("after{n}"), "v")).await.unwrap();
    }
    // Whoever is not a replica gets no further than its name.
    let stranger = GrpcTransport::new("c", 99, 1, None, Duration::from_secs(1));
    let peer = Peer { id: 2, address: nodes[0].address.to_string() };
    let error = stranger.call(&peer, Call::Status, Default::default()).await.unwrap_err();
    assert_eq!(error, PeerError::Refused("not a replica".into()));
    let error = stranger.open(&peer, Lane::Log).await.unwrap_err();
    assert_eq!(error, PeerError::Refused("not a replica".into()));
    let counted = nodes[0].db.counters().peers_refused.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(counted, 2);
}

/// Answers every call with the sender's id.
struct Echo;

#[async_trait::async_trait]
impl PeerHandler for Echo {
    async fn call(&self, from: &Sender, _: Call, _: bytes::Bytes) -> Result<bytes::Bytes, PeerError> {
        Ok(from.id.to_string().into())
    }

    fn stream(&self, _: &Sender, _: Lane, stream: PeerStream) -> Result<(), PeerError> {
        tokio::spawn(async move {
            let PeerStream { tx, mut rx } = stream;
            while let Some(m) = rx.recv().await {
                tx.send(m).await.unwrap();
            }
        });
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_speak_mutual_tls_and_a_client_without_a_certificate_gets_nowhere() {
    let now = Wall { micros: 1_000_000 * std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64 };
    let (ca, foreign) = (Ca::generate("ca", now).unwrap(), Ca::generate("other", now).unwrap());
    let names = AltNames::parse(["triarch-peer"]);
    let life = Duration::from_secs(3600);
    let cert = |ca: &Ca| ca.issue(&Identity::new("r1", &[]), &names, Usage::Peer, now, life).unwrap();
    let server = tls::server(&cert(&ca), ca.certificate_pem(), ClientAuth::Required, &["h2"]).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(server.config);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpListenerStream::new(listener).then(move |tcp| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(tcp?).await }
    });
    let service = raft_service(Arc::new(Echo), None);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));

    let peer = Peer { id: 1, address: address.to_string() };
    let dial = |cert: Option<&CertAndKey>| {
        let config = Arc::new(tls::client(ca.certificate_pem(), cert, &["h2"]).unwrap());
        let tls = PeerTls { config, server_name: "triarch-peer".into() };
        GrpcTransport::new("c", 7, 7, Some(tls), Duration::from_secs(2))
    };
    let good = dial(Some(&cert(&ca)));
    assert_eq!(good.call(&peer, Call::Status, Default::default()).await.unwrap(), "7");
    let mut stream = good.open(&peer, Lane::Forward).await.unwrap();
    let message = Message { body: "body".into(), payloads: vec!["one".into(), vec![7; 1 << 20].into()] };
    stream.tx.send(message.clone()).await.unwrap();
    assert_eq!(stream.rx.recv().await.unwrap(), message);

    for bad in [dial(None), dial(Some(&cert(&foreign)))] {
        let error = bad.call(&peer, Call::Status, Default::default()).await.unwrap_err();
        assert!(matches!(error, PeerError::Unreachable(1, _)), "{error:?}");
    }
}
