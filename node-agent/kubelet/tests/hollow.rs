//! A node's kubelet over the simulated runtime: pods come up, end, are deleted
//! and removed, and what is reported is what the API would show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use triarch_env::{Env, Scope, TokioRuntime};
use triarch_kubelet::Kubelet;
use triarch_kubelet::model::{Pod, PodStatus};
use triarch_kubelet::ports::{HollowHost, NodeConfig, NodeContext, Note, Objects, Reporter};
use triarch_kubelet::probe::HollowDialer;
use triarch_kubelet::runtime::Runtime;
use triarch_kubelet::runtime::hollow::HollowRuntime;

#[derive(Default)]
struct Seen {
    statuses: Mutex<BTreeMap<String, (PodStatus, bool)>>,
    events: Mutex<Vec<(String, Note)>>,
}

impl Reporter for Seen {
    fn status(&self, pod: &Pod, status: &PodStatus, terminated: bool) {
        self.statuses.lock().insert(pod.metadata.name.clone(), (status.clone(), terminated));
    }
    fn event(&self, pod: &Pod, note: Note) {
        self.events.lock().push((pod.metadata.name.clone(), note));
    }
}

#[derive(Default)]
struct Things(Mutex<BTreeMap<String, Value>>);

impl Objects for Things {
    fn get(&self, _resource: &str, _namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0.lock().get(name).cloned().map(Arc::new)
    }
    fn services(&self, _namespace: &str) -> Vec<Arc<Value>> {
        Vec::new()
    }
}

struct Node {
    kubelet: Arc<Kubelet>,
    runtime: Arc<HollowRuntime>,
    seen: Arc<Seen>,
    things: Arc<Things>,
    scope: Scope,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

fn node() -> Node {
    let env = Env::new(TokioRuntime::current());
    let (runtime, seen, things) =
        (HollowRuntime::new(env.clone(), 1), Arc::new(Seen::default()), Arc::new(Things::default()));
    let config = NodeConfig {
        name: "n1".into(),
        ips: vec!["192.0.2.1".into()],
        runtime_name: "hollow".into(),
        relist: Duration::from_secs(10),
        ..Default::default()
    };
    let ctx = NodeContext {
        env,
        config: Arc::new(config),
        runtime: runtime.clone(),
        host: Arc::new(HollowHost),
        objects: things.clone(),
        reporter: seen.clone(),
        dialer: Arc::new(HollowDialer),
    };
    let scope = Scope::new();
    Node { kubelet: Kubelet::start(ctx, scope.clone()), runtime, seen, things, scope }
}

fn pod(name: &str, spec: Value) -> Pod {
    let meta = json!({"name": name, "namespace": "d", "uid": format!("uid-{name}"), "generation": 1});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).expect("a pod")
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

impl Node {
    async fn status(&self, name: &str, condition: impl Fn(&PodStatus) -> bool) -> PodStatus {
        until(name, || self.seen.statuses.lock().get(name).is_some_and(|(s, _)| condition(s))).await;
        self.seen.statuses.lock()[name].0.clone()
    }

    fn reasons(&self, name: &str) -> Vec<&'static str> {
        self.seen.events.lock().iter().filter(|(n, _)| n == name).map(|(_, e)| e.reason).collect()
    }
}

fn ready(s: &PodStatus) -> bool {
    s.condition("Ready").is_some_and(|c| c.status == "True")
}

#[tokio::test]
async fn a_pod_runs_becomes_ready_and_tells_how() {
    let n = node();
    let probed =
        json!({"name": "c", "image": "web:1", "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1}});
    n.kubelet.upsert(pod("p", json!({"containers": [probed]})));
    let s = n.status("p", ready).await;
    assert_eq!(s.phase, "Running");
    assert!(s.pod_ip.starts_with("10.200.1."), "{}", s.pod_ip);
    assert!(s.container_statuses[0].container_id.starts_with("hollow://"));
    assert_eq!(n.reasons("p"), ["Pulled", "Created", "Started"]);
}

#[tokio::test]
async fn a_missing_config_map_holds_the_container_until_it_comes() {
    let n = node();
    let container = json!({"name": "c", "image": "web:1", "envFrom": [{"configMapRef": {"name": "cm"}}]});
    n.kubelet.upsert(pod("p", json!({"containers": [container]})));
    let wait = |s: &PodStatus| s.container_statuses[0].state.waiting.clone().unwrap_or_default();
    let s = n.status("p", |s| wait(s).reason == "CreateContainerConfigError").await;
    assert_eq!(wait(&s).message, "configmap \"cm\" not found");
    n.things.0.lock().insert("cm".into(), json!({"data": {"A": "b"}}));
    n.kubelet.object_changed("configmaps", "d", "cm");
    n.status("p", ready).await;
}

#[tokio::test]
async fn a_job_like_pod_succeeds_and_stays_so() {
    let n = node();
    let mut p = pod("p", json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "job:1"}]}));
    p.metadata.annotations.insert("hollow.triarch.io/run-seconds".into(), "0".into());
    n.kubelet.upsert(p);
    let s = n.status("p", |s| s.phase == "Succeeded").await;
    let end = s.container_statuses[0].state.terminated.clone().expect("ended");
    assert_eq!((end.exit_code, end.reason.as_str()), (0, "Completed"));
    assert_eq!(s.condition("Ready").expect("shown").reason, "PodCompleted");
}

#[tokio::test]
async fn a_crash_restarts_at_once_and_the_next_backs_off() {
    let n = node();
    n.kubelet.upsert(pod("p", json!({"containers": [{"name": "c", "image": "web:1"}]})));
    let running = |count: i32| move |s: &PodStatus| s.container_statuses[0].restart_count == count && ready(s);
    let crash = |s: &PodStatus| {
        let id = s.container_statuses[0].container_id.trim_start_matches("hollow://").to_owned();
        n.runtime.exit(&id, 3, "Error");
    };
    crash(&n.status("p", running(0)).await);
    crash(&n.status("p", running(1)).await);
    let s = n.status("p", |s| s.container_statuses[0].state.waiting.is_some()).await;
    let c = &s.container_statuses[0];
    let w = c.state.waiting.clone().expect("waits");
    assert_eq!(w.reason, "CrashLoopBackOff");
    assert_eq!(w.message, "back-off 10s restarting failed container=c pod=p_d(uid-p)");
    assert_eq!(c.last_state.terminated.as_ref().expect("ended").exit_code, 3);
    assert_eq!(s.phase, "Running");
    assert!(n.reasons("p").contains(&"BackOff"));
}

#[tokio::test]
async fn a_deleted_pod_is_stopped_cleaned_and_reported_ended() {
    let n = node();
    let mut p = pod("p", json!({"containers": [{"name": "c", "image": "web:1"}]}));
    n.kubelet.upsert(p.clone());
    n.status("p", ready).await;
    p.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
    p.metadata.deletion_grace_period_seconds = Some(30);
    n.kubelet.upsert(p);
    until("terminated", || n.seen.statuses.lock()["p"].1).await;
    assert!(n.runtime.list().await.expect("lists").is_empty());
    assert!(n.reasons("p").contains(&"Killing"));
    assert_eq!(n.kubelet.len(), 1, "kept until the object is gone");
    n.kubelet.remove("d", "p");
    until("forgotten", || n.kubelet.is_empty()).await;
}

#[tokio::test]
async fn absence_from_a_complete_set_stops_a_pod_but_knowing_nothing_stops_none() {
    let n = node();
    n.kubelet.upsert(pod("keep", json!({"containers": [{"name": "c", "image": "web:1"}]})));
    n.kubelet.upsert(pod("drop", json!({"containers": [{"name": "c", "image": "web:1"}]})));
    n.status("keep", ready).await;
    n.status("drop", ready).await;
    // A second agent over the same runtime, without any assignment: nothing stops.
    let scope = Scope::new();
    let again = Kubelet::start(n.kubelet.context().clone(), scope.clone());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(n.runtime.list().await.expect("lists").len(), 2);
    scope.cancel();
    drop(again);
    n.kubelet.replace(vec![pod("keep", json!({"containers": [{"name": "c", "image": "web:1"}]}))], true);
    until("dropped", || n.kubelet.len() == 1).await;
    let left = n.runtime.list().await.expect("lists");
    assert_eq!((left.len(), left[0].name.as_str()), (1, "keep"));
}

#[tokio::test]
async fn a_restarted_agent_adopts_running_containers_and_ends_orphans() {
    let n = node();
    n.kubelet.upsert(pod("keep", json!({"containers": [{"name": "c", "image": "web:1"}]})));
    n.kubelet.upsert(pod("orphan", json!({"containers": [{"name": "c", "image": "web:1"}]})));
    let id = n.status("keep", ready).await.container_statuses[0].container_id.clone();
    n.status("orphan", ready).await;
    n.scope.cancel();
    n.seen.statuses.lock().clear();
    let scope = Scope::new();
    let again = Kubelet::start(n.kubelet.context().clone(), scope.clone());
    again.replace(vec![pod("keep", json!({"containers": [{"name": "c", "image": "web:1"}]}))], true);
    let s = n.status("keep", ready).await;
    assert_eq!(s.container_statuses[0].container_id, id, "the same container goes on");
    for _ in 0..2000 {
        if n.runtime.list().await.expect("lists").len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(n.runtime.list().await.expect("lists").len(), 1, "the orphan is gone");
    scope.cancel();
}

#[tokio::test]
async fn a_pod_whose_host_port_is_taken_fails_and_the_other_runs_on() {
    let n = node();
    let spec =
        || json!({"containers": [{"name": "c", "image": "web:1", "ports": [{"containerPort": 80, "hostPort": 8080}]}]});
    n.kubelet.upsert(pod("first", spec()));
    n.status("first", ready).await;
    n.kubelet.upsert(pod("second", spec()));
    let s = n.status("second", |s| s.phase == "Failed").await;
    assert_eq!(s.reason, "NodePorts");
    assert!(s.message.starts_with("Pod was rejected: Predicate NodePorts failed"), "{}", s.message);
    assert_eq!(n.runtime.list().await.expect("lists").len(), 1);
}

#[tokio::test]
async fn a_pod_assigned_again_while_it_stops_is_started_again() {
    let n = node();
    let spec = || json!({"containers": [{"name": "c", "image": "web:1"}]});
    n.kubelet.upsert(pod("p", spec()));
    let first = n.status("p", ready).await.container_statuses[0].container_id.clone();
    n.kubelet.remove("d", "p");
    n.kubelet.upsert(pod("p", spec()));
    n.status("p", |s| ready(s) && s.container_statuses[0].container_id != first).await;
}
