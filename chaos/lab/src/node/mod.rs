//! A node of its own on this machine: namespaces, containerd and the agent.
//!
//! ```text
//!   root namespace: replicas ── unix sockets ──┐          (no route to any node)
//!   hub namespace:  br0 10.89.0.1/24 ─ v-n1 ─ v-n2
//!   node n1: eth0 10.89.0.11 · containerd · triarch-node · pods
//! ```
//! Owns the namespaces' life and what is in them. Whether containers can run
//! here at all is `preflight`'s question.
//! Invariant: ending the one `unshare` process of a node ends all of it; what
//! the kernel then leaves (control groups) is named by the node's prefix.

mod containerd;
mod hub;
pub mod init;
mod inside;
mod route;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub use containerd::Snapshotter;
pub use hub::Hub;
pub use inside::{Inside, Namespaces};
pub use route::{Blackholes, Networks};

use crate::cluster::NodeState;
use crate::error::{Context, LabError, Result};
use crate::process::{self, ProcessId, wait_for};

/// containerd's socket inside every node.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// containerd takes 0.2 s; a machine under load more.
const CONTAINERD_TIMEOUT: Duration = Duration::from_secs(30);

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// `n1`, `n2`, …: also its host name.
    pub name: String,
    /// First in the range is 1: its address is 10.89.0.(10 + index).
    pub index: u8,
    /// Where containerd and the agent keep their data.
    pub dir: PathBuf,
    pub logs: PathBuf,
    /// `triarch-lab`, the first process in the namespaces.
    pub lab: PathBuf,
    pub service_cidr: String,
    pub snapshotter: Snapshotter,
    /// The image that holds a pod's namespaces.
    pub sandbox_image: String,
}

impl NodeOptions {
    pub fn ip(&self) -> String {
        format!("10.89.0.{}", 10 + u16::from(self.index))
    }
}

/// How the agent is started; the node gives the rest.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    pub program: PathBuf,
    /// `unix://…`, one a replica.
    pub servers: Vec<String>,
    /// A token of class node; needed once.
    pub token: Option<String>,
    pub extra: Vec<String>,
}

/// A node's namespaces with containerd, and the agent once it is started.
#[derive(Debug)]
pub struct Node {
    options: NodeOptions,
    namespaces: Namespaces,
    containerd: Inside,
    agent: Option<Inside>,
}

impl Node {
    /// Makes the namespaces, joins them to the hub and starts containerd.
    pub fn start(options: NodeOptions, hub: &Hub) -> Result<Node> {
        fs::create_dir_all(&options.dir).step("nodes", options.dir.display())?;
        remove_cgroups(&options.cgroup_prefix());
        let namespaces = Namespaces::node(&options)?;
        hub.attach(&options, &namespaces)?;
        let containerd = containerd::start(&options, &namespaces)?;
        let mut node = Node { options, namespaces, containerd, agent: None };
        node.wait_containerd()?;
        Ok(node)
    }

    fn wait_containerd(&mut self) -> Result<()> {
        // Seen through the node's own root: the socket is on its tmpfs.
        let socket = self.namespaces.path(CONTAINERD_SOCKET);
        let ready =
            wait_for(CONTAINERD_TIMEOUT, || UnixStream::connect(&socket).is_ok() || !self.containerd.is_running());
        if ready && self.containerd.is_running() { Ok(()) } else { Err(self.containerd.failure("containerd")) }
    }

    pub fn name(&self) -> &str {
        &self.options.name
    }

    pub fn ip(&self) -> String {
        self.options.ip()
    }

    /// Where the agent lets the lab dial into the node.
    pub fn relay_socket(&self) -> PathBuf {
        self.options.dir.join("relay.sock")
    }

    pub fn agent_log(&self) -> PathBuf {
        self.options.logs.join(format!("{}-agent.log", self.options.name))
    }

    pub fn agent_id(&self) -> Option<ProcessId> {
        self.agent.as_ref().map(Inside::id)
    }

    pub fn state(&self) -> NodeState {
        NodeState { name: self.options.name.clone(), process: self.namespaces.process() }
    }

    /// Imports a docker-archive under the names that it carries.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        let mut command = self.namespaces.command("ctr");
        command.args(["-a", CONTAINERD_SOCKET, "-n", "k8s.io", "images", "import", "--no-unpack"]).arg(archive);
        process::run("images", &mut command).map(drop)
    }

    /// A command inside the node.
    pub fn command(&self, program: &str) -> Command {
        self.namespaces.command(program)
    }

    /// Starts the agent; it need not be ready on return.
    pub fn start_agent(&mut self, agent: &AgentOptions) -> Result<()> {
        let data = self.options.dir.join("agent");
        fs::create_dir_all(&data).step("agent", data.display())?;
        let _ = fs::remove_file(self.relay_socket());
        let program = agent.program.to_string_lossy();
        let mut command = self.namespaces.command(&program);
        for server in &agent.servers {
            command.args(["--server", server]);
        }
        command.arg("--data-dir").arg(&data).args(["--cri", CONTAINERD_SOCKET]);
        command.args(["--node-name", &self.options.name, "--node-ip", &self.options.ip()]);
        command.args(["--cgroup-root", &format!("/{}", self.options.cgroup_prefix())]);
        command.arg("--cni-conf-dir").arg(self.options.dir.join("cni"));
        command.arg("--log-dir").arg(self.options.dir.join("pod-logs"));
        // A developer's disk is often nine tenths full, and a lab needs little of the rest.
        command.args(["--eviction-hard", "nodefs.available<512Mi"]);
        command.arg("--relay-api");
        command.arg("--listen-relay").arg(format!("unix://{}", self.relay_socket().display()));
        command.args(&agent.extra);
        if let Some(token) = &agent.token {
            command.env("TRIARCH_TOKEN", token);
        }
        self.agent = Some(Inside::start(&format!("{}-agent", self.options.name), command, &self.agent_log())?);
        Ok(())
    }

    /// The agent's failure, when it has ended.
    pub fn agent_failure(&mut self) -> Option<LabError> {
        let agent = self.agent.as_mut()?;
        (!agent.is_running()).then(|| agent.failure("agent"))
    }

    /// SIGKILL to the agent; pods and services go on.
    pub fn kill_agent(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.kill();
        }
    }

    /// Names this node's control groups.
    pub fn cgroup_prefix(&self) -> String {
        self.options.cgroup_prefix()
    }

    /// SIGKILL to containerd; pods go on, nothing new is started.
    pub fn kill_containerd(&mut self) {
        self.containerd.kill();
    }

    pub fn containerd_runs(&mut self) -> bool {
        self.containerd.is_running()
    }

    /// SIGKILL to containerd, and a new one.
    pub fn restart_containerd(&mut self) -> Result<()> {
        self.containerd.kill();
        self.containerd = containerd::start(&self.options, &self.namespaces)?;
        self.wait_containerd()
    }

    /// Ends everything in the node.
    pub fn stop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.terminate(Duration::from_secs(3));
        }
        self.namespaces.end();
        remove_cgroups(&self.options.cgroup_prefix());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

impl NodeOptions {
    /// Names this node's control groups; another lab's node has another one.
    pub fn cgroup_prefix(&self) -> String {
        cgroup_prefix(&self.dir)
    }
}

/// `triarch-n1-1a2b3c4d`: the folder's name and a digest of where it is.
pub fn cgroup_prefix(dir: &Path) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    format!("triarch-{name}-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
}

/// Removes a dead node's control groups in every hierarchy; says how many.
pub fn remove_cgroups(prefix: &str) -> usize {
    let mut removed = 0;
    for hierarchy in hierarchies() {
        let top = hierarchy.join(prefix);
        // The kernel needs a moment after the last process has gone.
        wait_for(Duration::from_secs(2), || {
            removed += remove_tree(&top, 0);
            !top.exists()
        });
    }
    removed
}

/// Deepest folder that a pod's container can have, with room.
const MAX_CGROUP_DEPTH: usize = 16;

fn remove_tree(dir: &Path, depth: usize) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let mut removed = 0;
    if depth < MAX_CGROUP_DEPTH {
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            removed += remove_tree(&entry.path(), depth + 1);
        }
    }
    removed + usize::from(fs::remove_dir(dir).is_ok())
}

/// Every mounted control-group hierarchy.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut out: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (at, kind) = (words.nth(1)?, words.next()?);
            (kind == "cgroup" || kind == "cgroup2").then(|| PathBuf::from(at))
        })
        .collect();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_different_labs_have_different_control_groups() {
        let (a, b) = (cgroup_prefix(Path::new("/x/nodes/n1")), cgroup_prefix(Path::new("/y/nodes/n1")));
        assert!(a.starts_with("triarch-n1-") && b.starts_with("triarch-n1-"));
        assert_ne!(a, b);
    }

    #[test]
    fn a_tree_of_folders_goes_from_the_leaves_up() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("triarch-n1-0");
        fs::create_dir_all(top.join("kubepods/burstable/pod1")).unwrap();
        assert_eq!(remove_tree(&top, 0), 4);
        assert!(!top.exists());
    }
}
