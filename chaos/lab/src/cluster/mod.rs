//! A control plane of several replicas on this machine, as processes.
//!
//! ```text
//!   DIR/state.json             names, ports and process ids
//!   DIR/kubeconfig             an administrator's, naming the shared port
//!   DIR/replicas/NAME/         data directory
//!   DIR/config/NAME.yaml       ServerConfiguration
//!   DIR/logs/NAME.log
//!   DIR/run/NAME.sock          where node agents reach the replica
//! ```
//! Owns starting (first birth, then joins; later all at once), waiting until
//! ready, and hurting one replica by its handle. Knows nothing of nodes.
//! Invariant: dropping the `Cluster` ends every process that it started.

mod network;
mod options;
mod replica;
mod state;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use network::{Cut, Network};
pub use options::Options;
pub use replica::{Replica, Stopped};
pub use state::{NodeState, ReplicaState, State};

use crate::binaries::Binaries;
use crate::error::{Context, LabError, Result};
use crate::kube::{KubeClient, Kubeconfig};
use crate::ports;
use crate::process::{self, ProcessId};
use replica::Birth;

/// A replica that is not ready by then is reported with the end of its log.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at something that is being waited for.
const POLL: Duration = Duration::from_millis(10);
/// Paths of unix sockets are shorter than this, in bytes.
const MAX_SOCKET_PATH: usize = 107;

/// Which token to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenClass {
    Node,
    Server,
}

/// Running replicas.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    binaries: Binaries,
    shared_port: u16,
    replicas: Vec<Replica>,
    admin: Option<Kubeconfig>,
}

impl std::fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kubeconfig({})", self.server)
    }
}

impl Cluster {
    /// Starts the replicas in `options.dir`: a new cluster when it is empty,
    /// else the one that is there. Returns when all are ready.
    pub async fn start(options: Options) -> Result<Cluster> {
        let mut cluster = Cluster::prepare(options)?;
        if cluster.replicas[0].is_new() {
            cluster.found().await?;
        } else {
            for replica in cluster.replicas.iter_mut().filter(|r| !r.is_new()) {
                replica.spawn(&Birth::Again)?;
            }
        }
        cluster.save()?;
        cluster.obtain_kubeconfig().await?;
        cluster.join_new().await?;
        for i in 0..cluster.replicas.len() {
            cluster.wait_ready(i).await?;
        }
        cluster.save()?;
        Ok(cluster)
    }

    /// Names, ports and files; nothing runs yet.
    pub fn prepare(mut options: Options) -> Result<Cluster> {
        triarch_pki::install_crypto();
        if options.replicas == 0 || options.replicas > options::NAMES.len() {
            let takes = format!("replicas: got {}, takes 1 to {}", options.replicas, options::NAMES.len());
            return Err(LabError::new("replicas", takes));
        }
        let binaries = match options.binaries.clone() {
            Some(b) => b,
            None => Binaries::obtain(options.profile)?,
        };
        for part in ["", "replicas", "config", "logs", "run"] {
            make_dir(&options.dir.join(part), &options)?;
        }
        options.dir = options.dir.canonicalize().step("replicas", options.dir.display())?;
        let known = State::read(&options.dir)?;
        if let Some(alive) =
            known.as_ref().and_then(|s| s.replicas.iter().find(|r| r.process.is_some_and(|p| p.alive())))
        {
            let reason = format!("replica {} already runs in {}", alive.name, options.dir.display());
            return Err(LabError::new("replicas", reason));
        }
        let seated = options.network.is_some();
        let (shared_port, ports) = match known.filter(|s| s.replicas.len() == options.replicas) {
            Some(s) => (s.shared_port, s.replicas.iter().map(|r| (r.port, r.peer_port)).collect()),
            None if seated => (network::PORT, vec![(network::PORT, network::PEER_PORT); options.replicas]),
            None => choose_ports(options.replicas)?,
        };
        for port in ports.iter().flat_map(|(a, b)| [*a, *b]).chain([shared_port]) {
            if !seated && ports::taken(port) {
                return Err(LabError::new("ports", format!("127.0.0.1:{port} is taken by another program")));
            }
        }
        let mut replicas = Vec::new();
        for (name, (port, peer_port)) in options::NAMES.iter().zip(ports) {
            let socket = options.dir.join("run").join(format!("{name}.sock"));
            let admin = options.dir.join("replicas").join(name).join("admin.sock");
            if socket.as_os_str().len().max(admin.as_os_str().len()) > MAX_SOCKET_PATH {
                let reason = format!("{}: too long for a unix socket; use a shorter directory", admin.display());
                return Err(LabError::new("replicas", reason));
            }
            replicas.push(Replica::new(name, port, peer_port, shared_port, &options, &binaries)?);
        }
        let cluster = Cluster { options, binaries, shared_port, replicas, admin: None };
        cluster.save()?;
        Ok(cluster)
    }

    /// The first replica founds the cluster.
    async fn found(&mut self) -> Result<()> {
        self.replicas[0].spawn(&Birth::Init)?;
        self.obtain_kubeconfig().await?;
        self.wait_ready(0).await
    }

    /// The others join it one by one.
    async fn join_new(&mut self) -> Result<()> {
        let url = self.replicas[0].url();
        for i in 1..self.replicas.len() {
            if !self.replicas[i].is_new() || self.replicas[i].is_running() {
                continue;
            }
            self.wait_ready(0).await?;
            let token = self.token(TokenClass::Server).await?;
            self.replicas[i].spawn(&Birth::Join { url: url.clone(), token })?;
            self.wait_ready(i).await?;
        }
        Ok(())
    }

    /// Keeps the kubeconfig that is there, else makes one as soon as a replica
    /// can. It names the shared port.
    async fn obtain_kubeconfig(&mut self) -> Result<()> {
        let path = self.kubeconfig_path();
        if self.admin.is_some() {
            return Ok(());
        }
        if !path.exists() {
            let end = Instant::now() + READY_TIMEOUT;
            let server = self.shared_url();
            let text = loop {
                match self
                    .triarch(&["kubeconfig", "--user", "admin", "--group", "system:masters", "--server", &server])
                    .await
                {
                    Ok(text) => break text,
                    Err(e) if Instant::now() >= end => return Err(LabError::new("kubeconfig", e.reason)),
                    Err(_) => {}
                }
                if let Some(failed) = self.replicas.iter_mut().find_map(|r| r.has_failed().then(|| r.failure())) {
                    return Err(failed);
                }
                tokio::time::sleep(POLL).await;
            };
            write_private(&path, &text, &self.options)?;
        }
        self.admin = Some(Kubeconfig::read(&path)?);
        Ok(())
    }

    /// Waits until `/readyz` of replica `i` says yes.
    pub async fn wait_ready(&mut self, i: usize) -> Result<()> {
        let end = Instant::now() + READY_TIMEOUT;
        let client = self.replica_client(i)?;
        loop {
            let last = match client.text("/readyz").await {
                Ok(_) => return Ok(()),
                Err(e) => e,
            };
            let replica = &mut self.replicas[i];
            if replica.has_failed() {
                return Err(replica.failure());
            }
            if Instant::now() >= end {
                let name = replica.name();
                let reason =
                    format!("replica {name} is not ready after {READY_TIMEOUT:?}: {last}; {}", replica.log_tail());
                return Err(LabError::new("replicas", reason));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until every replica that runs has a leader and is ready.
    pub async fn wait_all_ready(&mut self) -> Result<()> {
        for i in 0..self.replicas.len() {
            if self.replicas[i].is_running() {
                self.wait_ready(i).await?;
            }
        }
        Ok(())
    }

    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    pub fn kubeconfig_path(&self) -> PathBuf {
        self.options.dir.join("kubeconfig")
    }

    pub fn shared_port(&self) -> u16 {
        self.shared_port
    }

    /// `https://HOST:PORT` that leads to any of them.
    pub fn shared_url(&self) -> String {
        match self.options.network {
            Some(_) => format!("https://{}", Network::balanced()),
            None => format!("https://127.0.0.1:{}", self.shared_port),
        }
    }

    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    pub fn replica(&mut self, i: usize) -> &mut Replica {
        &mut self.replicas[i]
    }

    /// Addresses for node agents: `unix://…`, one a replica.
    pub fn node_urls(&self) -> Vec<String> {
        self.replicas.iter().map(|r| format!("unix://{}", r.node_socket().display())).collect()
    }

    fn admin(&self) -> Result<Kubeconfig> {
        self.admin.clone().ok_or_else(|| LabError::new("kubeconfig", "there is none yet"))
    }

    /// A client of the shared address.
    pub fn client(&self) -> Result<KubeClient> {
        KubeClient::new(self.admin()?)
    }

    /// A client of one replica's own address.
    pub fn replica_client(&self, i: usize) -> Result<KubeClient> {
        self.client()?.at(&self.replicas[i].url())
    }

    /// Runs `triarch VERB… --data-dir D` against the first replica that answers.
    pub async fn triarch(&self, arguments: &[&str]) -> Result<String> {
        let mut last = LabError::new("replicas", "no replica runs");
        for replica in self.replicas.iter().filter(|r| r.is_up()) {
            let mut command = Command::new(&self.binaries.server);
            command.args(arguments).arg("--data-dir").arg(replica.data_dir());
            if let Some(user) = &self.options.user {
                user.apply(&mut command);
            }
            let done = tokio::task::spawn_blocking(move || process::run("triarch", &mut command)).await;
            match done.step("triarch", "a thread")? {
                Ok(text) => return Ok(text),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    pub async fn token(&self, class: TokenClass) -> Result<String> {
        let class = match class {
            TokenClass::Node => "node",
            TokenClass::Server => "server",
        };
        Ok(self.triarch(&["token", "create", "--class", class]).await?.trim().to_owned())
    }

    /// `triarch status -o json`, also of a degraded cluster.
    pub async fn status(&self) -> Result<serde_json::Value> {
        for i in 0..self.replicas.len() {
            if let Some(value) = self.status_of(i, READY_TIMEOUT).await {
                return Ok(value);
            }
        }
        Err(LabError::new("status", "no replica answers"))
    }

    /// The same as replica `i` sees it; `None` when it does not say within `limit`.
    pub async fn status_of(&self, i: usize, limit: Duration) -> Option<serde_json::Value> {
        let replica = self.replicas.get(i).filter(|r| r.is_up())?;
        let mut command = tokio::process::Command::new(&self.binaries.server);
        command.args(["status", "-o", "json", "--data-dir"]).arg(replica.data_dir());
        command.stdin(Stdio::null()).kill_on_drop(true);
        let out = tokio::time::timeout(limit, command.output()).await.ok()?.ok()?;
        serde_json::from_slice(&out.stdout).ok()
    }

    /// Which replica leads, when one does.
    pub async fn leader(&self) -> Result<Option<usize>> {
        let status = self.status().await?;
        let name = status["leader"].as_str().unwrap_or_default();
        Ok(self.replicas.iter().position(|r| r.name() == name))
    }

    /// Kills replica `i` with SIGKILL.
    pub fn kill(&mut self, i: usize) -> Result<()> {
        self.replicas[i].kill();
        self.save()
    }

    /// Starts a replica that is down; it need not be ready on return.
    pub fn restart(&mut self, i: usize) -> Result<()> {
        self.replicas[i].spawn(&Birth::Again)?;
        self.save()
    }

    /// Replaces replica `i`, which is down, by a new one under its name and
    /// addresses, on an empty data directory: removed from the membership, then
    /// joined. It need not be ready on return.
    pub async fn replace(&mut self, i: usize) -> Result<()> {
        let name = self.replicas[i].name().to_owned();
        self.triarch(&["replica", "remove", &name]).await?;
        empty(self.replicas[i].data_dir())?;
        let token = self.token(TokenClass::Server).await?;
        let other = self.replicas.iter().enumerate().find(|(at, r)| *at != i && r.is_up());
        let url = other.map(|(_, r)| r.url()).ok_or_else(|| LabError::new("replicas", "no replica runs"))?;
        self.replicas[i].spawn(&Birth::Join { url, token })?;
        self.save()
    }

    /// Starts all replicas that are down, without waiting.
    pub fn restart_all(&mut self) -> Result<()> {
        for replica in &mut self.replicas {
            if !replica.is_running() {
                replica.spawn(&Birth::Again)?;
            }
        }
        self.save()
    }

    /// Stops all in order, followers and leader alike, together.
    pub fn stop(&mut self) -> Stopped {
        self.replicas.iter_mut().for_each(Replica::terminate);
        let forced = self.replicas.iter_mut().filter_map(|r| (!r.stop()).then(|| r.name().to_owned())).collect();
        // The state file then names nobody; a failure to write it loses nothing.
        let _ = self.save();
        Stopped { forced }
    }

    /// Why it does not come up, from the replicas' own logs.
    pub fn explain(&mut self) -> LabError {
        let ended = self.replicas.iter_mut().find_map(|r| r.has_failed().then(|| r.failure()));
        ended.unwrap_or_else(|| {
            let logs: Vec<String> = self.replicas.iter().map(|r| format!("{}: {}", r.name(), r.log_tail())).collect();
            LabError::new("replicas", logs.join("; "))
        })
    }

    /// What `state.json` says of the replicas.
    pub fn state(&self) -> State {
        let replicas = self.replicas.iter().map(|r| ReplicaState {
            name: r.name().to_owned(),
            port: r.port(),
            peer_port: r.peer_port(),
            process: r.id().filter(ProcessId::alive),
        });
        State {
            shared_port: self.shared_port,
            replicas: replicas.collect(),
            ..State::read(self.dir()).ok().flatten().unwrap_or_default()
        }
    }

    fn save(&self) -> Result<()> {
        self.state().write(self.dir(), self.options.user.as_ref())
    }
}

/// Shared port, and for each replica its own and its peers' port.
fn choose_ports(replicas: usize) -> Result<(u16, Vec<(u16, u16)>)> {
    let free = ports::free(replicas * 2 + 1)?;
    let pairs = free[1..].chunks_exact(2).map(|p| (p[0], p[1])).collect();
    Ok((free[0], pairs))
}

fn make_dir(path: &Path, options: &Options) -> Result<()> {
    fs::create_dir_all(path).step("replicas", path.display())?;
    if let Some(user) = &options.user {
        user.own(path);
    }
    Ok(())
}

/// Removes what is in a folder, and leaves the folder (it may be a mount).
fn empty(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).step("replicas", dir.display())? {
        let path = entry.step("replicas", dir.display())?.path();
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.step("replicas", path.display())?;
    }
    Ok(())
}

/// Writes a file that only its owner reads.
fn write_private(path: &Path, text: &str, options: &Options) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut open = fs::OpenOptions::new();
    let mut file =
        open.create(true).write(true).truncate(true).mode(0o600).open(path).step("kubeconfig", path.display())?;
    file.write_all(text.as_bytes()).step("kubeconfig", path.display())?;
    if let Some(user) = &options.user {
        user.own(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake_binaries() -> Binaries {
        Binaries { server: "/bin/sleep".into(), agent: "/bin/sleep".into(), lab: "/bin/sleep".into() }
    }

    #[test]
    fn a_cluster_keeps_its_ports_from_one_start_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let options = || Options { binaries: Some(fake_binaries()), ..Options::new(dir.path()) };
        let first = Cluster::prepare(options()).unwrap().state();
        let second = Cluster::prepare(options()).unwrap().state();
        assert_eq!(first, second);
        assert_eq!(first.replicas.len(), 3);
    }

    #[test]
    fn a_port_that_another_program_has_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let options = || Options { binaries: Some(fake_binaries()), ..Options::new(dir.path()) };
        let port = Cluster::prepare(options()).unwrap().replicas()[1].port();
        let _held = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let e = Cluster::prepare(options()).unwrap_err();
        assert_eq!(e.reason, format!("127.0.0.1:{port} is taken by another program"));
    }

    #[test]
    fn a_directory_too_deep_for_sockets_is_refused_before_anything_starts() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(120));
        let e = Cluster::prepare(Options { binaries: Some(fake_binaries()), ..Options::new(&deep) }).unwrap_err();
        assert!(e.reason.contains("too long for a unix socket"), "{e}");
    }
}
