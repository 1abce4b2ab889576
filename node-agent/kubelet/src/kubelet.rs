//! All pods of one node: who has a worker, who is woken, what is an orphan.
//!
//! Owns the map from pod uid to worker. It never waits for a worker. A pod that
//! the runtime has and the assignment does not is stopped only once a complete
//! set has come from the control plane: an agent that knows nothing stops nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use triarch_env::Scope;

use crate::model::Pod;
use crate::pod::slot::Slot;
use crate::pod::{admission, worker};
use crate::ports::NodeContext;
use crate::runtime::Observed;

/// The pods of a node. Cheap to share.
pub struct Kubelet {
    ctx: NodeContext,
    scope: Scope,
    pods: Arc<Mutex<BTreeMap<String, Arc<Slot>>>>,
    /// A complete set has been accepted: absence means removal.
    complete: Mutex<bool>,
    relist: Notify,
    this: Weak<Kubelet>,
}

impl std::fmt::Debug for Kubelet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubelet").field("node", &self.ctx.config.name).finish_non_exhaustive()
    }
}

impl Kubelet {
    /// A node's kubelet; its tasks end with `scope` (containers do not).
    pub fn start(ctx: NodeContext, scope: Scope) -> Arc<Kubelet> {
        let kubelet = Arc::new_cyclic(|this| Kubelet {
            this: this.clone(),
            ctx: ctx.clone(),
            scope: scope.clone(),
            pods: Arc::default(),
            complete: Mutex::new(false),
            relist: Notify::new(),
        });
        let of_events = kubelet.clone();
        ctx.env.spawn_in(&scope, "pleg-events", async move { of_events.follow_events().await });
        let of_relist = kubelet.clone();
        ctx.env.spawn_in(&scope, "pleg-relist", async move { of_relist.relist_forever().await });
        kubelet
    }

    pub fn context(&self) -> &NodeContext {
        &self.ctx
    }

    /// Takes up a new pod or a pod's new spec.
    pub fn upsert(&self, pod: Pod) {
        let pod = Arc::new(pod);
        let mut pods = self.pods.lock();
        if let Some(slot) = pods.get(&pod.metadata.uid) {
            slot.set(pod);
            return;
        }
        // The same name under another uid is another pod: the old one goes.
        for slot in pods.values() {
            let (other, removed) = slot.get();
            if !removed && other.key() == pod.key() {
                slot.remove();
            }
        }
        let others: Vec<_> = pods.values().filter(|s| !s.is_over()).map(|s| s.get().0).collect();
        let rejected = admission::reject(&pod, &others);
        let slot = Slot::new(pod.clone(), false);
        pods.insert(pod.metadata.uid.clone(), slot.clone());
        drop(pods);
        self.spawn(pod.metadata.uid.clone(), slot, rejected);
    }

    fn spawn(&self, uid: String, slot: Arc<Slot>, rejected: Option<(String, String)>) {
        let (ctx, pods, this) = (self.ctx.clone(), self.pods.clone(), self.this.clone());
        self.ctx.env.spawn_in(&self.scope, "pod", async move {
            worker::run(ctx, slot.clone(), rejected).await;
            // An ended pod that is still assigned keeps its place, so that a
            // repeated assignment does not start it again.
            while !slot.get().1 {
                slot.wake.notified().await;
            }
            {
                let mut pods = pods.lock();
                if pods.get(&uid).is_some_and(|s| Arc::ptr_eq(s, &slot)) {
                    pods.remove(&uid);
                }
            }
            if let (Some(pod), Some(kubelet)) = (slot.successor(), this.upgrade()) {
                kubelet.upsert(Pod::clone(&pod));
            }
        });
    }

    /// The pod with this name is no longer assigned.
    pub fn remove(&self, namespace: &str, name: &str) {
        for slot in self.pods.lock().values() {
            if slot.get().0.key() == (namespace, name) {
                slot.remove();
            }
        }
    }

    /// Takes the complete set. `authoritative`: it comes from the control
    /// plane and not from the ledger, so that unknown containers are orphans.
    pub fn replace(&self, pods: Vec<Pod>, authoritative: bool) {
        let wanted: BTreeSet<String> = pods.iter().map(|p| p.metadata.uid.clone()).collect();
        for (uid, slot) in self.pods.lock().iter() {
            if !wanted.contains(uid) {
                slot.remove();
            }
        }
        for pod in pods {
            self.upsert(pod);
        }
        if authoritative {
            *self.complete.lock() = true;
            self.relist.notify_one();
        }
    }

    /// Pods that the node holds and `pods` does not name, by uid.
    pub fn uids_besides(&self, pods: &[Pod]) -> Vec<String> {
        let wanted: BTreeSet<&str> = pods.iter().map(|p| p.metadata.uid.as_str()).collect();
        self.pods.lock().keys().filter(|uid| !wanted.contains(uid.as_str())).cloned().collect()
    }

    /// An object changed: pods that use it look again.
    pub fn object_changed(&self, resource: &str, namespace: &str, name: &str) {
        for slot in self.pods.lock().values() {
            let (pod, removed) = slot.get();
            if !removed && pod.metadata.namespace == namespace && uses(&pod, resource, name) {
                slot.wake.notify_one();
            }
        }
    }

    /// Reports again what each pod last showed, where `differs` says that the
    /// control plane has something else.
    pub fn report_again(&self, differs: impl Fn(&Pod, &crate::model::PodStatus, bool) -> bool) {
        let slots: Vec<_> = self.pods.lock().values().cloned().collect();
        for slot in slots {
            let (pod, removed) = slot.get();
            if let Some((status, terminated)) = slot.shown().filter(|_| !removed)
                && differs(&pod, &status, terminated)
            {
                self.ctx.reporter.status(&pod, &status, terminated);
            }
        }
    }

    /// The pod of this name, with this uid when one is given.
    pub fn find(&self, namespace: &str, name: &str, uid: &str) -> Option<Arc<Pod>> {
        let pods = self.pods.lock();
        let mut all = pods.values().map(|s| s.get());
        all.find(|(p, removed)| !removed && p.key() == (namespace, name) && (uid.is_empty() || p.metadata.uid == uid))
            .map(|(p, _)| p)
    }

    /// Pods that hold something of the node, with the status that each last showed.
    pub fn running(&self) -> Vec<(Arc<Pod>, crate::model::PodStatus)> {
        let slots: Vec<_> = self.pods.lock().values().filter(|s| !s.is_over()).cloned().collect();
        slots.iter().filter_map(|s| Some((s.get().0, s.shown()?.0))).collect()
    }

    /// The status that a pod last showed.
    pub fn shown(&self, uid: &str) -> Option<crate::model::PodStatus> {
        let slot = self.pods.lock().get(uid).cloned()?;
        slot.shown().map(|(status, _)| status)
    }

    /// How many pods the node holds.
    pub fn len(&self) -> usize {
        self.pods.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn wake(&self, uid: &str) {
        if let Some(slot) = self.pods.lock().get(uid) {
            slot.wake.notify_one();
        }
    }

    async fn follow_events(&self) {
        loop {
            match self.ctx.runtime.next_change().await {
                Some(Some(uid)) => self.wake(&uid),
                Some(None) => self.relist.notify_one(),
                None => {
                    self.ctx.env.sleep(std::time::Duration::from_secs(1)).await;
                    self.relist.notify_one();
                }
            }
        }
    }

    /// The net under the events: what they missed, and orphans.
    async fn relist_forever(&self) {
        let mut before: BTreeMap<String, Vec<_>> = BTreeMap::new();
        loop {
            if let Ok(all) = self.ctx.runtime.list().await {
                let now: BTreeMap<_, _> = all.iter().map(|o| (o.uid.clone(), worker::fingerprint(o))).collect();
                for uid in now.keys().chain(before.keys()) {
                    if now.get(uid) != before.get(uid) {
                        self.wake(uid);
                    }
                }
                before = now;
                if *self.complete.lock() {
                    self.adopt_orphans(&all);
                }
            }
            let sleep = self.ctx.env.sleep(self.ctx.env.jitter(self.ctx.config.relist, 10));
            let asked = std::pin::pin!(self.relist.notified());
            futures::future::select(asked, sleep).await;
        }
    }

    /// Gives each pod that nobody wants a worker that ends it.
    fn adopt_orphans(&self, all: &[Observed]) {
        for seen in all {
            if self.pods.lock().contains_key(&seen.uid) {
                continue;
            }
            let mut pod = Pod::default();
            pod.metadata.uid = seen.uid.clone();
            pod.metadata.namespace = seen.namespace.clone();
            pod.metadata.name = seen.name.clone();
            tracing::info!(pod = %pod.full_name(), "stopping a pod that is not assigned to this node");
            let slot = Slot::new(Arc::new(pod), true);
            self.pods.lock().insert(seen.uid.clone(), slot.clone());
            self.spawn(seen.uid.clone(), slot, None);
        }
    }
}

/// Whether a pod reads a ConfigMap or Secret in a volume or its environment.
fn uses(pod: &Pod, resource: &str, name: &str) -> bool {
    let config = resource == "configmaps";
    let volume = |v: &triarch_volume::spec::Volume| {
        let direct = if config { &v.config_map } else { &v.secret };
        let projected = v.projected.iter().flat_map(|p| &p.sources);
        direct.as_ref().is_some_and(|o| o.name == name)
            || projected.into_iter().any(|s| {
                let one = if config { &s.config_map } else { &s.secret };
                one.as_ref().is_some_and(|o| o.name == name)
            })
    };
    let env = |c: &crate::model::Container| {
        let from = c.env_from.iter().any(|e| {
            let one = if config { &e.config_map_ref } else { &e.secret_ref };
            one.as_ref().is_some_and(|r| r.name == name)
        });
        from || c.env.iter().filter_map(|e| e.value_from.as_ref()).any(|s| {
            let one = if config { &s.config_map_key_ref } else { &s.secret_key_ref };
            one.as_ref().is_some_and(|r| r.name == name)
        })
    };
    pod.spec.volumes.iter().any(volume)
        || pod.all_containers().any(|(c, _)| env(c))
        || (!config && pod.spec.image_pull_secrets.iter().any(|s| s.name == name))
}
