//! Pods that come and go: how long nobody binds them when a leader is hurt.
//!
//! ```text
//!   this file deletes a bound pod ─► the ReplicaSet's controller makes another
//!        ▲                                            │
//!        └──── watches at every replica ◄── the scheduler binds it
//! ```
//! Both act only at the leader, so a bind of a pod that was made after the
//! fault shows that a leader's controllers and its scheduler are at work.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use triarch_lab::KubeClient;

use crate::shared::Shared;

const NAMESPACE: &str = "nemesis-pods";
/// Pods at any time.
const REPLICAS: usize = 12;
/// Between two deletions at one replica.
const PACE: Duration = Duration::from_millis(60);
/// All are bound by then, or the run fails.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// A deletion without an answer by then is left alone.
const DELETE_TIMEOUT: Duration = Duration::from_secs(1);
/// Binds later than this after a fault say nothing about it, nanoseconds.
const AFTER: u64 = 1_000_000_000;

/// One pod that was bound. Nanoseconds of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// When the first watch showed it.
    pub made: u64,
    /// When the first watch showed it bound.
    pub at: u64,
}

#[derive(Debug, Default)]
struct Seen {
    /// When each pod was first seen, by uid; only those not bound yet.
    made: HashMap<String, u64>,
    /// Names of pods that are bound, oldest first, to be deleted.
    bound: VecDeque<String>,
    known: HashMap<String, ()>,
    binds: Vec<Bind>,
}

/// Runs beside the load.
pub struct Pods {
    shared: Arc<Shared>,
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Pods {
    /// Makes the Deployment and waits until its pods are bound.
    pub async fn start(clients: Vec<KubeClient>, shared: Arc<Shared>) -> anyhow::Result<Pods> {
        clients[0].ensure(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})).await?;
        clients[0].ensure(&deployment()).await?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = Vec::new();
        for client in &clients {
            tasks.push(tokio::spawn(watch(client.clone(), shared.clone(), seen.clone())));
        }
        let all = || seen.lock().expect("no holder panics").bound.len() >= REPLICAS;
        crate::stage::wait(START_TIMEOUT, all).await.context("no pods are bound")?;
        // One a replica: those at the others do not wait for one that hangs.
        for client in clients {
            tasks.push(tokio::spawn(delete(client, shared.clone(), seen.clone())));
        }
        Ok(Pods { shared, seen, tasks })
    }

    /// All binds so far, in order of time.
    pub fn binds(&self) -> Vec<Bind> {
        let mut binds = self.seen.lock().expect("no holder panics").binds.clone();
        binds.sort_unstable_by_key(|b| b.at);
        binds
    }

    /// Until as many pods as there are to be are bound, none deleted any more.
    pub async fn whole(self, client: &KubeClient, limit: Duration) -> anyhow::Result<()> {
        debug_assert!(self.shared.stopping(), "the deletions go on");
        self.tasks.iter().for_each(JoinHandle::abort);
        let end = tokio::time::Instant::now() + limit;
        loop {
            let pods = client.list(&format!("/api/v1/namespaces/{NAMESPACE}/pods")).await.unwrap_or_default();
            let well = pods.iter().filter(|p| p["spec"]["nodeName"].is_string() && p["status"]["phase"] == "Running");
            let well = well.filter(|p| p["metadata"]["deletionTimestamp"].is_null()).count();
            if well == REPLICAS && pods.len() == REPLICAS {
                return Ok(());
            }
            if tokio::time::Instant::now() >= end {
                bail!("{well} of {REPLICAS} pods run, of {} that there are, after {limit:?}", pods.len());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// How long after the fault at `fault` nothing was bound: the time until the
/// first bind of a pod that was made after it, or the longest silence that
/// began within a second (a leader that leaves in order binds to the end).
/// `None`: nothing was bound up to `end`.
pub fn silence(binds: &[Bind], fault: u64, end: u64) -> Option<u64> {
    let after: Vec<&Bind> = binds.iter().filter(|b| b.at > fault && b.at <= end).collect();
    let next = after.iter().find(|b| b.made >= fault)?.at - fault;
    let times = std::iter::once(fault).chain(after.iter().map(|b| b.at));
    let longest = times.zip(after.iter().map(|b| b.at)).filter(|(from, _)| *from <= fault + AFTER);
    longest.map(|(from, to)| to - from).chain([next]).max()
}

fn deployment() -> Value {
    let labels = json!({"app": "churn"});
    let container =
        json!({"name": "c", "image": "hollow:1", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "churn", "namespace": NAMESPACE},
        "spec": {
            "replicas": REPLICAS, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    })
}

async fn watch(client: KubeClient, shared: Arc<Shared>, seen: Arc<Mutex<Seen>>) {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    loop {
        // From what there is now: what was missed meanwhile others have seen.
        if let Ok(mut stream) = client.watch(&path).await {
            while let Ok(Some(event)) = stream.next().await {
                note(&event, shared.now(), &mut seen.lock().expect("no holder panics"));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn note(event: &Value, now: u64, seen: &mut Seen) {
    let (kind, pod) = (event["type"].as_str().unwrap_or_default(), &event["object"]);
    let (Some(uid), Some(name)) = (pod["metadata"]["uid"].as_str(), pod["metadata"]["name"].as_str()) else { return };
    if kind == "DELETED" {
        seen.made.remove(uid);
        return;
    }
    let bound = pod["spec"]["nodeName"].is_string();
    if seen.known.contains_key(uid) {
        return;
    }
    let made = *seen.made.entry(uid.to_owned()).or_insert(now);
    if bound {
        seen.made.remove(uid);
        seen.known.insert(uid.to_owned(), ());
        seen.binds.push(Bind { made, at: now });
        seen.bound.push_back(name.to_owned());
    }
}

async fn delete(client: KubeClient, shared: Arc<Shared>, seen: Arc<Mutex<Seen>>) {
    while !shared.stopping() {
        let name = seen.lock().expect("no holder panics").bound.pop_front();
        if let Some(name) = name {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}?gracePeriodSeconds=0");
            let answer = tokio::time::timeout(DELETE_TIMEOUT, client.delete(&path)).await;
            let gone = matches!(&answer, Ok(Ok(_))) || matches!(&answer, Ok(Err(e)) if e.is_not_found());
            if !gone {
                seen.lock().expect("no holder panics").bound.push_back(name);
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn bind(made: u64, at: u64) -> Bind {
        Bind { made: made * MS, at: at * MS }
    }

    #[test]
    fn a_bind_of_a_pod_made_before_the_fault_may_be_the_old_leaders() {
        let binds = [bind(90, 95), bind(98, 103), bind(140, 150), bind(160, 165)];
        assert_eq!(silence(&binds, 100 * MS, 500 * MS), Some(50 * MS));
        assert_eq!(silence(&binds[..2], 100 * MS, 500 * MS), None);
    }

    #[test]
    fn a_leader_that_leaves_in_order_is_judged_by_the_longest_silence() {
        let binds = [bind(101, 105), bind(107, 110), bind(170, 180), bind(185, 190)];
        assert_eq!(silence(&binds, 100 * MS, 500 * MS), Some(70 * MS));
    }

    #[test]
    fn a_pod_is_bound_once_however_many_watches_show_it() {
        let mut seen = Seen::default();
        let event = |kind: &str, node: Value| json!({"type": kind, "object": {"metadata": {"uid": "u", "name": "p"}, "spec": {"nodeName": node}}});
        note(&event("ADDED", Value::Null), 5, &mut seen);
        note(&event("ADDED", Value::Null), 6, &mut seen);
        note(&event("MODIFIED", "n1".into()), 9, &mut seen);
        note(&event("MODIFIED", "n1".into()), 11, &mut seen);
        assert_eq!(seen.binds, [Bind { made: 5, at: 9 }]);
        assert_eq!(seen.bound, ["p"]);
    }
}
