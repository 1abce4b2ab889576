//! The taints that a node's conditions call for.

use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::json;

use super::{condition, is_ready};
use crate::*;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, and the taint when it is True.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];

/// The patch that brings the node's taints to what they should be; `None` when
/// they are. Taints that others put there stay; NoExecute ones get the time
/// that evictions count from.
pub(super) fn sync(node: &Node, cx: &Context<'_>) -> Option<Op> {
    let spec = node.spec.as_ref();
    let have = spec.and_then(|s| s.taints.clone()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match condition(node, "Ready").map(|c| c.status.as_str()) {
        Some("True") => {}
        Some("Unknown") => wanted.push((UNREACHABLE, "NoSchedule")),
        _ => wanted.push((NOT_READY, "NoSchedule")),
    }
    for (kind, key) in PRESSURES {
        if condition(node, kind).is_some_and(|c| c.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if spec.and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    // When no node at all is ready the fault is more likely here than there: nothing is evicted.
    let any_ready = cx.world.nodes.values().any(|n| is_ready(n));
    if any_ready {
        match condition(node, "Ready").map(|c| c.status.as_str()) {
            Some("Unknown") => wanted.push((UNREACHABLE, "NoExecute")),
            Some("False") => wanted.push((NOT_READY, "NoExecute")),
            _ => {}
        }
    }
    let ours = |t: &Taint| {
        let key = t.key.as_str();
        let scheduling = [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|p| p.1 == key);
        match t.effect.as_str() {
            "NoSchedule" => scheduling,
            "NoExecute" => [NOT_READY, UNREACHABLE].contains(&key),
            _ => false,
        }
    };
    let mut now: Vec<Taint> =
        have.iter().filter(|t| !ours(t) || wanted.contains(&(t.key.as_str(), t.effect.as_str()))).cloned().collect();
    for (key, effect) in wanted {
        if !now.iter().any(|t| t.key == key && t.effect == effect) {
            let time_added = Some(time(cx.now));
            now.push(Taint { key: key.into(), effect: effect.into(), value: None, time_added });
        }
    }
    for t in now.iter_mut().filter(|t| t.effect == "NoExecute" && t.time_added.is_none()) {
        t.time_added = Some(time(cx.now));
    }
    if now == have {
        return None;
    }
    let taints = if now.is_empty() { serde_json::Value::Null } else { to_value(&now) };
    let m = &node.metadata;
    let patch = json!({"metadata": {"uid": m.uid, "resourceVersion": m.resource_version}, "spec": {"taints": taints}});
    Some(Op::Patch { resource: resources::NODES, name: name_of(m), subresource: None, patch })
}
