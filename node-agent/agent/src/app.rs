//! Puts an agent together from its command line and runs it.

use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use triarch_cri::Cri;
use triarch_env::{Env, ExitCode, Scope, Secret};
use triarch_kubelet::ports::{HollowHost, NodeConfig};
use triarch_kubelet::probe::HollowDialer;
use triarch_kubelet::runtime::Runtime;
use triarch_kubelet::runtime::cri::CriRuntime;
use triarch_kubelet::runtime::hollow::HollowRuntime;

use crate::address::Address;
use crate::cli::{Args, EventsArg};
use crate::dialer::NodeDialer;
use crate::facts::{self, Machine, NodeIdentity, Readings};
use crate::host::NodeHost;
use crate::identity::{self, Identity, IdentityError};
use crate::net::{self, NetConfig, relay};
use crate::node::ledger::Ledger;
use crate::node::store::SLICES;
use crate::node::{Events, Node, Parts, Shared};
use crate::node_status::Watcher;
use crate::session::{Uplink, run};
use crate::tunnel;
use crate::uplink::{GrpcUplink, NODES_PER_LANE};

/// The name under which a process of simulated nodes joins.
const HOLLOW: &str = "hollow-*";
/// A first join is tried this long before the agent gives up.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);

/// An error with the exit code that it means.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: ExitCode,
    pub message: String,
}

impl Failure {
    fn new(code: ExitCode, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }
}

impl From<IdentityError> for Failure {
    fn from(e: IdentityError) -> Failure {
        let code = match &e {
            IdentityError::Usage(_) => ExitCode::Usage,
            IdentityError::Unreachable(_) => ExitCode::Unreachable,
            IdentityError::Safety(_) => ExitCode::Refused,
            _ => ExitCode::Failed,
        };
        Failure::new(code, e.to_string())
    }
}

/// Runs until `stop` resolves. Pods and services go on without the agent.
pub async fn run(env: Env, args: Args, stop: impl Future<Output = ()>) -> Result<(), Failure> {
    let dir = args.data_dir.clone().ok_or_else(|| Failure::new(ExitCode::Usage, "--data-dir is needed"))?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(|e| Failure::new(ExitCode::Failed, format!("--data-dir {}: {e}", dir.display())))?;
    let dir =
        std::fs::canonicalize(&dir).map_err(|e| Failure::new(ExitCode::Failed, format!("{}: {e}", dir.display())))?;
    let _lock = lock(&dir)?;
    let name = match args.hollow {
        Some(_) => HOLLOW.to_owned(),
        None => args.node_name.clone().unwrap_or_else(host_name),
    };
    // A taken port and a missing runtime are said before anything is joined.
    let metrics = match &args.metrics {
        Some(at) => Some(crate::http::bind(at).await.map_err(|e| Failure::new(ExitCode::Failed, e))?),
        None => None,
    };
    let cri = match &args.cri {
        Some(socket) => Some(connect(&env, socket).await?),
        None => None,
    };
    let identity = Arc::new(identify(&env, &args, &dir, &name).await?);
    let scope = Scope::new();
    let lanes = args.hollow.map_or(1, |n| (n as usize).div_ceil(NODES_PER_LANE));
    let grpc = Arc::new(GrpcUplink::new(identity.clone(), &args.servers, lanes));
    env.spawn_in(&scope, "renew", identity::keep_renewed(env.clone(), identity.clone(), args.servers.clone()));
    let nodes = match (args.hollow, cri) {
        (Some(count), _) => hollow(&env, &args, count, &identity, &scope).await,
        (None, Some((cri, info))) => vec![real(&env, &args, &dir, &name, &identity, cri, info, &scope).await?],
        (None, None) => return Err(Failure::new(ExitCode::Usage, "either --cri or --hollow is needed")),
    };
    let uplink: Arc<dyn Uplink> = grpc.clone();
    for node in &nodes {
        env.spawn_in(&scope, "session", run::keep(node.clone(), uplink.clone(), scope.clone()));
    }
    let (tunnelled, of, within) = (nodes.clone(), uplink.clone(), scope.clone());
    env.spawn_in(&scope, "tunnels", keep_tunnels(env.clone(), tunnelled, of, within));
    let nodes = Arc::new(nodes);
    if let Some(listener) = metrics {
        env.spawn_in(&scope, "metrics", crate::http::serve(env.clone(), listener, nodes.clone()));
    }
    if let Some(path) = args.listen_relay.clone() {
        let of = env.clone();
        env.spawn_in(&scope, "relay", async move {
            let path = PathBuf::from(path.strip_prefix("unix://").unwrap_or(&path));
            if let Err(e) = relay::dial(of, &path).await {
                tracing::error!(path = %path.display(), error = %e, "cannot listen for the relay");
            }
        });
    }
    tracing::info!(nodes = nodes.len(), cluster = %identity.cluster.cluster_id, "the agent runs");
    stop.await;
    tracing::info!("stopping; pods and services go on");
    scope.cancel();
    nodes.iter().for_each(|n| n.sync_ledger());
    Ok(())
}

/// Listens for tunnels at every replica, also at those that are told of later.
async fn keep_tunnels(env: Env, nodes: Vec<Arc<Node>>, uplink: Arc<dyn Uplink>, scope: Scope) {
    let mut known = 0;
    loop {
        while known < uplink.replicas() {
            for node in &nodes {
                let listening = tunnel::keep(node.clone(), uplink.clone(), known, scope.clone());
                env.spawn_in(&scope, "tunnels-of-replica", listening);
            }
            known += 1;
        }
        env.sleep(Duration::from_secs(5)).await;
    }
}

fn lock(dir: &Path) -> Result<nix::fcntl::Flock<std::fs::File>, Failure> {
    let path = dir.join("lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| Failure::new(ExitCode::Failed, format!("{}: {e}", path.display())))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|_| {
        let text = format!("another triarch-node uses the data directory {}", dir.display());
        Failure::new(ExitCode::Refused, text)
    })
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    if name.is_empty() { "node".into() } else { name.to_lowercase() }
}

async fn connect(
    env: &Env,
    socket: &Path,
) -> Result<(Arc<CriRuntime>, triarch_kubelet::runtime::RuntimeInfo), Failure> {
    let runtime = Arc::new(CriRuntime::new(Cri::new(env.clone(), socket)));
    match runtime.info().await {
        Ok(info) => Ok((runtime, info)),
        Err(e) => Err(Failure::new(ExitCode::Unreachable, e.to_string())),
    }
}

async fn identify(env: &Env, args: &Args, dir: &Path, name: &str) -> Result<Identity, Failure> {
    if let Some(known) = Identity::load(dir, name)? {
        let Some(why) = known.unusable(env.wall())? else { return Ok(known) };
        if args.token.is_none() && args.token_file.is_none() {
            return Err(Failure::new(ExitCode::Refused, format!("{why}: {}", identity::EXPIRED_ADVICE)));
        }
        tracing::warn!(%why, "joining anew with the token");
    }
    let from_file = |path: &PathBuf| {
        std::fs::read_to_string(path)
            .map(|t| Secret::new(t.trim()))
            .map_err(|e| Failure::new(ExitCode::Usage, format!("--token-file {}: {e}", path.display())))
    };
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => from_file(path)?,
        (None, None) => {
            let text = format!(
                "the data directory {} holds no certificate yet: give --token (from `triarch token create --class node`)",
                dir.display()
            );
            return Err(Failure::new(ExitCode::Usage, text));
        }
    };
    let start = env.mono();
    loop {
        match Identity::join(env, dir, name, &token, &args.servers).await {
            Err(IdentityError::Unreachable(why)) if env.mono() - start < JOIN_PATIENCE => {
                tracing::info!(reason = %why, "no replica answers yet");
                env.sleep(env.jitter(Duration::from_millis(500), 50)).await;
            }
            other => return Ok(other?),
        }
    }
}

fn events(args: &Args, default: Events) -> Events {
    match args.events {
        Some(EventsArg::All) => Events::All,
        Some(EventsArg::Warnings) => Events::Warnings,
        Some(EventsArg::None) => Events::None,
        None => default,
    }
}

/// The address that packets to other machines leave with.
fn own_address() -> Option<Ipv4Addr> {
    // Connecting a datagram socket sends nothing; it only chooses a route.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(ip) if !ip.is_unspecified() => Some(ip),
        _ => None,
    }
}

#[allow(clippy::too_many_arguments)]
async fn real(
    env: &Env,
    args: &Args,
    dir: &Path,
    name: &str,
    identity: &Arc<Identity>,
    runtime: Arc<CriRuntime>,
    info: triarch_kubelet::runtime::RuntimeInfo,
    scope: &Scope,
) -> Result<Arc<Node>, Failure> {
    let ip = args.node_ip.or_else(own_address).ok_or_else(|| {
        Failure::new(ExitCode::Usage, "the node's address is not known (there is no default route): give --node-ip")
    })?;
    let machine = Machine::read(info);
    let readings = Readings::read(dir);
    let config = NodeConfig {
        name: name.to_owned(),
        ips: vec![ip.to_string()],
        runtime_name: machine.runtime.name.clone(),
        cgroup_root: args.cgroup_root.clone(),
        cluster_domain: domain(identity),
        cluster_dns: args.cluster_dns.clone(),
        cpu_milli: i64::try_from(machine.cpus * 1000).unwrap_or(i64::MAX),
        memory_bytes: i64::try_from(machine.memory).unwrap_or(i64::MAX),
        ephemeral_bytes: i64::try_from(readings.disk_total).unwrap_or(i64::MAX),
        relist: Duration::from_secs(10),
    };
    let ledger = Ledger::open(dir)
        .map_err(|e| Failure::new(ExitCode::Failed, format!("the ledger in {}: {e}", dir.display())))?;
    let shared = Shared::new(env);
    let host =
        NodeHost::new(env.clone(), Arc::new(config.clone()), dir.to_owned(), args.log_dir.clone(), shared.clone());
    let parts = Parts {
        env: env.clone(),
        config,
        boot_id: machine.boot_id.clone(),
        runtime: runtime.clone(),
        dialer: Arc::new(NodeDialer::new(env.clone())),
        ledger: Some(ledger),
        events: events(args, Events::All),
        without: vec![],
    };
    let id = NodeIdentity {
        name: name.to_owned(),
        ips: vec![ip.to_string()],
        pods: args.max_pods,
        labels: args.node_labels.clone(),
    };
    let node = Node::start(parts, shared, Arc::new(host), scope.clone());
    let watcher = Watcher { runtime, dir: dir.to_owned(), id, machine, thresholds: args.eviction_hard };
    let first = watcher.first(&node).await;
    env.spawn_in(scope, "node-status", watcher.keep(node.clone(), first));
    let of = node.clone();
    env.spawn_in(scope, "ledger-sync", async move {
        loop {
            of.env().sleep(Duration::from_secs(1)).await;
            let node = of.clone();
            let _ = tokio::task::spawn_blocking(move || node.sync_ledger()).await;
        }
    });
    let net = NetConfig {
        data_dir: dir.to_owned(),
        cni_conf_dir: args.cni_conf_dir.clone(),
        service_cidr: identity.cluster.service_cidr.clone(),
        proxy: !args.no_proxy,
        routes: !args.no_routes,
    };
    env.spawn_in(scope, "log-rotation", crate::log_rotation::keep(node.clone()));
    env.spawn_in(scope, "network", net::keep(node.clone(), net));
    if args.relay_api {
        let endpoints = match node.welcome() {
            Some(w) if !w.api_endpoints.is_empty() => w.api_endpoints,
            _ => identity.cluster.api_endpoints.clone(),
        };
        let relaying = keep_api_relays(node.clone(), endpoints, args.servers.clone(), scope.clone());
        env.spawn_in(scope, "api-relays", relaying);
    }
    Ok(node)
}

/// Relays each endpoint once; new ones as the control plane tells of them.
async fn keep_api_relays(node: Arc<Node>, mut endpoints: Vec<String>, servers: Vec<Address>, scope: Scope) {
    let mut relayed: Vec<String> = Vec::new();
    loop {
        for endpoint in endpoints.drain(..).take(16) {
            if !relayed.contains(&endpoint) {
                let relaying = relay::api(node.env().clone(), endpoint.clone(), relayed.len(), servers.clone());
                node.env().spawn_in(&scope, "api-relay", relaying);
                relayed.push(endpoint);
            }
        }
        node.welcomed.notified().await;
        endpoints = node.welcome().map(|w| w.api_endpoints).unwrap_or_default();
    }
}

fn set_status(node: &Node, id: &NodeIdentity, machine: &Machine, status: &serde_json::Value) {
    let object = facts::node(id, machine, status);
    node.set_node_json(serde_json::to_vec(&object).expect("plain data").into());
}

fn domain(identity: &Identity) -> String {
    let domain = &identity.cluster.cluster_domain;
    if domain.is_empty() { "cluster.local".into() } else { domain.clone() }
}

/// Simulated nodes, all in this process.
async fn hollow(env: &Env, args: &Args, count: u32, identity: &Arc<Identity>, scope: &Scope) -> Vec<Arc<Node>> {
    let mut nodes = Vec::with_capacity(count as usize);
    for index in 0..count {
        let runtime = HollowRuntime::new(env.clone(), index);
        let info = runtime.info().await.unwrap_or_default();
        let name = format!("hollow-{index:04}");
        let ip = Ipv4Addr::new(100, 64 + (index >> 14) as u8, (index >> 6) as u8, (index & 63) as u8 + 1).to_string();
        let machine = Machine {
            cpus: 32,
            memory: 256 << 30,
            kernel: "hollow".into(),
            os_image: "Triarch hollow node".into(),
            architecture: "amd64".into(),
            machine_id: name.clone(),
            runtime: info,
            ..Default::default()
        };
        let readings = Readings {
            memory_available: 255 << 30,
            disk_total: 1 << 40,
            disk_available: 1 << 39,
            ..Default::default()
        };
        let config = NodeConfig {
            name: name.clone(),
            ips: vec![ip.clone()],
            runtime_name: "hollow".into(),
            cgroup_root: "/".into(),
            cluster_domain: domain(identity),
            cpu_milli: 32_000,
            memory_bytes: 256 << 30,
            ephemeral_bytes: 1 << 40,
            relist: Duration::from_secs(60),
            ..Default::default()
        };
        let parts = Parts {
            env: env.clone(),
            config,
            boot_id: env.uuid(),
            runtime,
            dialer: Arc::new(HollowDialer),
            ledger: None,
            events: events(args, Events::Warnings),
            without: vec!["services".into(), SLICES.into(), "nodes".into()],
        };
        let labels = args.node_labels.iter().cloned().chain([("triarch.io/hollow".to_owned(), "true".to_owned())]);
        let id = NodeIdentity { name, ips: vec![ip], pods: args.max_pods, labels: labels.collect() };
        let node = Node::start(parts, Shared::new(env), Arc::new(HollowHost), scope.clone());
        let status = facts::status(&id, &machine, &readings, &args.eviction_hard, None, env.wall());
        set_status(&node, &id, &machine, &status);
        nodes.push(node);
    }
    nodes
}
