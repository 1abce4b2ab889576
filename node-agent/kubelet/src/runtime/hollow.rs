//! A container runtime without containers: the same agent, simulated nodes.
//!
//! Containers are values in a map and time is the environment's, so a run in
//! the simulation is exact and a process holds thousands of nodes. A pod can
//! steer its simulated containers by annotations on the pod:
//! `hollow.triarch.io/exit-code` and `hollow.triarch.io/run-seconds` make each
//! container end by itself; `hollow.triarch.io/start-millis` delays its start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use triarch_env::Env;

use super::*;

/// Waiting changes; beyond it they are dropped and found by the relist.
const CHANGES: usize = 256;

/// A simulated runtime of one node.
pub struct HollowRuntime {
    env: Env,
    /// The first 16 bits of every pod address, and the node's part.
    subnet: [u8; 3],
    state: Mutex<State>,
    changed: mpsc::Sender<String>,
    changes: tokio::sync::Mutex<mpsc::Receiver<String>>,
    this: std::sync::Weak<HollowRuntime>,
}

#[derive(Default)]
struct State {
    next: u64,
    last_host: u8,
    pods: BTreeMap<String, Entry>,
    /// Container or sandbox id to pod uid.
    owner: BTreeMap<String, String>,
}

impl State {
    /// The next host number (2 to 254) that no sandbox holds, round robin.
    fn free_host(&mut self) -> Option<u8> {
        let held = |host: u8| {
            let end = format!(".{host}");
            let mut all = self.pods.values().flat_map(|e| e.observed.sandboxes.iter().flat_map(|s| &s.ips));
            all.any(|ip| ip.ends_with(&end))
        };
        let first = self.last_host;
        let free = (1..=253u16).map(|i| ((u16::from(first) + i) % 253 + 2) as u8).find(|h| !held(*h))?;
        self.last_host = free - 2;
        Some(free)
    }
}

#[derive(Default)]
struct Entry {
    observed: Observed,
    behaviour: Behaviour,
}

#[derive(Clone, Copy, Debug, Default)]
struct Behaviour {
    exit: Option<(i32, Duration)>,
    start: Duration,
}

impl Behaviour {
    fn of(annotations: &BTreeMap<String, String>) -> Behaviour {
        let number = |key: &str| annotations.get(&format!("hollow.triarch.io/{key}")).and_then(|v| v.parse().ok());
        let exit_code = number("exit-code");
        let run: Option<i64> = number("run-seconds");
        let exit = (exit_code.is_some() || run.is_some()).then(|| {
            let code = i32::try_from(exit_code.unwrap_or(0)).unwrap_or(1);
            (code, Duration::from_secs(run.unwrap_or(1).clamp(0, 86_400).unsigned_abs()))
        });
        let start = Duration::from_millis(number("start-millis").unwrap_or(0i64).clamp(0, 600_000).unsigned_abs());
        Behaviour { exit, start }
    }
}

impl HollowRuntime {
    /// A runtime whose pods get addresses `10.X.Y.*` of node number `index`.
    pub fn new(env: Env, index: u32) -> Arc<HollowRuntime> {
        let (changed, changes) = mpsc::channel(CHANGES);
        let subnet = [10, 200u8.wrapping_add((index >> 8) as u8), index as u8];
        Arc::new_cyclic(|this| HollowRuntime {
            env,
            subnet,
            state: Mutex::default(),
            changed,
            changes: tokio::sync::Mutex::new(changes),
            this: this.clone(),
        })
    }

    fn wake(&self, uid: &str) {
        // A full queue is no loss: the relist finds what it would have told.
        let _ = self.changed.try_send(uid.to_owned());
    }

    /// Ends a running container by itself; what the tests and behaviours use.
    pub fn exit(&self, id: &str, exit_code: i32, reason: &str) {
        let now = self.env.wall();
        let mut state = self.state.lock();
        let Some(uid) = state.owner.get(id).cloned() else { return };
        let Some(entry) = state.pods.get_mut(&uid) else { return };
        let Some(c) = entry.observed.containers.iter_mut().find(|c| c.id == id) else { return };
        if matches!(c.phase, Phase::Running | Phase::Created) {
            c.phase = Phase::Exited;
            c.exit_code = exit_code;
            c.finished = now;
            c.reason = reason.to_owned();
            drop(state);
            self.wake(&uid);
        }
    }
}

fn missing(what: &str, id: &str) -> RuntimeError {
    RuntimeError::NotFound(format!("{what} {id} not found"))
}

#[async_trait]
impl Runtime for HollowRuntime {
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        Ok(RuntimeInfo { name: "hollow".into(), version: env!("CARGO_PKG_VERSION").into() })
    }

    async fn ready(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        Ok(self.state.lock().pods.values().map(|e| e.observed.clone()).collect())
    }

    async fn observe(&self, uid: &str) -> Result<Observed, RuntimeError> {
        Ok(self.state.lock().pods.get(uid).map(|e| e.observed.clone()).unwrap_or_default())
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<String, RuntimeError> {
        let now = self.env.wall();
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("{:064x}", state.next);
        let [a, b, c] = self.subnet;
        let ips = match spec.host_network {
            true => Vec::new(),
            false => {
                let host = state.free_host().ok_or_else(|| RuntimeError::Failed("no address is free".into()))?;
                vec![format!("{a}.{b}.{c}.{host}")]
            }
        };
        let entry = state.pods.entry(spec.uid.clone()).or_default();
        entry.behaviour = Behaviour::of(&spec.annotations);
        entry.observed.uid = spec.uid.clone();
        entry.observed.namespace = spec.namespace.clone();
        entry.observed.name = spec.name.clone();
        let sandbox = Sandbox { id: id.clone(), attempt: spec.attempt, ready: true, created: now, ips };
        entry.observed.sandboxes.insert(0, sandbox);
        state.owner.insert(id.clone(), spec.uid.clone());
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let Some(uid) = state.owner.get(id).cloned() else { return Ok(()) };
        if let Some(entry) = state.pods.get_mut(&uid) {
            for s in entry.observed.sandboxes.iter_mut().filter(|s| s.id == id) {
                s.ready = false;
                s.ips.clear();
            }
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let Some(uid) = state.owner.remove(id) else { return Ok(()) };
        if let Some(entry) = state.pods.get_mut(&uid) {
            entry.observed.sandboxes.retain(|s| s.id != id);
            let gone: Vec<_> = entry.observed.containers.extract_if(.., |c| c.sandbox == id).map(|c| c.id).collect();
            if entry.observed.is_gone() {
                state.pods.remove(&uid);
            }
            for container in gone {
                state.owner.remove(&container);
            }
        }
        Ok(())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        spec: &ContainerSpec,
        of: &SandboxSpec,
    ) -> Result<String, RuntimeError> {
        let now = self.env.wall();
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("{:064x}", state.next);
        let entry = state.pods.get_mut(&of.uid).ok_or_else(|| missing("sandbox", sandbox))?;
        let container = ContainerInfo {
            id: id.clone(),
            sandbox: sandbox.to_owned(),
            name: spec.name.clone(),
            restart_count: spec.restart_count,
            created: now,
            image: spec.image.clone(),
            image_id: format!("sha256:{:064x}", fingerprint(&spec.image)),
            ..Default::default()
        };
        entry.observed.containers.insert(0, container);
        state.owner.insert(id.clone(), of.uid.clone());
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let start = {
            let state = self.state.lock();
            let uid = state.owner.get(id).ok_or_else(|| missing("container", id))?;
            state.pods.get(uid).map(|e| e.behaviour.start).unwrap_or_default()
        };
        if !start.is_zero() {
            self.env.sleep(start).await;
        }
        let now = self.env.wall();
        let exit = {
            let mut state = self.state.lock();
            let uid = state.owner.get(id).cloned().ok_or_else(|| missing("container", id))?;
            let entry = state.pods.get_mut(&uid).ok_or_else(|| missing("container", id))?;
            let found = entry.observed.containers.iter_mut().find(|c| c.id == id);
            let c = found.ok_or_else(|| missing("container", id))?;
            c.phase = Phase::Running;
            c.started = now;
            entry.behaviour.exit
        };
        if let (Some((code, after)), Some(this)) = (exit, self.this.upgrade()) {
            let (env, id) = (self.env.clone(), id.to_owned());
            self.env.spawn("hollow-exit", async move {
                env.sleep(after).await;
                this.exit(&id, code, if code == 0 { "Completed" } else { "Error" });
            });
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, _grace: Duration) -> Result<(), RuntimeError> {
        self.exit(id, 0, "Completed");
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let Some(uid) = state.owner.remove(id) else { return Ok(()) };
        if let Some(entry) = state.pods.get_mut(&uid) {
            entry.observed.containers.retain(|c| c.id != id);
        }
        Ok(())
    }

    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, RuntimeError> {
        let id = format!("sha256:{:064x}", fingerprint(image));
        Ok(Some(ImageInfo { id, tags: vec![image.to_owned()], ..Default::default() }))
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn pull(&self, _image: &str, _auth: Option<&RegistryAuth>) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn exec(&self, _id: &str, _command: &[String], _limit: Duration) -> Result<ExecResult, RuntimeError> {
        Ok(ExecResult::default())
    }

    async fn reopen_log(&self, _id: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn stream_url(&self, _target: &StreamTarget) -> Result<String, RuntimeError> {
        Err(RuntimeError::Failed("a simulated container has no processes to connect to".into()))
    }

    async fn next_change(&self) -> Option<Option<String>> {
        self.changes.lock().await.recv().await.map(Some)
    }
}

/// FNV-1a, only so that equal images have equal ids.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}
