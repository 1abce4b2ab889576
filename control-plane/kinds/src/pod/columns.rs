//! `kubectl get pods`.

use serde_json::{Value, json};
use triarch_env::Wall;
use triarch_registry::Column;

use crate::describe;
use crate::duration::{human, micros};
use crate::print::{AGE, NAME, or_none, text, wide};
use crate::value::{at, flag, get, int_of, is_set, list, list_at, opt, str_at, str_of};

pub const COLUMNS: &[Column] = &[
    NAME,
    text("Ready", "The aggregate readiness state of this pod for accepting traffic.", |v, _| {
        let s = Summary::of(v);
        format!("{}/{}", s.ready, s.total).into()
    }),
    text("Status", "The aggregate status of the containers in this pod.", |v, _| Summary::of(v).reason.into()),
    text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        restarts,
    ),
    AGE,
    wide("IP", describe::POD_IP, |v, _| {
        let first = list_at(v, &["status", "podIPs"]).first().map_or("", |ip| str_of(ip, "ip"));
        or_none(first)
    }),
    wide("Node", describe::POD_NODE, |v, _| or_none(str_at(v, &["spec", "nodeName"]))),
    wide("Nominated Node", describe::POD_NOMINATED_NODE, |v, _| or_none(str_at(v, &["status", "nominatedNodeName"]))),
    wide("Readiness Gates", describe::POD_READINESS_GATES, gates),
];

/// What the cells are made of; one walk over the container statuses.
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    /// Of the last restart, in microseconds since the epoch.
    last_restart: Option<i64>,
}

impl Summary {
    fn of(v: &Value) -> Summary {
        let (spec, status) = (get(v, "spec"), get(v, "status"));
        let sidecar = |name: &str| {
            list(spec, "initContainers")
                .iter()
                .any(|c| str_of(c, "name") == name && str_of(c, "restartPolicy") == "Always")
        };
        let sidecars = list(spec, "initContainers").iter().filter(|c| str_of(c, "restartPolicy") == "Always").count();
        let phase = str_of(status, "phase");
        let reason = if str_of(status, "reason").is_empty() { phase } else { str_of(status, "reason") };
        let mut s = Summary {
            ready: 0,
            total: list(spec, "containers").len() + sidecars,
            reason: reason.to_owned(),
            restarts: 0,
            last_restart: None,
        };
        let scheduled = list(status, "conditions").iter().find(|c| str_of(c, "type") == "PodScheduled");
        if scheduled.is_some_and(|c| str_of(c, "reason") == "SchedulingGated") {
            "SchedulingGated".clone_into(&mut s.reason);
        }
        let initializing = s.init(spec, status, sidecar);
        let initialized = has_condition(status, "Initialized");
        if !initializing || initialized {
            s.running(status, sidecar);
        }
        let deleting = is_set(get(v, "metadata"), "deletionTimestamp");
        if deleting && str_of(status, "reason") == "NodeLost" {
            "Unknown".clone_into(&mut s.reason);
        } else if deleting && phase != "Succeeded" && phase != "Failed" {
            "Terminating".clone_into(&mut s.reason);
        }
        s
    }

    /// The init containers; true while they are not done.
    fn init(&mut self, spec: &Value, status: &Value, sidecar: impl Fn(&str) -> bool) -> bool {
        for (i, c) in list(status, "initContainerStatuses").iter().enumerate() {
            self.count(c);
            let state = get(c, "state");
            let waiting = str_of(get(state, "waiting"), "reason");
            match opt(state, "terminated") {
                Some(t) if int_of(t, "exitCode") == 0 => continue,
                _ if sidecar(str_of(c, "name")) && flag(c, "started") => {
                    if flag(c, "ready") {
                        self.ready += 1;
                    }
                    continue;
                }
                Some(t) => self.reason = format!("Init:{}", ended(t)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => self.reason = format!("Init:{waiting}"),
                None => self.reason = format!("Init:{i}/{}", list(spec, "initContainers").len()),
            }
            return true;
        }
        false
    }

    /// The regular containers; restarts of init containers no longer count,
    /// except those of sidecars.
    fn running(&mut self, status: &Value, sidecar: impl Fn(&str) -> bool) {
        (self.restarts, self.last_restart) = (0, None);
        for c in list(status, "initContainerStatuses").iter().filter(|c| sidecar(str_of(c, "name"))) {
            self.count(c);
        }
        let mut any_running = false;
        for c in list(status, "containerStatuses").iter().rev() {
            self.count(c);
            let state = get(c, "state");
            let waiting = str_of(get(state, "waiting"), "reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if let Some(t) = opt(state, "terminated") {
                self.reason = ended(t);
            } else if flag(c, "ready") && is_set(state, "running") {
                any_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && any_running {
            let reason = if has_condition(status, "Ready") { "Running" } else { "NotReady" };
            reason.clone_into(&mut self.reason);
        }
    }

    fn count(&mut self, c: &Value) {
        self.restarts += int_of(c, "restartCount");
        let ended = at(c, &["lastState", "terminated", "finishedAt"]).as_str().and_then(micros);
        self.last_restart = self.last_restart.max(ended);
    }
}

/// Why a container ended.
fn ended(t: &Value) -> String {
    match (str_of(t, "reason"), int_of(t, "signal")) {
        ("", 0) => format!("ExitCode:{}", int_of(t, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn has_condition(status: &Value, kind: &str) -> bool {
    list(status, "conditions").iter().any(|c| str_of(c, "type") == kind && str_of(c, "status") == "True")
}

/// A row whose pod has ended says so.
pub fn conditions(v: &Value) -> Value {
    let message = match str_at(v, &["status", "phase"]) {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return Value::Null,
    };
    json!([{"type": "Completed", "status": "True", "reason": at(v, &["status", "phase"]), "message": message}])
}

fn restarts(v: &Value, now: Wall) -> Value {
    let s = Summary::of(v);
    match s.last_restart {
        Some(at) if s.restarts != 0 => format!("{} ({} ago)", s.restarts, human((now.micros - at) / 1_000_000)).into(),
        _ => s.restarts.to_string().into(),
    }
}

fn gates(v: &Value, _: Wall) -> Value {
    let gates = list_at(v, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let fulfilled = gates.iter().filter(|g| has_condition(get(v, "status"), str_of(g, "conditionType"))).count();
    format!("{fulfilled}/{}", gates.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(v: &Value) -> (String, String, String) {
        let now = Wall::from_secs(1_000);
        let cell = |i: usize| (COLUMNS[i].cell)(v, now).as_str().unwrap().to_owned();
        (cell(1), cell(2), cell(3))
    }

    fn expect(pod: &Value, ready: &str, reason: &str, restarts: &str) {
        assert_eq!(status(pod), (ready.to_owned(), reason.to_owned(), restarts.to_owned()), "{pod}");
    }

    #[test]
    fn a_pod_shows_what_its_containers_do() {
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        expect(&json!({"spec": two, "status": {"phase": "Pending"}}), "0/2", "Pending", "0");
        let running = json!({"name": "a", "ready": true, "state": {"running": {}}});
        let crashing = json!({"name": "b", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "1970-01-01T00:10:00Z"}}});
        let pod = json!({"spec": two, "status": {"phase": "Running", "containerStatuses": [running, crashing]}});
        expect(&pod, "1/2", "CrashLoopBackOff", "3 (6m40s ago)");
        let mut deleted = pod.clone();
        deleted["metadata"] = json!({"deletionTimestamp": "1970-01-01T00:00:00Z"});
        expect(&deleted, "1/2", "Terminating", "3 (6m40s ago)");
        let done = json!({"name": "b", "state": {"terminated": {"reason": "Completed", "exitCode": 0}}});
        let half = json!({"spec": two, "status": {"phase": "Running", "containerStatuses": [running, done],
            "conditions": [{"type": "Ready", "status": "False"}]}});
        expect(&half, "1/2", "NotReady", "0");
        let killed = json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Failed",
            "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 137, "signal": 9}}}]}});
        expect(&killed, "0/1", "Signal:9", "0");
    }

    #[test]
    fn init_containers_are_counted_until_they_are_done() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let init = |state: Value| {
            json!({"spec": spec, "status": {"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": state}]}})
        };
        expect(&init(json!({"running": {}})), "0/1", "Init:1/2", "0");
        expect(&init(json!({"terminated": {"exitCode": 2, "reason": "Error"}})), "0/1", "Init:Error", "0");
        expect(&init(json!({"waiting": {"reason": "ImagePullBackOff"}})), "0/1", "Init:ImagePullBackOff", "0");
        let sidecar = json!({
            "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
            "status": {"phase": "Running",
                "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
                "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]},
        });
        expect(&sidecar, "2/2", "Running", "1");
    }
}
