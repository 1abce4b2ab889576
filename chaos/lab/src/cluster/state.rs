//! `state.json`: what runs, so that another process can find it, and end it
//! after a crash.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, LabError, Result};
use crate::process::ProcessId;
use crate::user::User;

/// A larger file is not ours, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Everything that a lab has made outside its own directory, and its choices
/// that outlive a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct State {
    /// Port of all replicas together.
    pub shared_port: u16,
    pub replicas: Vec<ReplicaState>,
    /// The process that keeps it all running.
    pub supervisor: Option<ProcessId>,
    pub nodes: Vec<NodeState>,
    /// First process of the namespace with the bridge.
    pub hub: Option<ProcessId>,
    /// The process of simulated nodes.
    pub hollow: Option<ProcessId>,
    pub hollow_nodes: usize,
    /// Networks that were blackholed here.
    pub routes: Vec<String>,
    pub cluster_cidr: String,
    pub service_cidr: String,
    /// Port of the sample application's listener.
    pub app_port: u16,
    /// Packages that `up` installed; `down` leaves and lists them.
    pub installed: Vec<String>,
    /// The last line that `up` printed.
    pub ready: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaState {
    pub name: String,
    pub port: u16,
    pub peer_port: u16,
    pub process: Option<ProcessId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    pub name: String,
    /// The `unshare` process: ending it ends all of the node.
    pub process: ProcessId,
}

impl State {
    fn path(dir: &Path) -> PathBuf {
        dir.join("state.json")
    }

    /// What is there; `None` for a directory without a state.
    pub fn read(dir: &Path) -> Result<Option<State>> {
        let path = State::path(dir);
        let size = match fs::metadata(&path) {
            Ok(m) => m.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(LabError::new("state", format!("{}: {e}", path.display()))),
        };
        if size > MAX_BYTES {
            return Err(LabError::new("state", format!("{}: {size} bytes, not ours", path.display())));
        }
        let text = fs::read_to_string(&path).step("state", path.display())?;
        serde_json::from_str(&text).map(Some).step("state", path.display())
    }

    /// Replaces the file in one step.
    pub fn write(&self, dir: &Path, user: Option<&User>) -> Result<()> {
        let path = State::path(dir);
        let fresh = dir.join("state.json.new");
        let text = serde_json::to_string_pretty(self).expect("a state can always be written");
        fs::write(&fresh, text).step("state", fresh.display())?;
        if let Some(user) = user {
            user.own(&fresh);
        }
        fs::rename(&fresh, &path).step("state", path.display())
    }

    /// Reads, changes and writes.
    pub fn update(dir: &Path, user: Option<&User>, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = State::read(dir)?.unwrap_or_default();
        change(&mut state);
        state.write(dir, user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written_and_a_missing_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), None);
        let process = ProcessId { pid: 7, started: 9 };
        let node = NodeState { name: "n1".into(), process };
        let state =
            State { shared_port: 1, nodes: vec![node], routes: vec!["10.96.0.0/16".into()], ..State::default() };
        state.write(dir.path(), None).unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), Some(state));
    }

    #[test]
    fn a_damaged_state_is_named_and_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.json"), "{").unwrap();
        assert!(State::read(dir.path()).unwrap_err().reason.contains("state.json"));
    }
}
