//! One seed: replicas are born, clients write, faults come and go, the
//! faults end, and everything that was promised is checked.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use triarch_env::{Env, Scope};
use triarch_mvcc::{Db, Revision, levels};
use triarch_raft::sim::{SimEnv, Simulation};
use triarch_raft::{NodeId, Peer, RaftDb};

use crate::history::History;
use crate::log::Log;
use crate::machine::{Machine, Up};
use crate::network::{Network, Weather};
use crate::settings::{Older, Settings, Stack};
use crate::tally::{Counts, Tally};
use crate::trace::Trace;
use crate::{agents, faults, invariants, workloads};

/// After the faults have ended everything must be well again within this time.
pub const SETTLE: Duration = Duration::from_secs(90);
/// A run that takes longer than this, in virtual time, hangs.
const MAX_RUN: Duration = Duration::from_secs(900);

/// What clients were told, and what replicas have shown, of one counter of revisions.
#[derive(Debug, Default)]
pub struct Keyspace {
    pub history: Mutex<History>,
    pub log: Mutex<Log>,
}

/// What everything in a run shares.
pub struct Run {
    pub seed: u64,
    pub env: Env,
    pub settings: Settings,
    pub trace: Trace,
    pub tally: Tally,
    pub network: Network,
    /// By the id of the replica that lives there.
    pub machines: Mutex<BTreeMap<NodeId, Machine>>,
    numbered: AtomicU64,
    pub history: Mutex<History>,
    pub log: Mutex<Log>,
    /// The etcd facade's.
    pub facade: Keyspace,
    /// By index: who was seen there first, its chain hash and revision.
    pub chains: Mutex<BTreeMap<u64, (NodeId, [u8; 32], Revision)>>,
    /// What was seen of the feature level.
    pub raised: Mutex<invariants::levels::Raised>,
    /// Ends when clients shall stop.
    pub load: Scope,
    /// Clients at work.
    pub clients: AtomicU64,
    /// Held by whoever ends and starts processes.
    pub damage: tokio::sync::Mutex<()>,
    /// What was asked of the Deployment last.
    pub asked: workloads::deployment::Asked,
    pub agents: agents::Agents,
    faults_over: AtomicBool,
    lives: AtomicU64,
}

/// What a seed gave.
pub struct Outcome {
    pub counts: Counts,
    pub simulated: Duration,
    pub trace: Vec<String>,
}

impl Outcome {
    /// A violation, or something that did not come to its end.
    pub fn failed(&self) -> bool {
        self.counts.violated > 0 || self.counts.unfinished > 0
    }
}

/// The replica is down, or was killed before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Run {
    fn new(seed: u64, stack: Stack, trace: bool) -> Arc<Run> {
        let env = SimEnv::env(seed);
        let settings = Settings::draw(&env, stack);
        let tally = Tally::default();
        let machine = |id| {
            let old = settings.older == Older::All || (settings.older == Older::First && id == 1);
            Machine { supports: if old { levels::FIRST } else { levels::LATEST }, ..Machine::new(seed, id) }
        };
        let machines = (1..=settings.replicas).map(|id| (id, machine(id))).collect();
        Arc::new(Run {
            seed,
            numbered: AtomicU64::new(settings.replicas),
            settings,
            trace: Trace::new(env.clone(), trace),
            network: Network::new(env.clone(), tally.clone()),
            tally,
            machines: Mutex::new(machines),
            history: Mutex::default(),
            log: Mutex::default(),
            facade: Keyspace::default(),
            chains: Mutex::default(),
            raised: Mutex::default(),
            load: Scope::new(),
            clients: AtomicU64::new(0),
            damage: tokio::sync::Mutex::default(),
            asked: Mutex::default(),
            agents: agents::Agents::default(),
            faults_over: AtomicBool::new(false),
            lives: AtomicU64::new(0),
            env,
        })
    }

    pub fn next_life(&self) -> u64 {
        self.lives.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn machine_mut<T>(&self, id: NodeId, f: impl FnOnce(&mut Machine) -> T) -> T {
        f(self.machines.lock().get_mut(&id).expect("machines are made with the run"))
    }

    pub fn up(&self, id: NodeId) -> Option<Up> {
        self.machines.lock().get(&id).and_then(|m| m.up.clone())
    }

    pub fn ups(&self) -> Vec<(NodeId, Up)> {
        self.machines.lock().iter().filter_map(|(id, m)| Some((*id, m.up.clone()?))).collect()
    }

    /// From now on everything must come to its end.
    pub fn faults_over(&self) -> bool {
        self.faults_over.load(Ordering::Relaxed)
    }

    pub fn any(&self) -> NodeId {
        let ids = self.ids();
        ids[self.env.random_below(ids.len() as u64) as usize]
    }

    /// Every replica that there is, also those that are down.
    pub fn ids(&self) -> Vec<NodeId> {
        self.machines.lock().keys().copied().collect()
    }

    /// Those with an older release.
    pub fn older(&self) -> Vec<NodeId> {
        self.machines.lock().iter().filter(|(_, m)| m.supports < levels::LATEST).map(|(id, _)| *id).collect()
    }

    /// Nobody else is there to be cut off from, or to ask.
    pub fn alone(&self) -> bool {
        self.machines.lock().len() == 1
    }

    /// The other replicas as `id` would have noted them.
    pub fn peers(&self, id: NodeId) -> Vec<Peer> {
        let machines = self.machines.lock();
        let others = machines.iter().filter(|(other, _)| **other != id);
        others.map(|(id, m)| Peer { id: *id, address: m.replica.peer_address.clone() }).collect()
    }

    /// A machine that was not there before; it is the run's once it has an id.
    pub fn new_machine(&self) -> Machine {
        Machine::new(self.seed, self.numbered.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Every replica runs and `fit`s.
    pub fn all(&self, fit: impl Fn(&Up) -> bool) -> bool {
        let machines = self.machines.lock();
        machines.values().all(|m| m.up.as_ref().is_some_and(&fit))
    }

    /// The replica that leads, as far as some replica knows that it does itself.
    pub fn leader(&self) -> Option<NodeId> {
        let leading = self.ups().into_iter().filter_map(|(id, up)| Some((up.db.leader_watch().leadership()?, id)));
        leading.max().map(|(_, id)| id)
    }

    /// Has a replica do something on behalf of somebody outside it.
    pub async fn call<T, F, Fut>(&self, id: NodeId, work: F) -> Result<T, Gone>
    where
        T: Send + 'static,
        F: FnOnce(Arc<RaftDb>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
    {
        self.env.sleep(Duration::from_micros(50 + self.env.random_below(400))).await;
        let up = self.up(id).ok_or(Gone)?;
        let (tx, rx) = oneshot::channel();
        let db = up.db.clone();
        up.process.spawn(async move {
            let _ = tx.send(work(db).await);
        });
        drop(up);
        rx.await.map_err(|_| Gone)
    }

    /// Starts a client, which must end by itself once the load has ended.
    pub fn client(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let run = self.clone();
        self.clients.fetch_add(1, Ordering::Relaxed);
        self.env.spawn("client", async move {
            work.await;
            run.clients.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// A client's pause between two requests.
    pub async fn think(&self) {
        self.env.sleep(self.env.jitter(self.settings.think, 100)).await;
    }

    /// Waits until `done` says so, at most `limit`.
    pub async fn until(&self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let end = self.env.mono() + limit;
        while !done() {
            if self.env.mono() > end {
                return false;
            }
            self.env.sleep(Duration::from_millis(10)).await;
        }
        true
    }

    async fn birth(self: &Arc<Self>) {
        let started = self.start(1).await.and_then(Result::ok).expect("the first replica starts on an empty disk");
        let init = self.call(1, |db| async move { db.initialize().await }).await;
        init.expect("nothing is killed yet").expect("an empty replica becomes a cluster");
        drop(started);
        self.until(SETTLE, || self.leader().is_some()).await;
        for id in 2..=self.settings.replicas {
            let (replica, supports) = self.machine_mut(id, |m| (m.replica.clone(), m.supports));
            let added = self.call(1, move |db| async move { db.add_replica(replica, supports).await }).await;
            assert_eq!(added, Ok(Ok(id)), "a healthy cluster takes a new replica");
            self.start(id).await.and_then(Result::ok).expect("a new replica starts on an empty disk");
            let promoted = self.call(1, move |db| async move { db.promote(id).await }).await;
            promoted.expect("nothing is killed yet").expect("a healthy cluster promotes a learner");
        }
        self.trace.line(|| format!("replicas: {}", self.settings.replicas));
    }

    /// Takes every fault away and brings everybody back.
    async fn heal(self: &Arc<Self>) {
        let _one_at_a_time = self.damage.lock().await;
        self.network.unblock_all();
        (0..agents::NODES).for_each(|index| self.agents.start(self, index));
        self.network.set_weather(Weather::FAIR);
        for id in self.ids() {
            self.machine_mut(id, |m| {
                m.set_sync(crate::machine::SYNC);
                m.disk.set_capacity(u64::MAX);
            });
            match self.up(id) {
                Some(up) if up.db.is_stopped() => {
                    self.power_off(id);
                    self.restart(id).await;
                }
                Some(up) => up.process.resume(),
                None => self.restart(id).await,
            }
        }
        for id in self.older() {
            faults::two_levels::install(self, id, levels::LATEST).await;
        }
    }

    /// All replicas have applied the same.
    fn level(&self) -> bool {
        let ups = self.ups();
        let applied: Vec<u64> = ups.iter().map(|(_, up)| up.db.mvcc().applied().index).collect();
        self.all(|up| up.db.is_ready()) && applied.windows(2).all(|w| w[0] == w[1])
    }

    async fn live(self: &Arc<Self>) {
        self.birth().await;
        if self.settings.stack == Stack::Whole {
            self.agents.start_all(self);
        }
        workloads::start(self);
        faults::run(self).await;
        self.faults_over.store(true, Ordering::Relaxed);
        self.trace.line(|| "the faults end".into());
        self.heal().await;
        invariants::levels::settle(self).await;
        workloads::finish(self).await;
        self.load.cancel();
        let quiet = self.until(SETTLE, || self.clients.load(Ordering::Relaxed) == 0).await;
        let level = self.until(SETTLE, || self.level()).await;
        self.tally.checked("settles", 1);
        if !level {
            let at: Vec<String> = self
                .ups()
                .iter()
                .map(|(id, up)| {
                    let view = up.db.leader_watch().view();
                    format!("r{id}: applied {:?} ready {} {view:?}", up.db.mvcc().applied(), up.db.is_ready())
                })
                .collect();
            self.tally.violation("settles", format!("the replicas do not come level after the faults: {at:?}"));
        }
        let unfinished = self.clients.load(Ordering::Relaxed);
        self.tally.with(|c| c.unfinished += unfinished);
        if !quiet {
            self.tally.violation("settles", format!("{unfinished} clients still wait for an answer"));
        }
        crate::observe::last_look(self);
        invariants::check(self);
        for (id, up) in self.ups() {
            self.panics(id, &up);
        }
        self.agents.kill_all(self);
    }
}

/// Runs one seed.
pub fn run(seed: u64, stack: Stack, trace: bool) -> Outcome {
    let mut sim = Simulation::new(seed);
    if trace {
        sim.record_trace();
    }
    let outcome = sim.block_on(async {
        let run = Run::new(seed, stack, trace);
        let live = run.clone();
        let ended = run.env.timeout(MAX_RUN, async move { live.live().await }).await;
        if ended.is_err() {
            run.tally.violation("settles", format!("the run did not end within {MAX_RUN:?}"));
        }
        // Nothing of a replica outlives the run.
        for (id, up) in run.ups() {
            run.network.detach(id, false);
            up.process.kill();
        }
        run.load.cancel();
        Outcome { counts: run.tally.counts(), simulated: run.trace.now(), trace: run.trace.take() }
    });
    if !trace {
        return outcome;
    }
    // Every poll, wake and timer enters the last line, so that two equal traces are two equal runs.
    let polls = sim.take_trace();
    let mut sum = sha2::Sha256::default();
    for line in &polls {
        sha2::Digest::update(&mut sum, line.as_bytes());
        sha2::Digest::update(&mut sum, b"\n");
    }
    let digest: [u8; 32] = sha2::Digest::finalize(sum).into();
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    let mut outcome = outcome;
    outcome.trace.push(format!("steps={} digest={hex}", polls.len()));
    outcome
}
