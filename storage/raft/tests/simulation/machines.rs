//! Three replicas on simulated machines, and scenarios run on them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::AsyncRuntime;
use triarch_checkpoint::CheckpointStore;
use triarch_env::{Disk, Env, Scope, SimDisk};
use triarch_mvcc::{Db, Key, Object, Op, Txn};
use triarch_raft::local::LocalNetwork;
use triarch_raft::sim::{SimEnv, SimRuntime};
use triarch_raft::{Blocking, Peer, RaftConfig, RaftDb, Replica, Starts, Stores};
use triarch_wal::{Config, Wal, WalHandle};

/// A machine: its disks outlive its replica.
pub struct Machine {
    pub disk: SimDisk,
    pub checkpoint: SimDisk,
    pub born: bool,
}

pub struct Sim {
    pub seed: u64,
    pub network: LocalNetwork,
    pub machines: BTreeMap<u64, Machine>,
    pub running: BTreeMap<u64, (Arc<RaftDb>, Scope)>,
    pub lives: u64,
    /// What a replica's settings are besides the common ones.
    pub adjust: fn(u64, &mut RaftConfig),
    pub logs: BTreeMap<u64, WalHandle>,
    /// What a sync of the log takes, in microseconds, on every machine.
    pub sync: Arc<AtomicU64>,
}

/// Where the checkpoint is, on its disk.
pub const CHECKPOINT: &str = "/checkpoint";

/// Of a replica that does not run: its checkpoint is lost.
pub fn damage_checkpoint(machine: &Machine) {
    let runs = machine.checkpoint.list(Path::new(CHECKPOINT)).unwrap();
    assert!(machine.checkpoint.flip(&Path::new(CHECKPOINT).join(&runs[0]), 40, 3));
}

pub fn replica(id: u64) -> Replica {
    Replica { name: format!("r{id}"), peer_address: format!("r{id}"), client_address: String::new(), incarnation: id }
}

pub fn put(name: &str, value: &str) -> Txn {
    Txn { ops: vec![Op::Put(Key::new("configmaps", "d", name), Object::plain(value.to_owned()))], ..Txn::default() }
}

impl Sim {
    pub fn new(seed: u64) -> Sim {
        let env = SimEnv::env(seed);
        let machine = |id: u64| Machine {
            disk: SimDisk::new(seed ^ (id << 32)),
            checkpoint: SimDisk::new(seed ^ (id << 32) ^ 1),
            born: false,
        };
        let machines = (1..=3).map(|id| (id, machine(id))).collect();
        Sim {
            seed,
            network: LocalNetwork::new(env),
            machines,
            running: BTreeMap::new(),
            lives: 0,
            adjust: |_, _| {},
            logs: BTreeMap::new(),
            sync: Arc::new(AtomicU64::new(800)),
        }
    }

    pub async fn start(&mut self, id: u64) {
        self.lives += 1;
        let env: Env = SimEnv::env(self.seed.wrapping_mul(31).wrapping_add(self.lives));
        let scope = Scope::new();
        let machine = self.machines.get_mut(&id).unwrap();
        let config = Config { segment_bytes: 1 << 18, ..Config::default() };
        let (wal, _) = Wal::open(Arc::new(machine.disk.clone()), Path::new("/wal"), &config).unwrap();
        let sync = self.sync.clone();
        let latency = Arc::new(move || Duration::from_micros(sync.load(Ordering::Relaxed)));
        let wal = WalHandle::start_task_on(wal, &config, env.clone(), &scope, latency, None);
        self.logs.insert(id, wal.clone());
        let (checkpoint, found) =
            CheckpointStore::open(Arc::new(machine.checkpoint.clone()), Path::new(CHECKPOINT)).unwrap();
        let stores = Stores {
            wal,
            segment_bytes: config.segment_bytes,
            checkpoint,
            found,
            blocking: Blocking::Inline,
            noting: Blocking::Inline,
            peers: (1..=3).filter(|o| *o != id).map(|o| Peer { id: o, address: format!("r{o}") }).collect(),
            starts: Starts::count(Arc::new(machine.disk.clone()), Path::new("/")).unwrap(),
        };
        let mut config = RaftConfig::new("sim", id, replica(id));
        config.new_log = !machine.born;
        machine.born = true;
        config.timers.heartbeat = Duration::from_millis(100);
        config.timers.election_min = Duration::from_millis(400);
        config.timers.election_max = Duration::from_millis(600);
        config.timers.quorum_ack_max_age = Duration::from_millis(1500);
        config.window.events = 40;
        config.window.check = Duration::from_millis(500);
        (self.adjust)(id, &mut config);
        let transport = self.network.transport("sim", id, id);
        let db = RaftDb::start_on::<SimRuntime>(config, env, stores, transport).await.unwrap();
        self.network.attach(id, db.peer_handler());
        self.running.insert(id, (db, scope));
    }

    /// The power of machine `id` fails.
    pub fn crash(&mut self, id: u64) {
        let (db, scope) = self.running.remove(&id).unwrap();
        self.network.detach(id);
        db.abandon();
        scope.cancel();
        let machine = self.machines.get_mut(&id).unwrap();
        machine.disk.crash();
        machine.disk = machine.disk.restart();
        machine.checkpoint.crash();
        machine.checkpoint = machine.checkpoint.restart();
    }

    pub fn db(&self, id: u64) -> &Arc<RaftDb> {
        &self.running[&id].0
    }

    pub async fn leader(&self) -> u64 {
        loop {
            let leads = |(id, (db, _)): (&u64, &(Arc<RaftDb>, Scope))| db.leader_watch().leadership().map(|_| *id);
            if let Some(id) = self.running.iter().find_map(leads) {
                return id;
            }
            SimRuntime::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn boot(&mut self) {
        self.start(1).await;
        self.db(1).initialize().await.unwrap();
        self.leader().await;
        for id in 2..=3 {
            assert_eq!(self.db(1).add_replica(replica(id), triarch_mvcc::levels::LATEST).await.unwrap(), id);
            self.start(id).await;
            self.db(1).promote(id).await.unwrap();
        }
    }

    /// Three replicas, writes, and crashes of whoever leads. Every acknowledged
    /// write must be read back on every replica.
    pub async fn run(&mut self) -> (u64, Vec<[u8; 32]>) {
        self.boot().await;
        let mut acked = BTreeMap::new();
        for round in 0..4u64 {
            for n in 0..40u64 {
                let via = (n + round) % 3 + 1;
                let (name, value) = (format!("k{}", n % 25), format!("{round}-{n}"));
                self.db(via).commit(put(&name, &value)).await.unwrap();
                acked.insert(name, value);
            }
            let leader = self.leader().await;
            self.crash(leader);
            let other = *self.running.keys().next().unwrap();
            self.db(other).commit(put("while down", &round.to_string())).await.unwrap();
            acked.insert("while down".into(), round.to_string());
            self.start(leader).await;
            self.db(leader).ready().await;
        }
        for id in 1..=3 {
            self.db(id).read_barrier().await.unwrap();
            for (name, value) in &acked {
                let found = self.db(id).mvcc().get(&Key::new("configmaps", "d", name)).expect("an acknowledged write");
                assert_eq!(found.object.bytes, value.as_bytes(), "seed {}: {name} on replica {id}", self.seed);
            }
        }
        let chains = (1..=3).map(|id| self.db(id).mvcc().header()).collect::<Vec<_>>();
        let same = chains.iter().filter(|h| h.applied == chains[0].applied).all(|h| h.chain == chains[0].chain);
        assert!(same, "seed {}: replicas at the same entry have the same history", self.seed);
        (self.db(1).mvcc().revision(), chains.into_iter().map(|h| h.chain).collect())
    }
}

/// Runs a scenario on three replicas under `seed`.
pub fn with_cluster<F: Future<Output = ()>>(seed: u64, scenario: impl FnOnce(Sim) -> F) {
    println!("seed {seed}");
    SimRuntime::with_seed(seed).block_on(async {
        let mut sim = Sim::new(seed);
        sim.boot().await;
        scenario(sim).await;
    });
}

pub fn openraft_now() -> Duration {
    SimEnv::env(0).mono().0
}
