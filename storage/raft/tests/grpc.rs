//! The same promises over gRPC on loopback.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{key, put, revision};
use triarch_env::{Env, TokioRuntime};
use triarch_mvcc::Db;
use triarch_raft::grpc::{GrpcTransport, VerifyPeer, raft_service};
use triarch_raft::{DataDir, Peer, PeerError, PeerTransport, RaftConfig, RaftDb, Replica, Stores};

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
    let transport = GrpcTransport::new(env.clone(), "c", id, id, None, Duration::from_secs(1));
    let db = RaftDb::start(config, env.clone(), stores, Arc::new(transport)).await.unwrap();
    let verify: VerifyPeer = Arc::new(|_, from| if from.id == 99 { Err("not a replica".into()) } else { Ok(()) });
    let service = raft_service(env.clone(), db.peer_handler(), Some(verify));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
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
            assert_eq!(first.db.add_replica(replica(id, address)).await.unwrap(), id);
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
    let stranger = GrpcTransport::new(env.clone(), "c", 99, 1, None, Duration::from_secs(1));
    let peer = Peer { id: 2, address: nodes[0].address.to_string() };
    let error = stranger.call(&peer, triarch_raft::Call::Status, Default::default()).await.unwrap_err();
    assert_eq!(error, PeerError::Refused("not a replica".into()));
    let error = stranger.open(&peer, triarch_raft::Lane::Log).await.unwrap_err();
    assert_eq!(error, PeerError::Refused("not a replica".into()));
}
