//! The machines that replicas run on: disks that outlive processes, and how a
//! process is started on them and ended.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use triarch_checkpoint::CheckpointStore;
use triarch_env::{Env, Scope, SimDisk};
use triarch_mvcc::levels::LATEST;
use triarch_raft::sim::{Process, ProcessRuntime};
use triarch_raft::{Blocking, NodeId, RaftConfig, RaftDb, Replica, Starts, Stores};
use triarch_wal::{Config, Wal, WalHandle};

use crate::control_plane::ControlPlane;
use crate::run::Run;
use crate::settings::Stack;

/// What a sync takes on a healthy disk.
pub const SYNC: Duration = Duration::from_micros(800);
/// Where the log is on every machine's disk.
pub const WAL_DIR: &str = "/wal";
/// Where the checkpoint is, on its disk.
pub const CHECKPOINT_DIR: &str = "/checkpoint";

/// A machine.
#[derive(Clone)]
pub struct Machine {
    pub disk: SimDisk,
    /// The checkpoint's, so that faults of either can be told apart.
    pub checkpoint: SimDisk,
    /// The replica that lives here, as the membership shows it.
    pub replica: Replica,
    /// Microseconds that a sync takes.
    pub sync_micros: Arc<AtomicU64>,
    /// The highest feature level of the release that is installed.
    pub supports: u64,
    /// The replica has been started here before.
    pub born: bool,
    pub up: Option<Up>,
    /// The process that opens what is on the disks.
    pub starting: Option<Process>,
}

/// A running replica.
#[derive(Clone)]
pub struct Up {
    pub process: Process,
    pub env: Env,
    pub db: Arc<RaftDb>,
    pub wal: WalHandle,
    /// `None` where a run is of the store alone.
    pub plane: Option<ControlPlane>,
    /// Counts the processes of the run.
    pub life: u64,
    /// The highest feature level of its release.
    pub supports: u64,
}

impl Machine {
    /// The run's machine number `number`, with empty disks.
    pub fn new(seed: u64, number: u64) -> Machine {
        Machine {
            disk: SimDisk::new(seed ^ (number << 32)),
            checkpoint: SimDisk::new(seed ^ (number << 32) ^ 1),
            replica: replica(number),
            sync_micros: Arc::new(AtomicU64::new(SYNC.as_micros() as u64)),
            supports: LATEST,
            born: false,
            up: None,
            starting: None,
        }
    }

    pub fn set_sync(&self, latency: Duration) {
        self.sync_micros.store(latency.as_micros() as u64, Ordering::Relaxed);
    }
}

fn replica(machine: u64) -> Replica {
    Replica {
        name: format!("r{machine}"),
        peer_address: format!("r{machine}:7443"),
        client_address: format!("r{machine}:6443"),
        incarnation: 100 + machine,
    }
}

/// Opens what is on the machine's disks and starts a replica on it.
async fn open(
    run: &Run,
    id: NodeId,
    machine: &Machine,
    env: &Env,
    first: bool,
) -> Result<(Arc<RaftDb>, WalHandle), String> {
    let config = Config { segment_bytes: run.settings.segment_bytes, begins: first, ..Config::default() };
    let opened = Wal::open(Arc::new(machine.disk.clone()), Path::new(WAL_DIR), &config);
    let (wal, repair) = opened.map_err(|e| e.to_string())?;
    if let Some(repair) = repair {
        run.tally.fault("torn-tail");
        run.trace.line(|| format!("r{id} cut off a torn tail at {} of {}", repair.offset, repair.file));
    }
    let micros = machine.sync_micros.clone();
    let latency = Arc::new(move || Duration::from_micros(micros.load(Ordering::Relaxed)));
    let wal = WalHandle::start_task_on(wal, &config, env.clone(), &Scope::new(), latency, None);
    let opened = CheckpointStore::open(Arc::new(machine.checkpoint.clone()), Path::new(CHECKPOINT_DIR));
    let (checkpoint, found) = opened.map_err(|e| e.to_string())?;
    let stores = Stores {
        wal: wal.clone(),
        segment_bytes: run.settings.segment_bytes,
        checkpoint,
        found,
        blocking: Blocking::Inline,
        noting: Blocking::Inline,
        peers: run.peers(id),
        starts: Starts::count(Arc::new(machine.disk.clone()), Path::new("/")).map_err(|e| e.to_string())?,
    };
    let mut config = RaftConfig::new("sim", id, machine.replica.clone());
    config.new_log = first;
    config.supports = machine.supports;
    run.settings.apply(&mut config);
    let transport = run.network.transport("sim", id, machine.replica.incarnation);
    let started = RaftDb::start_on::<ProcessRuntime>(config, env.clone(), stores, transport).await;
    started.map(|db| (db, wal)).map_err(|e| e.to_string())
}

impl Run {
    /// Starts the replica of machine `id`; an error when it refuses to start,
    /// `None` when it was killed before it had.
    pub async fn start(self: &Arc<Self>, id: NodeId) -> Option<Result<Up, String>> {
        let life = self.next_life();
        let process = Process::new();
        let env = process.env(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(life << 8 | id));
        let (machine, first) = self.machine_mut(id, |m| {
            let first = !m.born;
            m.born = true;
            m.starting = Some(process.clone());
            (m.clone(), first)
        });
        self.trace.line(|| format!("r{id} starts, process {life}"));
        self.network.power_on(id);
        let supports = machine.supports;
        let (tx, rx) = oneshot::channel();
        let (run, inner) = (self.clone(), env.clone());
        process.spawn(async move {
            let _ = tx.send(open(&run, id, &machine, &inner, first).await);
        });
        let opened = rx.await;
        self.machine_mut(id, |m| m.starting = None);
        let (db, wal) = match opened {
            Err(_) => return None,
            Ok(Err(why)) => {
                self.trace.line(|| format!("r{id} does not start: {why}"));
                process.kill();
                return Some(Err(why));
            }
            Ok(Ok(opened)) => opened,
        };
        let whole = self.settings.stack == Stack::Whole;
        let plane = whole.then(|| ControlPlane::start(self, id, &process, &env, &db));
        let up = Up { process, env, db, wal, plane, life, supports };
        self.machine_mut(id, |m| m.up = Some(up.clone()));
        self.network.attach(id, up.db.peer_handler(), up.process.clone());
        crate::observe::follow(self, id, &up);
        crate::workloads::on_start(self, id, &up);
        Some(Ok(up))
    }

    fn end(&self, id: NodeId, dark: bool) -> Option<Machine> {
        let (up, starting, machine) = self.machine_mut(id, |m| (m.up.take(), m.starting.take(), m.clone()));
        self.network.detach(id, dark);
        if let Some(process) = starting {
            process.kill();
            return Some(machine);
        }
        let up = up?;
        up.process.kill();
        self.panics(id, &up);
        Some(machine)
    }

    /// Notes what panicked in a process.
    pub fn panics(&self, id: NodeId, up: &Up) {
        self.tally.checked("no-panic", 1);
        for panic in up.process.take_panics() {
            self.tally.violation("no-panic", format!("replica {id}, process {}: {panic}", up.life));
        }
    }

    /// SIGKILL: the process is gone, what it had written is in the page cache.
    pub fn kill(&self, id: NodeId) -> bool {
        self.trace.line(|| format!("r{id} is killed"));
        self.end(id, false).is_some()
    }

    /// The power of a machine fails: what was not synced is lost or torn.
    pub fn power_off(&self, id: NodeId) -> bool {
        self.trace.line(|| format!("r{id} loses power"));
        let Some(machine) = self.end(id, true) else { return false };
        machine.disk.crash();
        machine.checkpoint.crash();
        self.machine_mut(id, |m| (m.disk, m.checkpoint) = (machine.disk.restart(), machine.checkpoint.restart()));
        true
    }

    /// Replica `id` is no member any more, and its machine is gone.
    pub fn retire(&self, id: NodeId) {
        self.end(id, false);
        self.network.power_on(id);
        self.machines.lock().remove(&id);
    }

    /// Starts a replica again, and waits until it has caught up or was ended again.
    pub async fn restart(self: &Arc<Self>, id: NodeId) {
        match self.start(id).await {
            Some(Ok(up)) => crate::invariants::restart::follow(self, id, up),
            Some(Err(why)) => self.tally.violation("restart", format!("replica {id} does not start: {why}")),
            None => {}
        }
    }
}
