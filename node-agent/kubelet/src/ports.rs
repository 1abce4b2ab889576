//! What a pod's worker is given: the node's objects, its disk, and who listens.
//!
//! Traits, so that the hollow agent and the simulation run the same workers
//! with nothing on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use triarch_env::Env;

use crate::model::{Pod, PodStatus};
use crate::probe::Dialer;
use crate::runtime::{Dns, Runtime};

/// Objects assigned to the node, as last heard.
pub trait Objects: Send + Sync + 'static {
    /// `resource` is `configmaps` or `secrets`.
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// Services of a namespace, by name.
    fn services(&self, namespace: &str) -> Vec<Arc<Value>>;
}

/// An event about a pod, before it is counted and named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
    /// `spec.containers{web}`, empty for the pod itself.
    pub field_path: String,
}

/// Where statuses and events go. Calls never wait.
pub trait Reporter: Send + Sync + 'static {
    /// `terminated`: nothing of the pod is left on the node.
    fn status(&self, pod: &Pod, status: &PodStatus, terminated: bool);
    fn event(&self, pod: &Pod, note: Note);
}

/// A pod's volumes on the node.
#[derive(Clone, Debug, Default)]
pub struct Mounted {
    pub paths: BTreeMap<String, PathBuf>,
    /// Look again after this time (a token nears its end).
    pub refresh: Option<Duration>,
}

/// Why something on the node's disk could not be made, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HostError {
    /// The volume, where it is about one.
    pub volume: Option<String>,
    pub message: String,
}

impl HostError {
    pub fn new(message: impl Into<String>) -> HostError {
        HostError { volume: None, message: message.into() }
    }
}

/// A pod's part of the node's disk and control groups.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Makes the pod's volumes, or brings them up to date. Repeatable.
    async fn set_up(&self, pod: &Pod) -> Result<Mounted, HostError>;
    /// The managed hosts file; `None` where there is no disk.
    fn hosts_file(&self, pod: &Pod, content: &str) -> Result<Option<PathBuf>, HostError>;
    /// An empty file for a run's termination message.
    fn termination_log(&self, pod: &Pod, container: &str, restart: u32) -> Result<Option<PathBuf>, HostError>;
    /// What a run left in it; with `from_log` its last lines of log instead when empty.
    fn termination_message(&self, pod: &Pod, container: &str, restart: u32, from_log: bool) -> String;
    /// A path below a volume, made when it is missing, never outside of it.
    fn sub_path(&self, volume: &Path, sub: &str) -> Result<PathBuf, HostError>;
    fn log_directory(&self, pod: &Pod) -> PathBuf;
    /// Removes the log of a run that the runtime has forgotten.
    fn remove_log(&self, _pod: &Pod, _container: &str, _restart: u32) {}
    /// The name servers of the node itself.
    fn resolv_conf(&self) -> Dns;
    /// Removes everything of a pod that has ended. Repeatable.
    async fn clean_up(&self, pod: &Pod, cgroup_parent: &str) -> Result<(), HostError>;
}

/// Fixed facts of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeConfig {
    pub name: String,
    pub ips: Vec<String>,
    /// Scheme of container ids: `containerd`.
    pub runtime_name: String,
    /// Control groups of this node's pods live below it, `/` for a whole machine.
    pub cgroup_root: String,
    pub cluster_domain: String,
    /// Addresses of the cluster's name server; empty: pods use the node's own.
    pub cluster_dns: Vec<String>,
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    /// The runtime is asked for everything at least this often.
    pub relist: Duration,
}

/// Everything that a pod's worker needs; shared by all of a node.
#[derive(Clone)]
pub struct NodeContext {
    pub env: Env,
    pub config: Arc<NodeConfig>,
    pub runtime: Arc<dyn Runtime>,
    pub host: Arc<dyn Host>,
    pub objects: Arc<dyn Objects>,
    pub reporter: Arc<dyn Reporter>,
    pub dialer: Arc<dyn Dialer>,
}

impl std::fmt::Debug for NodeContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeContext").field("node", &self.config.name).finish_non_exhaustive()
    }
}

/// The disk of a simulated node: there is none.
#[derive(Debug, Default)]
pub struct HollowHost;

#[async_trait]
impl Host for HollowHost {
    async fn set_up(&self, pod: &Pod) -> Result<Mounted, HostError> {
        let paths = pod.spec.volumes.iter().map(|v| (v.name.clone(), PathBuf::from("/hollow").join(&v.name)));
        Ok(Mounted { paths: paths.collect(), refresh: None })
    }
    fn hosts_file(&self, _pod: &Pod, _content: &str) -> Result<Option<PathBuf>, HostError> {
        Ok(None)
    }
    fn termination_log(&self, _pod: &Pod, _container: &str, _restart: u32) -> Result<Option<PathBuf>, HostError> {
        Ok(None)
    }
    fn termination_message(&self, _pod: &Pod, _container: &str, _restart: u32, _from_log: bool) -> String {
        String::new()
    }
    fn sub_path(&self, volume: &Path, sub: &str) -> Result<PathBuf, HostError> {
        Ok(volume.join(sub))
    }
    fn log_directory(&self, _pod: &Pod) -> PathBuf {
        PathBuf::new()
    }
    fn resolv_conf(&self) -> Dns {
        Dns::default()
    }
    async fn clean_up(&self, _pod: &Pod, _cgroup_parent: &str) -> Result<(), HostError> {
        Ok(())
    }
}
