//! A pod is bound once and for all, and no node is given more than it has.

use std::collections::BTreeMap;

use serde_json::Value;
use triarch_mvcc::Key;

use crate::agents::{CPUS, PODS};
use crate::log::Log;
use crate::tally::Tally;

/// A pod as far as binding is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    uid: String,
    node: String,
    cpu_milli: u64,
    /// It holds its place on the node.
    live: bool,
}

fn text(v: &Value, path: &str) -> String {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn bound(pod: &Value) -> Bound {
    let cpu = |c: &Value| {
        let asked = text(c, "/resources/requests/cpu");
        match asked.strip_suffix('m') {
            Some(milli) => milli.parse().unwrap_or(0),
            None => asked.parse::<u64>().unwrap_or(0) * 1000,
        }
    };
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    Bound {
        uid: text(pod, "/metadata/uid"),
        node: text(pod, "/spec/nodeName"),
        cpu_milli: containers.map(cpu).sum(),
        live: !matches!(text(pod, "/status/phase").as_str(), "Succeeded" | "Failed"),
    }
}

pub fn check(log: &Log, tally: &Tally) {
    let mut pods: BTreeMap<&Key, Bound> = BTreeMap::new();
    for (revision, entry) in log.entries.iter().filter(|(_, e)| e.key.resource() == "pods") {
        let Some(pod) = entry.json(*revision) else {
            pods.remove(&entry.key);
            continue;
        };
        let now = bound(&pod);
        if let Some(before) = pods.get(&entry.key)
            && before.uid == now.uid
            && !before.node.is_empty()
            && before.node != now.node
        {
            tally.violation(
                "bound-once",
                format!("revision {revision}: {:?} moves from {} to {:?}", entry.key, before.node, now.node),
            );
        }
        let node = now.node.clone();
        if !node.is_empty() {
            tally.checked("bound-once", 1);
        }
        pods.insert(&entry.key, now);
        if node.is_empty() {
            continue;
        }
        let there = || pods.values().filter(|p| p.live && p.node == node);
        let (cpu, number) = (there().map(|p| p.cpu_milli).sum::<u64>(), there().count() as u64);
        tally.checked("capacity", 1);
        if cpu > CPUS * 1000 || number > u64::from(PODS) {
            tally.violation("capacity", format!("revision {revision}: {node} holds {number} pods that ask for {cpu}m"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Entry;
    use serde_json::json;

    fn violations(states: &[(&str, &str, &str)]) -> Vec<&'static str> {
        let (mut log, tally) = (Log::default(), Tally::default());
        for (revision, (name, node, cpu)) in (1..).zip(states) {
            let pod = json!({"metadata": {"uid": name}, "spec": {"nodeName": node,
                "containers": [{"resources": {"requests": {"cpu": cpu}}}]}});
            let value = Some(bytes::Bytes::from(pod.to_string().split_off(1)));
            let key = Key::new("pods", "d", name);
            let entry = Entry { key, value, slot: None, prev: None, prev_revision: 0, create_revision: 1 };
            log.entries.insert(revision, entry);
        }
        check(&log, &tally);
        tally.counts().violations.iter().map(|v| v.invariant).collect()
    }

    #[test]
    fn a_second_binding_and_a_full_node_are_found() {
        assert!(violations(&[("a", "", "1"), ("a", "n1", "1"), ("b", "n1", "1000m"), ("c", "n2", "2")]).is_empty());
        assert_eq!(violations(&[("a", "n1", "1"), ("a", "n2", "1")]), ["bound-once"]);
        assert_eq!(violations(&[("a", "n1", "1"), ("b", "n1", "1100m")]), ["capacity"]);
    }
}
