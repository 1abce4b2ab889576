//! What stands above the store in every replica: the registry, the gateway for
//! node agents, and, while it leads, controllers and the scheduler. Wired as the
//! server does it, without HTTP and TLS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use triarch_admission::Chain;
use triarch_controllers::controllers::certificates::{SignError, SignRequest, Signer};
use triarch_controllers::controllers::node_lifecycle::NodeLiveness;
use triarch_controllers::controllers::{self, Config};
use triarch_controllers::{Manager, RegistryWriter, Setup, kinds_of};
use triarch_env::{Env, Mono, Scope};
use triarch_gateway::session::{Settings, Shared};
use triarch_gateway::{Board, Liveness};
use triarch_kinds::KINDS;
use triarch_mvcc::Epoch;
use triarch_raft::sim::Process;
use triarch_raft::{LeaderWatch, NodeId, RaftDb};
use triarch_registry::{AlwaysAllow, KindTable, Registry};
use triarch_scheduler::Scheduler;

use crate::run::Run;

/// Agents say that they live this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Signs of life are gathered this long before the leader is told.
const GATHER: Duration = Duration::from_millis(500);

/// One replica's control plane.
#[derive(Clone)]
pub struct ControlPlane {
    pub registry: Arc<Registry>,
    pub gateway: Shared,
    liveness: Arc<Liveness>,
    node_grace: Duration,
}

struct Heard {
    env: Env,
    liveness: Arc<Liveness>,
    since: Mono,
}

impl NodeLiveness for Heard {
    fn heard(&self, node: &str) -> Option<Duration> {
        let last = self.liveness.last(node)?;
        (last >= self.since).then(|| self.env.mono() - last)
    }

    fn leading(&self) -> Duration {
        self.env.mono() - self.since
    }
}

/// Nobody asks for certificates in a run.
struct NoAuthority;

impl Signer for NoAuthority {
    fn sign(&self, _: &SignRequest<'_>) -> Result<Vec<u8>, SignError> {
        Err(SignError::Refused("there is no authority in the simulation".into()))
    }
}

impl ControlPlane {
    pub fn start(run: &Arc<Run>, id: NodeId, process: &Process, env: &Env, db: &Arc<RaftDb>) -> ControlPlane {
        let registry =
            Registry::new(db.clone(), env.clone(), KindTable::new(KINDS), Arc::new(Chain::new(Arc::new(AlwaysAllow))));
        let board = Board::of(&registry).expect("pods can be selected by node");
        let liveness = Arc::new(Liveness::new(env.clone()));
        board.start(env, &Scope::new());
        let watch = db.leader_watch().clone();
        let settings = || Settings {
            heartbeat_interval: HEARTBEAT,
            servers: Vec::new(),
            api_endpoints: Vec::new(),
            cluster_domain: "cluster.local".into(),
            service_cidr: "10.96.0.0/12".into(),
            cluster_id: "sim".into(),
        };
        let gateway = Shared {
            env: env.clone(),
            registry: registry.clone(),
            board,
            liveness: liveness.clone(),
            settings: Arc::new(settings),
            term: Arc::new(move || watch.view().term),
        };
        let plane = ControlPlane { registry, gateway, liveness, node_grace: run.settings.node_grace };
        let (leading, watch, of, replicas) = (plane.clone(), db.leader_watch().clone(), env.clone(), run.clone());
        process.spawn(async move {
            let work = |epoch, scope: Scope| {
                let (leading, env, replicas) = (leading.clone(), of.clone(), replicas.clone());
                async move { leading.lead(&env, &replicas.ids(), epoch, &scope) }
            };
            watch.run_as_leader(&of, &Scope::new(), work).await;
        });
        let (r, telling, of, watch) = (run.clone(), plane.clone(), env.clone(), db.leader_watch().clone());
        process.spawn(async move { telling.report(&r, id, &of, &watch).await });
        plane
    }

    /// Everything that only the leader does; it ends with `scope`.
    fn lead(&self, env: &Env, replicas: &[NodeId], epoch: Epoch, scope: &Scope) {
        let address = |id: &NodeId| SocketAddr::from(([192, 0, 2, *id as u8], 6443));
        let endpoints: Vec<SocketAddr> = replicas.iter().map(address).collect();
        let config = Config {
            cluster_cidr: "10.244.0.0/16".parse().expect("a constant that is a CIDR"),
            node_mask: 24,
            root_ca: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".into(),
            liveness: Arc::new(Heard { env: env.clone(), liveness: self.liveness.clone(), since: env.mono() }),
            signer: Arc::new(NoAuthority),
            api_endpoints: Arc::new(endpoints),
            api_service_ip: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
            node_grace: self.node_grace,
            // Short, so that Events expire within a run.
            event_ttl: Duration::from_secs(10),
            bootstrap: Arc::default(),
        };
        let writer = |who: &str| Arc::new(RegistryWriter::new(&self.registry, who, Some(epoch)));
        let scheduler = Scheduler::new();
        let manager = Manager::start(Setup {
            env: env.clone(),
            scope: scope.clone(),
            mvcc: self.registry.mvcc().clone(),
            writer: writer("system:kube-controller-manager"),
            kinds: kinds_of(self.registry.kinds()),
            controllers: controllers::all(&config),
            listeners: vec![scheduler.clone()],
        });
        scheduler.start(
            env,
            scope,
            manager.feed().clone(),
            writer("system:kube-scheduler"),
            manager.recorder().clone(),
        );
    }

    /// Tells the leader which nodes this replica has heard.
    async fn report(&self, run: &Arc<Run>, id: NodeId, env: &Env, watch: &LeaderWatch) {
        loop {
            let nodes = self.liveness.take_heard().await;
            let leader = watch.view().leader.filter(|l| *l != id);
            let reached = |l: &NodeId| !run.network.is_blocked(id, *l) && !run.network.is_blocked(*l, id);
            if let Some(up) = leader.filter(reached).and_then(|l| run.up(l)).filter(|up| !up.process.is_paused()) {
                up.plane.iter().for_each(|plane| plane.liveness.reported(nodes.clone()));
            }
            env.sleep(GATHER).await;
        }
    }
}
