//! Events as upstream's recorder makes them: named, counted, rate limited.
//!
//! Pure: notes in, Event objects out. The same thing seen again raises the
//! count of the event that is there already (same name, so it replaces it); a
//! source that floods is held to a burst and a slow refill per pod.

use std::collections::BTreeMap;

use serde_json::json;
use triarch_env::Wall;
use triarch_kubelet::model::Pod;
use triarch_kubelet::ports::Note;

/// Events that are remembered for counting; beyond it all are forgotten.
const MAX_KNOWN: usize = 4096;
/// Per pod: a burst, and one more every five minutes.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;

#[derive(Debug, Default)]
pub struct Recorder {
    known: BTreeMap<(String, String, String, String), (String, u32, Wall)>,
    budget: BTreeMap<String, (f64, Wall)>,
}

impl Recorder {
    /// The Event object (core/v1) to write; `None` when the pod floods.
    pub fn record(&mut self, node: &str, pod: &Pod, note: &Note, now: Wall) -> Option<serde_json::Value> {
        let meta = &pod.metadata;
        if !self.allowed(&meta.uid, now) {
            return None;
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        let key = (meta.uid.clone(), note.reason.to_owned(), note.message.clone(), note.field_path.clone());
        let fresh = || format!("{}.{:x}", meta.name, now.micros.saturating_mul(1000));
        let entry = self.known.entry(key).or_insert_with(|| (fresh(), 0, now));
        entry.1 += 1;
        let (name, count, first) = entry.clone();
        let mut object = json!({
            "kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid, "apiVersion": "v1",
            "resourceVersion": meta.resource_version,
        });
        if !note.field_path.is_empty() {
            object["fieldPath"] = json!(note.field_path);
        }
        Some(json!({
            "kind": "Event", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": meta.namespace},
            "involvedObject": object,
            "reason": note.reason,
            "message": note.message.chars().take(1024).collect::<String>(),
            "source": {"component": "kubelet", "host": node},
            "firstTimestamp": first.rfc3339(),
            "lastTimestamp": now.rfc3339(),
            "count": count,
            "type": if note.warning { "Warning" } else { "Normal" },
            "eventTime": null,
            "reportingComponent": "kubelet",
            "reportingInstance": node,
        }))
    }

    fn allowed(&mut self, uid: &str, now: Wall) -> bool {
        if self.budget.len() >= MAX_KNOWN {
            self.budget.clear();
        }
        let (left, since) = self.budget.entry(uid.to_owned()).or_insert((BURST, now));
        let passed = (now.micros - since.micros).max(0) as f64 / 1e6;
        *left = (*left + passed / REFILL_SECONDS).min(BURST);
        *since = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}})).expect("a pod")
    }

    fn note(message: &str) -> Note {
        Note { warning: true, reason: "BackOff", message: message.into(), field_path: "spec.containers{c}".into() }
    }

    #[test]
    fn the_same_event_again_is_counted_under_its_name() {
        let mut r = Recorder::default();
        let a = r.record("n", &pod(), &note("x"), Wall::from_secs(10)).expect("allowed");
        let b = r.record("n", &pod(), &note("x"), Wall::from_secs(20)).expect("allowed");
        assert_eq!(a["metadata"]["name"], b["metadata"]["name"]);
        assert_eq!((b["count"].as_u64(), b["firstTimestamp"].as_str()), (Some(2), Some("1970-01-01T00:00:10Z")));
        let c = r.record("n", &pod(), &note("y"), Wall::from_secs(21)).expect("allowed");
        assert_ne!(b["metadata"]["name"], c["metadata"]["name"]);
    }

    #[test]
    fn a_flood_is_cut_to_a_burst() {
        let mut r = Recorder::default();
        let now = Wall::from_secs(10);
        let passed = (0..100).filter(|i| r.record("n", &pod(), &note(&i.to_string()), now).is_some()).count();
        assert_eq!(passed, 25);
        assert!(r.record("n", &pod(), &note("later"), Wall::from_secs(10 + 300)).is_some());
    }
}
