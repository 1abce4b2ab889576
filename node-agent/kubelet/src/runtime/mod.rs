//! What the agent needs of a container runtime, as a trait.
//!
//! Two implementations: [`cri::CriRuntime`] talks to containerd; the hollow
//! one ([`hollow::HollowRuntime`]) keeps containers as values on the
//! environment's clock, so that the same agent runs thousands of simulated
//! nodes in a process, and in the simulation. Specs and observations are plain
//! values, so every decision about them is a pure function.

pub mod cri;
pub mod hollow;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use triarch_env::Wall;

/// A runtime call that failed; the text is shown to users.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Failed(String),
}

impl RuntimeError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, RuntimeError::NotFound(_))
    }
}

/// What the runtime has of one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<ContainerInfo>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created: Wall,
    /// Empty on the host's network.
    pub ips: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Created,
    Running,
    Exited,
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerInfo {
    pub id: String,
    pub sandbox: String,
    pub name: String,
    /// How often this container was started before, in this pod.
    pub restart_count: u32,
    pub phase: Phase,
    pub created: Wall,
    pub started: Wall,
    pub finished: Wall,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub image: String,
    pub image_id: String,
}

impl Observed {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The newest container with this name.
    pub fn container(&self, name: &str) -> Option<&ContainerInfo> {
        self.containers.iter().find(|c| c.name == name)
    }

    pub fn running(&self) -> impl Iterator<Item = &ContainerInfo> {
        self.containers.iter().filter(|c| c.phase == Phase::Running)
    }

    /// Whether anything is left of the pod that uses the node.
    pub fn is_gone(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// Newest first, whatever order the runtime lists in.
    pub fn sort(&mut self) {
        self.sandboxes.sort_by(|a, b| (b.created, b.attempt, &b.id).cmp(&(a.created, a.attempt, &a.id)));
        self.containers.sort_by(|a, b| (b.created, b.restart_count, &b.id).cmp(&(a.created, a.restart_count, &a.id)));
    }
}

/// A sandbox to make.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxSpec {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub attempt: u32,
    pub hostname: String,
    pub log_directory: PathBuf,
    pub dns: Dns,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub share_process_namespace: bool,
    pub cgroup_parent: String,
    pub sysctls: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub privileged: bool,
    pub runtime_handler: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct MountSpec {
    pub container_path: String,
    pub host_path: PathBuf,
    pub read_only: bool,
    pub propagation: Propagation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    #[default]
    None,
    HostToContainer,
    Bidirectional,
}

/// Limits in the units of Linux control groups; 0 leaves one unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinuxResources {
    pub cpu_shares: i64,
    pub cpu_quota: i64,
    pub cpu_period: i64,
    pub memory_limit: i64,
    pub oom_score_adj: i64,
}

/// A container to make in a sandbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerSpec {
    pub name: String,
    pub restart_count: u32,
    pub image: String,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: String,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<MountSpec>,
    /// Relative to the sandbox's log directory.
    pub log_path: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: LinuxResources,
    pub security: Security,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Security {
    pub privileged: bool,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_username: String,
    pub supplemental_groups: Vec<i64>,
    pub read_only_root: bool,
    pub no_new_privs: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub seccomp: Option<(String, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageInfo {
    pub id: String,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    pub size: u64,
    /// The user that the image names, by number or by name.
    pub uid: Option<i64>,
    pub username: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecResult {
    pub exit_code: i32,
    pub output: Vec<u8>,
}

/// What a client wants to be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamTarget {
    Exec { container: String, command: Vec<String>, stdin: bool, stdout: bool, stderr: bool, tty: bool },
    Attach { container: String, stdin: bool, stdout: bool, stderr: bool, tty: bool },
    PortForward { sandbox: String, ports: Vec<i32> },
}

/// Credentials for one registry.
#[derive(Clone, Debug, Default)]
pub struct RegistryAuth {
    pub username: String,
    pub password: Option<triarch_env::Secret>,
    pub server: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeInfo {
    pub name: String,
    pub version: String,
}

/// A container runtime. Every call is bounded by a deadline of its own, and
/// repeating one that has already taken effect is no error.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError>;
    /// `Ok` when pods can be run; otherwise what is missing.
    async fn ready(&self) -> Result<(), RuntimeError>;
    /// Every pod that the runtime has anything of; statuses are not complete.
    async fn list(&self) -> Result<Vec<Observed>, RuntimeError>;
    /// One pod with complete statuses; an empty value when there is nothing.
    async fn observe(&self, uid: &str) -> Result<Observed, RuntimeError>;
    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<String, RuntimeError>;
    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    async fn create_container(
        &self,
        sandbox: &str,
        spec: &ContainerSpec,
        of: &SandboxSpec,
    ) -> Result<String, RuntimeError>;
    async fn start_container(&self, id: &str) -> Result<(), RuntimeError>;
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, RuntimeError>;
    async fn images(&self) -> Result<Vec<ImageInfo>, RuntimeError>;
    async fn pull(&self, image: &str, auth: Option<&RegistryAuth>) -> Result<(), RuntimeError>;
    /// The container's log was renamed: a new file is written from now on.
    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError>;
    async fn exec(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecResult, RuntimeError>;
    /// A URL for one connection to the runtime's streaming server.
    async fn stream_url(&self, target: &StreamTarget) -> Result<String, RuntimeError>;
    /// Waits for the next change; the uid of the pod when it is known. `None`
    /// when the stream broke and must be asked for again.
    async fn next_change(&self) -> Option<Option<String>>;
}
