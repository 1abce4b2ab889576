//! Hollow nodes: the node agent itself with simulated containers.
//!
//! An agent is a process that faults end and start again; its containers are
//! the node's and live on meanwhile, as containerd's do. There is no ledger:
//! an agent that has just started knows nothing until a replica answers, and
//! must stop nothing either.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use triarch_agent::facts::{self, Machine, NodeIdentity, Readings};
use triarch_agent::node::{Events, Node, Parts, Shared};
use triarch_agent::session::run::keep;
use triarch_agent::thresholds::Thresholds;
use triarch_env::Scope;
use triarch_kubelet::ports::{HollowHost, NodeConfig};
use triarch_kubelet::probe::HollowDialer;
use triarch_kubelet::runtime::Runtime;
use triarch_kubelet::runtime::hollow::HollowRuntime;
use triarch_raft::sim::Process;

use crate::run::Run;
use crate::uplink::SimUplink;

/// Hollow nodes of a run.
pub const NODES: u32 = 3;
/// CPUs of each: they bound how many pods fit.
pub const CPUS: u64 = 2;
const MEMORY: u64 = 8 << 30;
/// Pods of each node, as it registers.
pub const PODS: u32 = 20;
/// How often the agent looks for what its runtime did not tell.
const RELIST: Duration = Duration::from_secs(10);

/// A node: what outlives its agent, and its agent while there is one.
struct Hollow {
    runtime: Arc<HollowRuntime>,
    boot_id: String,
    agent: Option<Process>,
    /// Agents started so far.
    lives: u64,
}

/// The nodes of a run.
#[derive(Default)]
pub struct Agents(Mutex<BTreeMap<u32, Hollow>>);

pub fn name(index: u32) -> String {
    format!("hollow-{index}")
}

impl Agents {
    /// Starts every node's first agent.
    pub fn start_all(&self, run: &Arc<Run>) {
        for index in 0..NODES {
            let runtime = HollowRuntime::new(run.env.clone(), index);
            let hollow = Hollow { runtime, boot_id: run.env.uuid(), agent: None, lives: 0 };
            self.0.lock().insert(index, hollow);
            self.start(run, index);
        }
    }

    /// Starts an agent on node `index`, where none runs.
    pub fn start(&self, run: &Arc<Run>, index: u32) {
        let mut nodes = self.0.lock();
        let Some(hollow) = nodes.get_mut(&index).filter(|h| h.agent.is_none()) else { return };
        hollow.lives += 1;
        let process = Process::new();
        hollow.agent = Some(process.clone());
        let seed = run.seed.wrapping_mul(0x2545_f491).wrapping_add(hollow.lives << 8 | u64::from(index));
        let (run, runtime, boot_id) = (run.clone(), hollow.runtime.clone(), hollow.boot_id.clone());
        run.trace.line(|| format!("{} starts its agent, number {}", name(index), hollow.lives));
        process.clone().spawn(async move { agent(run, process, seed, index, runtime, boot_id).await });
    }

    /// Ends the agent of node `index`; its containers go on.
    pub fn kill(&self, run: &Run, index: u32) -> bool {
        let Some(process) = self.0.lock().get_mut(&index).and_then(|h| h.agent.take()) else { return false };
        run.trace.line(|| format!("{}'s agent is killed", name(index)));
        process.kill();
        self.panics(run, index, &process);
        true
    }

    /// Ends all of them, at the run's end.
    pub fn kill_all(&self, run: &Run) {
        for index in 0..NODES {
            self.kill(run, index);
        }
    }

    fn panics(&self, run: &Run, index: u32, process: &Process) {
        run.tally.checked("no-panic", 1);
        for panic in process.take_panics() {
            run.tally.violation("no-panic", format!("the agent of {}: {panic}", name(index)));
        }
    }
}

/// An agent's life, wired as `triarch-node --hollow` wires it.
async fn agent(run: Arc<Run>, process: Process, seed: u64, index: u32, runtime: Arc<HollowRuntime>, boot_id: String) {
    let env = process.env(seed);
    let ip = format!("100.64.0.{}", index + 1);
    let machine = Machine {
        cpus: CPUS,
        memory: MEMORY,
        kernel: "hollow".into(),
        os_image: "Triarch hollow node".into(),
        architecture: "amd64".into(),
        machine_id: name(index),
        boot_id: boot_id.clone(),
        runtime: runtime.info().await.unwrap_or_default(),
        ..Machine::default()
    };
    let readings =
        Readings { memory_available: MEMORY / 2, disk_total: 1 << 40, disk_available: 1 << 39, ..Readings::default() };
    let config = NodeConfig {
        name: name(index),
        ips: vec![ip.clone()],
        runtime_name: "hollow".into(),
        cgroup_root: "/".into(),
        cluster_domain: "cluster.local".into(),
        cpu_milli: CPUS as i64 * 1000,
        memory_bytes: MEMORY as i64,
        ephemeral_bytes: 1 << 40,
        relist: RELIST,
        ..NodeConfig::default()
    };
    let id = NodeIdentity { name: name(index), ips: vec![ip], pods: PODS, labels: Vec::new() };
    let status = facts::status(&id, &machine, &readings, &Thresholds::default(), None, env.wall());
    let object = facts::node(&id, &machine, &status);
    let parts = Parts {
        env: env.clone(),
        config,
        boot_id,
        runtime,
        dialer: Arc::new(HollowDialer),
        ledger: None,
        events: Events::All,
        without: Vec::new(),
    };
    let scope = Scope::new();
    let node = Node::start(parts, Shared::new(&env), Arc::new(HollowHost), scope.clone());
    node.set_node_json(serde_json::to_vec(&object).expect("plain data").into());
    keep(node, Arc::new(SimUplink { run, env, index }), scope).await;
}
