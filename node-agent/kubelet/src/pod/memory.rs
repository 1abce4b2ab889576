//! What the agent remembers of a pod between two looks at the runtime.
//!
//! Lost when the agent restarts, by design: containers, their counts and their
//! ends are the runtime's; this is back-off, probe results and why a container
//! could not be started.

use std::collections::BTreeMap;

use crate::backoff::Backoffs;
use crate::model::Waiting;
use crate::probe::Results;

#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub restarts: Backoffs,
    pub pulls: Backoffs,
    /// Why a container is not running, by container name: the reason and the
    /// message of its waiting state.
    pub waiting: BTreeMap<String, Waiting>,
    /// When and why the last pull of an image failed.
    pub pull_errors: BTreeMap<String, (triarch_env::Wall, String)>,
    /// Probe results of the containers that run.
    pub probes: Results,
    /// Containers (by id) that a failed probe or hook has condemned, and why.
    pub condemned: BTreeMap<String, String>,
    /// The pod as a whole failed by the agent's decision (deadline, admission).
    pub failed: Option<(String, String)>,
    /// Addresses seen while the sandbox was up, kept for the final status.
    pub ips: Vec<String>,
    /// When the agent first took the pod up (status.startTime).
    pub start_time: Option<String>,
    /// Sandbox and volumes were made: PodReadyToStartContainers.
    pub volumes_ready: bool,
}
