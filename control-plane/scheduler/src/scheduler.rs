//! The scheduler's loop: notes changes, decides, binds.
//!
//! Binds do not wait for each other: a decided pod is assumed on its node, its
//! binding is proposed, and the next pod is decided at once; proposals in
//! flight share entries of the log.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use triarch_controllers::{
    Any, Change, Feed, Listener, Name, Op, Recorder, World, WriteError, Writer, note, pod_node, pod_terminal, resources,
};
use triarch_env::{Env, Scope};

use crate::cache::Cache;
use crate::diagnosis::Diagnosis;
use crate::pod_info::{PodInfo, wants_node};
use crate::queue::Queue;
use crate::schedule::schedule;

const NAME: &str = "default-scheduler";
/// Bindings and status writes in flight.
const IN_FLIGHT: usize = 512;
/// Decisions between two looks at what has changed.
const BURST: usize = 16;
/// Changes that are kept for the loop; past it the cache is built anew.
const PENDING_MAX: usize = 200_000;

/// Give it to the manager as a listener, then [`Scheduler::start`] it.
pub struct Scheduler {
    pending: Mutex<Pending>,
    wake: Notify,
}

#[derive(Default)]
struct Pending {
    changes: Vec<Note>,
    overflowed: bool,
}

/// What the loop needs of a change.
enum Note {
    Pod(Name, Option<Arc<Pod>>),
    Node(Name, Option<Arc<Node>>),
}

impl Listener for Scheduler {
    fn changed(&self, _: &World, changes: &[Change]) {
        let notes = changes.iter().filter_map(|c| match (c.resource, &c.new) {
            (resources::PODS, Some(Any::Pod(p))) => Some(Note::Pod(c.name.clone(), Some(p.clone()))),
            (resources::PODS, None) => Some(Note::Pod(c.name.clone(), None)),
            (resources::NODES, Some(Any::Node(n))) => Some(Note::Node(c.name.clone(), Some(n.clone()))),
            (resources::NODES, None) => Some(Note::Node(c.name.clone(), None)),
            _ => None,
        });
        let mut pending = self.pending.lock();
        pending.changes.extend(notes);
        if pending.changes.len() > PENDING_MAX {
            pending.changes.clear();
            pending.overflowed = true;
        }
        if pending.overflowed || !pending.changes.is_empty() {
            self.wake.notify_one();
        }
    }
}

/// What the loop works with.
struct State {
    env: Env,
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    cache: Cache,
    queue: Queue,
    start: usize,
}

enum Ended {
    Bound(Arc<PodInfo>, String, Result<(), WriteError>),
    Told,
}

impl Scheduler {
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> Arc<Scheduler> {
        Arc::new(Scheduler { pending: Mutex::default(), wake: Notify::new() })
    }

    /// Runs the loop under the epoch's scope.
    pub fn start(
        self: &Arc<Self>,
        env: &Env,
        scope: &Scope,
        feed: Arc<Feed>,
        writer: Arc<dyn Writer>,
        recorder: Recorder,
    ) {
        let (this, state) = (
            self.clone(),
            State { env: env.clone(), writer, recorder, cache: Cache::default(), queue: Queue::default(), start: 0 },
        );
        env.spawn_in(scope, "scheduler", async move { this.run(state, &feed).await });
    }

    async fn run(&self, mut s: State, feed: &Feed) {
        let mut running: FuturesUnordered<BoxFuture<'static, Ended>> = FuturesUnordered::new();
        loop {
            self.take_changes(&mut s, feed);
            let due = s.queue.tick(s.env.mono());
            let mut decided = 0;
            while decided < BURST && running.len() < IN_FLIGHT {
                let Some(pod) = s.queue.pop(s.env.mono()) else { break };
                running.push(s.decide(pod));
                decided += 1;
            }
            if decided == BURST {
                // More may be waiting: take what has ended without sleeping, and go on.
                while let Some(Some(ended)) = running.next().now_or_never() {
                    s.ended(ended);
                }
                triarch_controllers::yield_once().await;
                continue;
            }
            let env = s.env.clone();
            let sleep = async {
                match due {
                    Some(at) => env.sleep_until(at).await,
                    None => env.sleep(Duration::from_secs(30)).await,
                }
            };
            let mut sleep = std::pin::pin!(sleep.fuse());
            let mut wake = std::pin::pin!(self.wake.notified().fuse());
            let ended = futures::select_biased! {
                ended = running.select_next_some() => Some(ended),
                () = wake => None,
                () = sleep => None,
            };
            if let Some(ended) = ended {
                s.ended(ended);
                while let Some(Some(more)) = running.next().now_or_never() {
                    s.ended(more);
                }
            }
        }
    }

    fn take_changes(&self, s: &mut State, feed: &Feed) {
        let pending = std::mem::take(&mut *self.pending.lock());
        if pending.overflowed {
            s.rebuild(&feed.world());
            return;
        }
        for note in pending.changes {
            match note {
                Note::Pod(name, pod) => s.pod(name, pod),
                Note::Node(name, node) => s.node(&name, node),
            }
        }
    }
}

impl State {
    fn rebuild(&mut self, world: &World) {
        self.cache = Cache::default();
        self.queue = Queue::default();
        for (name, n) in world.nodes.iter() {
            self.node(name, Some(n.clone()));
        }
        for (name, p) in world.pods.iter() {
            self.pod(name.clone(), Some(p.clone()));
        }
    }

    fn pod(&mut self, name: Name, pod: Option<Arc<Pod>>) {
        let now = self.env.mono();
        match pod {
            Some(p) if pod_node(&p).is_some() && !pod_terminal(&p) => {
                let node = pod_node(&p).unwrap_or_default().to_owned();
                self.queue.remove(&name);
                if !self.cache.confirm(&name, &node, p.metadata.generation) {
                    self.cache.place(&PodInfo::new(name, p), &node, false);
                }
            }
            Some(p) if wants_node(&p, NAME) => {
                // An older state of a pod that is being bound says nothing new.
                if !self.cache.is_assumed(&name) {
                    self.queue.put(PodInfo::new(name, p), now);
                }
            }
            _ => {
                self.queue.remove(&name);
                if self.cache.remove_pod(&name) {
                    self.queue.wake_all(now);
                }
            }
        }
    }

    fn node(&mut self, name: &Name, node: Option<Arc<Node>>) {
        match node {
            Some(n) => {
                let helps = self.cache.get(&name.name).and_then(|i| i.node.as_ref()).is_none_or(|old| differs(old, &n));
                self.cache.set_node(n);
                if helps {
                    self.queue.wake_all(self.env.mono());
                }
            }
            None => self.cache.remove_node(&name.name),
        }
    }

    /// Decides one pod and answers the writing that follows from it.
    fn decide(&mut self, pod: Arc<PodInfo>) -> BoxFuture<'static, Ended> {
        let random = self.env.random_u64();
        match schedule(&pod, &self.cache, self.start, random) {
            Ok(choice) => {
                self.start = (self.start + choice.examined) % self.cache.len().max(1);
                self.cache.place(&pod, &choice.node, true);
                let writer = self.writer.clone();
                async move {
                    let op = Op::Bind { name: pod.name.clone(), uid: pod.uid().to_owned(), node: choice.node.clone() };
                    let result = writer.write(&op).await.map(drop);
                    Ended::Bound(pod, choice.node, result)
                }
                .boxed()
            }
            Err(diagnosis) => self.tell(&pod, &diagnosis),
        }
    }

    /// FailedScheduling, and the pod's PodScheduled condition when it says something else.
    fn tell(&mut self, pod: &PodInfo, diagnosis: &Diagnosis) -> BoxFuture<'static, Ended> {
        self.queue.unschedulable(&pod.name, self.env.mono());
        let message = diagnosis.message(pod.never_preempts());
        self.recorder.record(note(&*pod.pod, NAME, "Warning", "FailedScheduling", message.clone()));
        let old = pod.pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let before = old.iter().find(|c| c.type_ == "PodScheduled");
        if before.is_some_and(|c| c.status == "False" && c.message.as_ref() == Some(&message)) {
            return futures::future::ready(Ended::Told).boxed();
        }
        let since = before.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.as_ref());
        let since = since.map_or_else(|| json!(self.env.wall().rfc3339()), |t| json!(t));
        let mut list: Vec<serde_json::Value> =
            old.iter().filter(|c| c.type_ != "PodScheduled").map(|c| json!(c)).collect();
        list.push(json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": since}));
        let m = &pod.pod.metadata;
        let patch =
            json!({"metadata": {"uid": m.uid, "resourceVersion": m.resource_version}, "status": {"conditions": list}});
        let op = Op::Patch { resource: resources::PODS, name: pod.name.clone(), subresource: Some("status"), patch };
        let writer = self.writer.clone();
        async move {
            // A conflict means that the pod has changed: it is looked at again anyway.
            if let Err(error) = writer.write(&op).await {
                tracing::debug!(%error, "a pod's scheduling condition was not written");
            }
            Ended::Told
        }
        .boxed()
    }

    fn ended(&mut self, ended: Ended) {
        let Ended::Bound(pod, node, result) = ended else { return };
        match result {
            Ok(()) => {
                self.queue.bound(&pod);
                let message = format!("Successfully assigned {}/{} to {node}", pod.name.namespace, pod.name.name);
                self.recorder.record(note(&*pod.pod, NAME, "Normal", "Scheduled", message));
            }
            Err(error) => {
                self.cache.forget(&pod.name);
                match error {
                    WriteError::NotFound(_) => self.queue.bound(&pod),
                    _ => {
                        tracing::warn!(pod = ?pod.name, node, %error, "a binding failed and is tried again");
                        self.queue.bind_failed(&pod, self.env.mono());
                    }
                }
            }
        }
    }
}

/// Whether a node changed in a way that may let a pod in.
fn differs(old: &Node, new: &Node) -> bool {
    let amounts = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    let spec = |n: &Node| n.spec.as_ref().map(|s| (s.unschedulable, s.taints.clone()));
    old.metadata.labels != new.metadata.labels || spec(old) != spec(new) || amounts(old) != amounts(new)
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
