//! Losing an agent, or the whole control plane, stops no running container: a
//! pod that runs is never seen with a container that was restarted or has
//! ended by itself, since nothing in a run asks for either.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::log::Log;
use crate::tally::Tally;

const NAME: &str = "containers-untouched";

/// Container ids of a pod that run, and how often one was started again.
fn running(pod: &Value) -> (Vec<&str>, u64) {
    let all = pod.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten();
    let of = |c: &'_ Value| c["restartCount"].as_u64().unwrap_or(0);
    let restarts = all.clone().map(of).max().unwrap_or(0);
    (
        all.filter(|c| c.pointer("/state/running").is_some()).filter_map(|c| c["containerID"].as_str()).collect(),
        restarts,
    )
}

pub fn check(log: &Log, tally: &Tally) {
    // By pod uid: the containers that were seen to run.
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (revision, entry) in log.entries.iter().filter(|(_, e)| e.key.resource() == "pods") {
        let Some(pod) = entry.json(*revision) else { continue };
        if pod.pointer("/metadata/deletionTimestamp").is_some() {
            continue;
        }
        let (ids, restarts) = running(&pod);
        let uid = pod.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let before = seen.get(uid);
        tally.checked(NAME, 1);
        let lost = before.is_some_and(|b| b.iter().any(|id| !ids.contains(&id.as_str())));
        if lost || restarts > 0 {
            tally.violation(
                NAME,
                format!(
                    "revision {revision}: {:?} runs {ids:?} after {before:?}, restarted {restarts} times",
                    entry.key
                ),
            );
        }
        if !ids.is_empty() {
            seen.insert(uid.to_owned(), ids.into_iter().map(str::to_owned).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Entry;
    use serde_json::json;
    use triarch_mvcc::Key;

    fn violations(states: &[(Option<&str>, u64, bool)]) -> usize {
        let (mut log, tally) = (Log::default(), Tally::default());
        for (revision, (id, restarts, deleted)) in (1..).zip(states) {
            let state = if id.is_some() { json!({"running": {}}) } else { json!({"terminated": {}}) };
            let mut pod = json!({"metadata": {"uid": "u"}, "status": {"containerStatuses":
                [{"containerID": id, "restartCount": restarts, "state": state}]}});
            if *deleted {
                pod["metadata"]["deletionTimestamp"] = "now".into();
            }
            let value = Some(bytes::Bytes::from(pod.to_string().split_off(1)));
            let key = Key::new("pods", "d", "p");
            log.entries
                .insert(revision, Entry { key, value, slot: None, prev: None, prev_revision: 0, create_revision: 1 });
        }
        check(&log, &tally);
        tally.counts().violations.len()
    }

    #[test]
    fn a_container_that_is_replaced_restarted_or_lost_is_found_and_a_deleted_pods_is_not() {
        assert_eq!(violations(&[(None, 0, false), (Some("a"), 0, false), (Some("a"), 0, false)]), 0);
        assert_eq!(violations(&[(Some("a"), 0, false), (Some("b"), 0, false)]), 1);
        assert_eq!(violations(&[(Some("a"), 1, false)]), 1);
        assert_eq!(violations(&[(Some("a"), 0, false), (None, 0, false)]), 1);
        assert_eq!(violations(&[(Some("a"), 0, false), (None, 0, true)]), 0);
    }
}
