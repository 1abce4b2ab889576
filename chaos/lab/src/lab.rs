//! All of it together: replicas, nodes, images, the sample application.
//!
//! `./up` and the end-to-end tests start the same thing here.
//! Invariant: dropping a `Lab` leaves nothing behind but its directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Options, State, TokenClass};
use crate::error::{Context, LabError, Result};
use crate::images::{Images, SANDBOX_IMAGE};
use crate::kube::KubeClient;
use crate::node::{AgentOptions, Blackholes, Hub, Networks, Node, NodeOptions, Snapshotter};
use crate::ports;
use crate::process::{Process, ProcessId};
use crate::progress::Progress;
use crate::relay::Relay;
use crate::sample;

/// A node that has not registered and become ready by then is reported.
const NODES_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// The sample answers at the first try once its pods are ready, or soon after.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// What runs pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    None,
    /// Containers, in namespaces of their own.
    Real {
        count: u8,
        snapshotter: Snapshotter,
    },
    /// Simulated, all in one process.
    Hollow(usize),
}

/// What to start.
#[derive(Clone, Debug)]
pub struct LabOptions {
    pub cluster: Options,
    pub nodes: Nodes,
    /// Deploy the sample application.
    pub sample: bool,
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    // In the order in which they are to go: agents before their replicas.
    relay: Option<Relay>,
    hollow: Option<Process>,
    nodes: Vec<Node>,
    hub: Option<Hub>,
    cluster: Cluster,
    blackholes: Option<Blackholes>,
    agent: AgentOptions,
    hollow_nodes: usize,
}

impl Lab {
    /// Starts it; returns when everything answers.
    pub async fn start(mut options: LabOptions, progress: &Progress) -> Result<Lab> {
        let dir = options.cluster.dir.clone();
        let mut blackholes = None;
        if matches!(options.nodes, Nodes::Real { .. }) {
            let networks = networks(&dir)?;
            // Before anything else: no dial to a pod ever leaves by the uplink.
            blackholes = Some(Blackholes::add(&networks)?);
            progress.done(format!(
                "pods {} and Services {} are blackholed outside the nodes",
                networks.cluster_cidr, networks.service_cidr
            ));
            if networks != Networks::default() {
                progress.say("(the usual networks are routed on this machine, so others were chosen)");
            }
            options.cluster = options
                .cluster
                .with("clusterCidr", networks.cluster_cidr.clone())
                .with("serviceCidr", networks.service_cidr.clone());
            std::fs::create_dir_all(&dir).step("state", dir.display())?;
            let routes = blackholes.as_ref().map_or(&[][..], Blackholes::routes).to_vec();
            State::update(&dir, options.cluster.user.as_ref(), |s| {
                s.routes.extend(routes.into_iter().filter(|r| !s.routes.contains(r)).collect::<Vec<_>>());
                s.cluster_cidr = networks.cluster_cidr;
                s.service_cidr = networks.service_cidr;
            })?;
        }
        progress.begin("starting replicas");
        let cluster = Cluster::start(options.cluster).await?;
        progress.done(format!("{} replicas are ready on {}", cluster.replicas().len(), addresses(&cluster)));
        let agent = AgentOptions {
            program: cluster.binaries().agent.clone(),
            servers: cluster.node_urls(),
            token: None,
            extra: Vec::new(),
        };
        let mut lab = Lab {
            relay: None,
            hollow: None,
            nodes: Vec::new(),
            hub: None,
            cluster,
            blackholes,
            agent,
            hollow_nodes: 0,
        };
        match options.nodes {
            Nodes::None => {}
            Nodes::Real { count, snapshotter } => lab.start_nodes(count, snapshotter, progress).await?,
            Nodes::Hollow(count) => lab.start_hollow(count, progress).await?,
        }
        if options.sample {
            lab.start_sample(progress).await?;
        }
        Ok(lab)
    }

    async fn start_nodes(&mut self, count: u8, snapshotter: Snapshotter, progress: &Progress) -> Result<()> {
        progress.begin("making images");
        let dir = self.cluster.dir().to_owned();
        let user = self.cluster.options().user.clone();
        let images = Images::make(&dir.join("images"), user.as_ref())?;
        progress.done("images sandbox:1 and web:1 are made (no registry)".to_owned());
        progress.begin("starting nodes");
        let logs = dir.join("logs");
        let hub = Hub::start(&self.cluster.binaries().lab, &logs)?;
        State::update(&dir, user.as_ref(), |s| s.hub = Some(hub.process()))?;
        let service_cidr = State::read(&dir)?.unwrap_or_default().service_cidr;
        let token = self.cluster.token(TokenClass::Node).await?;
        self.agent.token = Some(token);
        for index in 1..=count {
            let name = format!("n{index}");
            let node = NodeOptions {
                dir: dir.join("nodes").join(&name),
                name,
                index,
                logs: logs.clone(),
                lab: self.cluster.binaries().lab.clone(),
                service_cidr: service_cidr.clone(),
                snapshotter,
                sandbox_image: SANDBOX_IMAGE.to_owned(),
            };
            let mut node = Node::start(node, &hub)?;
            State::update(&dir, user.as_ref(), |s| {
                s.nodes.retain(|n| n.name != node.name());
                s.nodes.push(node.state());
            })?;
            node.import_image(&images.sandbox)?;
            node.import_image(&images.web)?;
            node.start_agent(&self.agent)?;
            self.nodes.push(node);
        }
        self.hub = Some(hub);
        let names: Vec<String> = self.nodes.iter().map(|n| n.name().to_owned()).collect();
        self.wait_nodes(&names).await?;
        let list: Vec<String> = self.nodes.iter().map(|n| format!("{} {}", n.name(), n.ip())).collect();
        progress.done(format!("nodes {} are ready, each in namespaces of its own", list.join(", ")));
        Ok(())
    }

    async fn start_hollow(&mut self, count: usize, progress: &Progress) -> Result<()> {
        progress.begin("starting hollow nodes");
        let token = self.cluster.token(TokenClass::Node).await?;
        self.agent.token = Some(token);
        self.hollow_nodes = count;
        self.spawn_hollow()?;
        let names: Vec<String> = (0..count).map(|i| format!("hollow-{i:04}")).collect();
        self.wait_nodes(&names).await?;
        progress.done(format!("{count} hollow nodes are ready (containers are simulated)"));
        Ok(())
    }

    fn spawn_hollow(&mut self) -> Result<()> {
        let dir = self.cluster.dir();
        let user = self.cluster.options().user.clone();
        let data = dir.join("hollow");
        std::fs::create_dir_all(&data).step("nodes", data.display())?;
        if let Some(user) = &user {
            user.own(&data);
        }
        let mut command = Command::new(&self.agent.program);
        for server in &self.agent.servers {
            command.args(["--server", server]);
        }
        command.arg("--data-dir").arg(&data).args(["--hollow", &self.hollow_nodes.to_string()]).args(&self.agent.extra);
        if let Some(token) = &self.agent.token {
            command.env("TRIARCH_TOKEN", token);
        }
        let process = Process::spawn("hollow nodes", command, &dir.join("logs/hollow.log"), user.as_ref())?;
        let id = process.id();
        State::update(dir, user.as_ref(), |s| {
            s.hollow = Some(id);
            s.hollow_nodes = self.hollow_nodes;
        })?;
        self.hollow = Some(process);
        Ok(())
    }

    /// Waits until all of them are Ready.
    async fn wait_nodes(&mut self, names: &[String]) -> Result<()> {
        let client = self.cluster.client()?;
        let end = Instant::now() + NODES_TIMEOUT;
        loop {
            let nodes = client.list("/api/v1/nodes").await;
            let ready: Vec<&str> =
                nodes.iter().flatten().filter(|n| is_ready(n)).filter_map(|n| n["metadata"]["name"].as_str()).collect();
            if names.iter().all(|n| ready.contains(&n.as_str())) {
                return Ok(());
            }
            if let Some(failure) = self.agent_failure() {
                return Err(failure);
            }
            if Instant::now() >= end {
                let waiting: Vec<&str> =
                    names.iter().map(String::as_str).filter(|n| !ready.contains(n)).take(5).collect();
                let log = self.nodes.first().map(|n| crate::process::tail(&n.agent_log()));
                let log = log.or_else(|| self.hollow.as_ref().map(Process::log_tail)).unwrap_or_default();
                let error = nodes.err().map(|e| format!(" ({e})")).unwrap_or_default();
                return Err(LabError::new(
                    "nodes",
                    format!("not ready after {NODES_TIMEOUT:?}: {}{error}; {log}", waiting.join(", ")),
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn agent_failure(&mut self) -> Option<LabError> {
        if let Some(hollow) = &mut self.hollow
            && !hollow.is_running()
        {
            return Some(hollow.failure("agent"));
        }
        self.nodes.iter_mut().find_map(Node::agent_failure)
    }

    async fn start_sample(&mut self, progress: &Progress) -> Result<()> {
        progress.begin("deploying the sample application");
        let client = self.client()?;
        let address = sample::apply(&client, 2).await?;
        sample::wait(&client).await?;
        if self.nodes.is_empty() {
            progress.done("deployment web is available (simulated containers answer nobody)".to_owned());
            return Ok(());
        }
        let dir = self.cluster.dir().to_owned();
        let known = State::read(&dir)?.unwrap_or_default().app_port;
        let port = if known == 0 || ports::taken(known) { ports::free(1)?[0] } else { known };
        let sockets: Vec<PathBuf> = self.nodes.iter().map(Node::relay_socket).collect();
        let target = format!("{address}:{}", sample::SERVICE_PORT);
        self.relay = Some(Relay::start(port, sockets, target.clone()).await?);
        sample::wait_answer(port, ANSWER_TIMEOUT).await?;
        State::update(&dir, self.cluster.options().user.as_ref(), |s| s.app_port = port)?;
        progress.done(format!("deployment web answers through its Service {target}"));
        Ok(())
    }

    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    pub fn nodes(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// A client of the shared address.
    pub fn client(&self) -> Result<KubeClient> {
        self.cluster.client()
    }

    /// `http://127.0.0.1:PORT` of the sample, when it can be reached.
    pub fn app(&self) -> Option<u16> {
        self.relay.as_ref().map(|r| r.address().port())
    }

    pub fn hollow_id(&self) -> Option<ProcessId> {
        self.hollow.as_ref().map(Process::id)
    }

    /// The last line of `./up`.
    pub fn ready_line(&self) -> String {
        let replicas = self.cluster.replicas().len();
        let hollow = if self.hollow_nodes > 0 { format!(" hollow={}", self.hollow_nodes) } else { String::new() };
        let app = self.app().map_or("none".to_owned(), |p| format!("http://127.0.0.1:{p}"));
        let kubeconfig = self.cluster.kubeconfig_path();
        format!(
            "ready replicas={replicas} nodes={}{hollow} kubeconfig={} app={app}",
            self.nodes.len(),
            kubeconfig.display()
        )
    }

    /// Starts again what has ended by itself or was killed; says what.
    pub fn revive(&mut self) -> Result<Vec<String>> {
        let mut revived = Vec::new();
        for i in 0..self.cluster.replicas().len() {
            if !self.cluster.replica(i).is_running() {
                self.cluster.restart(i)?;
                revived.push(format!("replica {}", self.cluster.replica(i).name()));
            }
        }
        for node in &mut self.nodes {
            if !node.containerd_runs() {
                node.restart_containerd()?;
                revived.push(format!("containerd of {}", node.name()));
            }
        }
        for node in &mut self.nodes {
            if node.agent_failure().is_some() {
                node.start_agent(&self.agent)?;
                revived.push(format!("agent of {}", node.name()));
            }
        }
        if self.hollow.as_mut().is_some_and(|h| !h.is_running()) {
            self.spawn_hollow()?;
            revived.push("hollow nodes".to_owned());
        }
        Ok(revived)
    }

    /// Stops everything in order: agents, then nodes, then replicas.
    pub fn stop(mut self) {
        self.relay = None;
        if let Some(mut hollow) = self.hollow.take() {
            hollow.stop(Duration::from_secs(3));
        }
        self.nodes.iter_mut().for_each(Node::stop);
        self.nodes.clear();
        self.hub = None;
        self.cluster.stop();
        self.blackholes = None;
        let cluster = &self.cluster;
        // What is not written now is found by `down`.
        let _ = State::update(cluster.dir(), cluster.options().user.as_ref(), |s| {
            s.nodes.clear();
            s.hub = None;
            s.hollow = None;
            s.routes.clear();
            s.supervisor = None;
            s.ready = String::new();
        });
    }
}

/// Those of the cluster that is there, else free ones.
fn networks(dir: &Path) -> Result<Networks> {
    let known = State::read(dir)?.unwrap_or_default();
    if known.cluster_cidr.is_empty() || known.service_cidr.is_empty() {
        return Networks::choose();
    }
    Ok(Networks { cluster_cidr: known.cluster_cidr, service_cidr: known.service_cidr })
}

fn addresses(cluster: &Cluster) -> String {
    let own: Vec<String> = cluster.replicas().iter().map(|r| format!("127.0.0.1:{}", r.port())).collect();
    format!("{} and together on 127.0.0.1:{}", own.join(", "), cluster.shared_port())
}

/// Ready, and known to be: the taint goes a moment after the condition comes,
/// and pods made in between would all land on the node that was first.
fn is_ready(node: &serde_json::Value) -> bool {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        && !taints.into_iter().any(|t| t["key"] == "node.kubernetes.io/not-ready")
}
