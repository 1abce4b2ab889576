//! The dense node cache: one slot per node with sums kept up to date, so that
//! a filter or a score looks at a few numbers.
//!
//! A pod that was given a node is counted there from then on (assumed), before
//! the store says so; a failed bind takes it off again.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use triarch_controllers::Name;

use crate::pod_info::{HostPort, PodInfo};
use crate::resource::Resources;

/// A node and what is on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: Arc<str>,
    /// `None`: pods are bound to a name that has no Node (yet, or any more).
    pub node: Option<Arc<Node>>,
    pub allocatable: Resources,
    pub requested: Resources,
    pub nonzero: Resources,
    pub pods: i64,
    pub host_ports: Vec<HostPort>,
}

impl NodeInfo {
    pub fn taints(&self) -> &[Taint] {
        self.node.as_ref().and_then(|n| n.spec.as_ref()?.taints.as_deref()).unwrap_or_default()
    }

    pub fn unschedulable(&self) -> bool {
        self.node.as_ref().and_then(|n| n.spec.as_ref()?.unschedulable) == Some(true)
    }

    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.node.as_ref()?.metadata.labels.as_ref()
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        self.allocatable = list.map(Resources::of).unwrap_or_default();
        self.node = Some(node);
    }

    fn add(&mut self, p: &Placed) {
        self.requested.add(&p.requests);
        self.nonzero.add(&p.nonzero);
        self.pods += 1;
        self.host_ports.extend(p.host_ports.iter().cloned());
    }

    fn remove(&mut self, p: &Placed) {
        self.requested.sub(&p.requests);
        self.nonzero.sub(&p.nonzero);
        self.pods -= 1;
        for port in &p.host_ports {
            if let Some(i) = self.host_ports.iter().position(|h| h == port) {
                self.host_ports.swap_remove(i);
            }
        }
    }
}

/// What a pod takes on its node.
#[derive(Clone, Debug)]
struct Placed {
    slot: usize,
    requests: Resources,
    nonzero: Resources,
    host_ports: Vec<HostPort>,
    assumed: bool,
    generation: Option<i64>,
}

/// All nodes. See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    /// Slots; those of nodes that are gone and empty are reused.
    slots: Vec<NodeInfo>,
    by_name: BTreeMap<Arc<str>, usize>,
    free: Vec<usize>,
    /// Slots that have a Node, for sampling.
    live: Vec<usize>,
    pods: BTreeMap<Name, Placed>,
}

impl Cache {
    /// Nodes that exist.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// The `i`th existing node; the order changes only when nodes come and go.
    pub fn nth(&self, i: usize) -> &NodeInfo {
        &self.slots[self.live[i]]
    }

    pub fn get(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|i| &self.slots[*i])
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let slot = self.slot(&name);
        if self.slots[slot].node.is_none() {
            self.live.push(slot);
        }
        self.slots[slot].set_node(node);
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(&slot) = self.by_name.get(name) else { return };
        self.slots[slot].node = None;
        self.live.retain(|s| *s != slot);
        self.release(slot);
    }

    /// Confirms a pod where it is counted already; `false` when it is counted
    /// elsewhere, or otherwise, or not at all. Status updates end here.
    pub fn confirm(&mut self, name: &Name, node: &str, generation: Option<i64>) -> bool {
        match self.pods.get_mut(name) {
            Some(p) if generation.is_some() && p.generation == generation && *self.slots[p.slot].name == *node => {
                p.assumed = false;
                true
            }
            _ => false,
        }
    }

    /// Counts a pod on a node, replacing what was counted for it before.
    pub fn place(&mut self, pod: &PodInfo, node: &str, assumed: bool) {
        // A pod's amounts are the same when it is confirmed where it was assumed.
        if let Some(p) = self.pods.get_mut(&pod.name)
            && *self.slots[p.slot].name == *node
            && p.requests == pod.requests
        {
            p.assumed = assumed && p.assumed;
            p.generation = pod.pod.metadata.generation;
            return;
        }
        self.remove_pod(&pod.name);
        let slot = self.slot(node);
        let placed = Placed {
            slot,
            requests: pod.requests.clone(),
            nonzero: pod.nonzero.clone(),
            host_ports: pod.host_ports.clone(),
            assumed,
            generation: pod.pod.metadata.generation,
        };
        self.slots[slot].add(&placed);
        self.pods.insert(pod.name.clone(), placed);
    }

    pub fn remove_pod(&mut self, name: &Name) -> bool {
        let Some(placed) = self.pods.remove(name) else { return false };
        self.slots[placed.slot].remove(&placed);
        self.release(placed.slot);
        true
    }

    /// Takes a pod off whose bind failed; one that the store has confirmed stays.
    pub fn forget(&mut self, name: &Name) {
        if self.pods.get(name).is_some_and(|p| p.assumed) {
            self.remove_pod(name);
        }
    }

    pub fn is_assumed(&self, name: &Name) -> bool {
        self.pods.get(name).is_some_and(|p| p.assumed)
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(i) = self.by_name.get(name) {
            return *i;
        }
        let info = NodeInfo { name: name.into(), ..NodeInfo::default() };
        let slot = match self.free.pop() {
            Some(i) => {
                self.slots[i] = info;
                i
            }
            None => {
                self.slots.push(info);
                self.slots.len() - 1
            }
        };
        self.by_name.insert(name.into(), slot);
        slot
    }

    fn release(&mut self, slot: usize) {
        let s = &self.slots[slot];
        if s.node.is_none() && s.pods == 0 {
            self.by_name.remove(&s.name);
            self.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, cpu: &str) -> PodInfo {
        let p = json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu}}, "ports": [{"containerPort": 1, "hostPort": 80}]}]}});
        PodInfo::new(Name::new("d", name), Arc::new(serde_json::from_value(p).unwrap()))
    }

    #[test]
    fn an_assumed_pod_counts_until_it_is_forgotten_and_a_confirmed_one_stays() {
        let mut c = Cache::default();
        c.set_node(Arc::new(serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap()));
        let used = |c: &Cache| {
            let n = c.get("n").unwrap();
            (n.requested.milli_cpu, n.pods, n.host_ports.len())
        };
        c.place(&pod("a", "100m"), "n", true);
        c.place(&pod("b", "200m"), "n", true);
        assert_eq!(used(&c), (300, 2, 2));
        c.place(&pod("b", "200m"), "n", false);
        c.forget(&Name::new("d", "a"));
        c.forget(&Name::new("d", "b"));
        assert_eq!(used(&c), (200, 1, 1));
        assert!(c.remove_pod(&Name::new("d", "b")));
        assert_eq!(used(&c), (0, 0, 0));
    }

    #[test]
    fn a_slot_of_a_gone_node_is_reused_when_its_pods_are_gone_too() {
        let mut c = Cache::default();
        let node = |n: &str| Arc::new(serde_json::from_value(json!({"metadata": {"name": n}})).unwrap());
        c.set_node(node("a"));
        c.place(&pod("p", "1"), "a", false);
        c.remove_node("a");
        assert_eq!((c.len(), c.get("a").unwrap().pods), (0, 1));
        c.remove_pod(&Name::new("d", "p"));
        assert!(c.get("a").is_none());
        c.set_node(node("b"));
        assert_eq!((c.slots.len(), c.len()), (1, 1));
    }
}
