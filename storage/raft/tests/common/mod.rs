//! A cluster of replicas in one process, on tokio, with real logs in a
//! temporary directory and a network that can be broken.
#![allow(dead_code)] // each test file uses its part

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use triarch_env::{Env, TokioRuntime};
use triarch_mvcc::{Committed, Db, Key, Object, Op, Txn, TxnOutcome};
use triarch_raft::local::LocalNetwork;
use triarch_raft::{
    Blocking, DataDir, Identity, MembershipError, NodeId, Peer, RaftConfig, RaftDb, Replica, StartError, Stores,
};
use triarch_wal::{Config, WalHandle};

pub struct Cluster {
    pub env: Env,
    pub network: LocalNetwork,
    pub dir: tempfile::TempDir,
    pub nodes: BTreeMap<NodeId, Running>,
    /// The others as those that were ended knew them.
    pub known: BTreeMap<NodeId, Vec<Peer>>,
    pub adjust: fn(&mut RaftConfig),
}

pub struct Running {
    pub db: Arc<RaftDb>,
    pub wal: WalHandle,
    /// Where its checkpoint is written.
    pub checkpointing: Blocking,
    _dir: DataDir,
}

pub fn replica(id: NodeId) -> Replica {
    Replica {
        name: format!("r{id}"),
        peer_address: format!("r{id}:1"),
        client_address: format!("r{id}:2"),
        incarnation: id * 1000,
    }
}

impl Cluster {
    pub fn empty(adjust: fn(&mut RaftConfig)) -> Cluster {
        let env = Env::new(TokioRuntime::current());
        let network = LocalNetwork::new(env.clone());
        Cluster {
            network,
            env,
            dir: tempfile::tempdir().unwrap(),
            nodes: BTreeMap::new(),
            known: BTreeMap::new(),
            adjust,
        }
    }

    /// `n` replicas, all voters, with a leader.
    pub async fn of(n: u64) -> Cluster {
        let mut cluster = Cluster::empty(|_| {});
        cluster.boot(n).await;
        cluster
    }

    pub async fn boot(&mut self, n: u64) {
        self.start(1).await;
        self.db(1).initialize().await.unwrap();
        self.leader().await;
        for id in 2..=n {
            let given = self.db(1).add_replica(replica(id), triarch_mvcc::levels::LATEST).await.unwrap();
            assert_eq!(given, id);
            self.start(id).await;
            self.promote(id).await;
        }
    }

    /// By whoever leads: a slow disk may cost a leader its place in between.
    pub async fn promote(&self, id: NodeId) {
        for _ in 0..100 {
            let leader = self.leader().await;
            match self.db(leader).promote(id).await {
                Ok(()) => return,
                Err(MembershipError::NotLeader(_) | MembershipError::InProgress) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(e) => panic!("replica {id} was not promoted: {e}"),
            }
        }
        panic!("replica {id} was not promoted: leaders come and go");
    }

    pub fn path(&self, id: NodeId) -> PathBuf {
        self.dir.path().join(format!("r{id}"))
    }

    pub async fn start(&mut self, id: NodeId) {
        self.try_start(id).await.unwrap();
    }

    pub async fn try_start(&mut self, id: NodeId) -> Result<(), StartError> {
        let mut dir = DataDir::open(&self.path(id)).unwrap();
        let born = dir.identity().is_none();
        if born {
            let identity = Identity {
                format: triarch_raft::FORMAT,
                cluster_id: "test".into(),
                node_id: id,
                name: format!("r{id}"),
                incarnation: id * 1000,
            };
            dir.create_identity(identity).unwrap();
        }
        let wal_config = Config { segment_bytes: 1 << 20, ..Config::default() };
        let mut stores = None;
        for _ in 0..200 {
            match Stores::open(&dir, &self.env, &wal_config, None) {
                Ok(opened) => stores = Some(opened),
                // The last tasks of the one that was ended let go of its store a moment later.
                Err(e) if e.to_string().contains("could not acquire lock") => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
                Err(e) => panic!("{e}"),
            }
            break;
        }
        let mut stores = stores.expect("the store is let go of");
        // As the file PEERS would have them.
        let there = |n: &NodeId| *n != id && self.path(*n).exists();
        stores.peers = match (self.known.get(&id), self.nodes.values().next()) {
            (Some(known), _) => known.clone(),
            (None, Some(running)) => {
                let own = running.db.config();
                let own = Peer { id: own.node_id, address: own.replica.peer_address.clone() };
                running.db.peers().into_iter().chain([own]).filter(|p| p.id != id).collect()
            }
            (None, None) => (1..=5).filter(there).map(|n| Peer { id: n, address: format!("r{n}:1") }).collect(),
        };
        let (wal, checkpointing) = (stores.wal.clone(), stores.blocking.clone());
        let mut config = RaftConfig::new("test", id, replica(id));
        config.new_log = born;
        (self.adjust)(&mut config);
        let transport = self.network.transport("test", id, id * 1000);
        let db = RaftDb::start(config, self.env.clone(), stores, transport).await?;
        self.network.attach(id, db.peer_handler());
        self.nodes.insert(id, Running { db, wal, checkpointing, _dir: dir });
        Ok(())
    }

    /// Ends a replica as a kill would.
    pub async fn kill(&mut self, id: NodeId) {
        let node = self.nodes.remove(&id).unwrap();
        self.network.detach(id);
        self.known.insert(id, node.db.peers());
        node.db.abandon();
        node.db.shutdown().await;
        node.wal.shutdown().await;
    }

    pub fn db(&self, id: NodeId) -> &Arc<RaftDb> {
        &self.nodes[&id].db
    }

    /// Waits until a running replica leads.
    pub async fn leader(&self) -> NodeId {
        for _ in 0..2000 {
            for (id, n) in &self.nodes {
                if n.db.leader_watch().leadership().is_some() {
                    return *id;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("no leader in 10 s");
    }

    pub async fn put(&self, via: NodeId, name: &str, value: &str) -> Committed {
        self.db(via).commit(put(name, value)).await.unwrap()
    }

    pub fn read(&self, at: NodeId, name: &str) -> Option<String> {
        let found = self.db(at).mvcc().get(&key(name))?;
        Some(String::from_utf8(found.object.bytes.to_vec()).unwrap())
    }
}

pub fn key(name: &str) -> Key {
    Key::new("configmaps", "default", name)
}

pub fn put(name: &str, value: &str) -> Txn {
    Txn { ops: vec![Op::Put(key(name), Object::plain(value.to_owned()))], ..Txn::default() }
}

pub fn revision(done: &Committed) -> u64 {
    match &done.outcome {
        TxnOutcome::Committed { revisions } => revisions[0],
        other => panic!("not committed: {other:?}"),
    }
}
