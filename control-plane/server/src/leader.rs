//! What runs only while this replica leads: controllers, scheduler, and the
//! objects that a cluster has from its first day. All of it hangs on the
//! epoch's scope and is gone when the epoch ends.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use triarch_controllers::controllers::certificates::{SignError, SignRequest, Signer};
use triarch_controllers::controllers::kubernetes_service::{ApiEndpoints, KubernetesService};
use triarch_controllers::controllers::node_lifecycle::NodeLiveness;
use triarch_controllers::controllers::{self, Config};
use triarch_controllers::{Manager, RegistryWriter, Setup, kinds_of};
use triarch_env::{Env, Mono, Scope};
use triarch_gateway::Liveness;
use triarch_mvcc::{Db, Epoch};
use triarch_pki::ca::ExtendedUsage;
use triarch_raft::RaftDb;
use triarch_registry::Registry;
use triarch_scheduler::Scheduler;

use crate::cluster;
use crate::config::ServerConfiguration;
use crate::keys::ClusterKeys;
use crate::reachable::Reachable;

/// Certificates of the signers live this long unless the request asks for less.
const SIGNED_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

/// What the leader's work is made of.
pub struct Leader {
    pub env: Env,
    pub registry: Arc<Registry>,
    pub db: Arc<RaftDb>,
    pub keys: Arc<ClusterKeys>,
    pub liveness: Arc<Liveness>,
    pub config: Arc<ServerConfiguration>,
}

/// Liveness as the present leadership sees it.
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

/// The addresses of the replicas that answer, from the membership.
struct Replicas(Arc<RaftDb>, Arc<Reachable>);

impl ApiEndpoints for Replicas {
    fn now(&self) -> Vec<SocketAddr> {
        cluster::endpoints(&self.0)
            .iter()
            .filter(|(id, _)| self.1.lists(*id))
            .filter_map(|(_, a)| a.parse::<SocketAddr>().ok())
            // A loopback address means nothing inside a pod.
            .filter(|a| !a.ip().is_loopback())
            .collect()
    }
}

/// The cluster's authority behind certificates.k8s.io.
struct Authority(Arc<ClusterKeys>);

impl Signer for Authority {
    fn sign(&self, r: &SignRequest<'_>) -> Result<Vec<u8>, SignError> {
        let pem = std::str::from_utf8(r.pem).map_err(|e| SignError::Refused(e.to_string()))?;
        let usages: Vec<ExtendedUsage> = r
            .usages
            .iter()
            .filter_map(|u| match u.as_str() {
                "client auth" => Some(ExtendedUsage::ClientAuth),
                "server auth" => Some(ExtendedUsage::ServerAuth),
                _ => None,
            })
            .collect();
        let asked = r.expiration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
        let lifetime = asked.map_or(SIGNED_LIFETIME, |a| a.min(SIGNED_LIFETIME));
        let signed = self.0.ca.sign_csr(pem, &usages, r.now, lifetime);
        signed.map(String::into_bytes).map_err(|e| SignError::Refused(e.to_string()))
    }
}

impl Leader {
    /// Starts everything under `scope`.
    pub fn start(&self, epoch: Epoch, scope: &Scope) {
        let (env, registry) = (&self.env, &self.registry);
        let reachable = Arc::new(Reachable::default());
        let cluster_cidr = self.config.cluster_cidr.parse().expect("checked with the configuration");
        let config = Config {
            cluster_cidr,
            node_mask: 24,
            root_ca: self.keys.ca.certificate_pem().to_owned(),
            liveness: Arc::new(Heard { env: env.clone(), liveness: self.liveness.clone(), since: env.mono() }),
            signer: Arc::new(Authority(self.keys.clone())),
            api_endpoints: Arc::new(Replicas(self.db.clone(), reachable.clone())),
            api_service_ip: IpAddr::V4(self.config.kubernetes_service_ip()),
            node_grace: self.config.grace(),
            event_ttl: Duration::from_secs(self.config.event_ttl_seconds),
            bootstrap: Arc::new(crate::bootstrap::objects(&self.keys, &self.config)),
        };
        let writer = |who: &str| Arc::new(RegistryWriter::new(registry, who, Some(epoch)));
        let scheduler = Scheduler::new();
        let manager = Manager::start(Setup {
            env: env.clone(),
            scope: scope.clone(),
            mvcc: self.db.mvcc().clone(),
            writer: writer("system:kube-controller-manager"),
            kinds: kinds_of(registry.kinds()),
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
        let looking = reachable.run(env.clone(), self.db.clone(), move || {
            manager.poke("kubernetes-service", KubernetesService::key());
        });
        env.spawn_in(scope, "reachable", looking);
    }
}
