//! A Deployment behind a Service, as a user applies, scales and rolls it, on
//! hollow nodes, with the leader killed in the middle. It must come to what was
//! asked last: pods that run, the Deployment's status, the Service's endpoints.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json as object};
use triarch_api::status::Status;
use triarch_mvcc::{Db, ListRequest, Mvcc, Prefix};
use triarch_registry::{PatchType, RequestContext, UserInfo};

use crate::faults::MID_ROLLOUT;
use crate::log::json;
use crate::run::{Run, SETTLE};

pub const CONVERGES: &str = "deployment-converges";
/// Tries of one request until its user gives up; never reached in a healthy run.
const TRIES: u32 = 400;

/// What was asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    replicas: u64,
    image: String,
}

/// Shared with the end of the run.
pub type Asked = Mutex<Option<Wanted>>;

fn user() -> RequestContext {
    RequestContext::new(UserInfo::new("alice", &["system:masters", "system:authenticated"]), "deployment")
}

fn service() -> Value {
    object!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

fn manifest(wanted: &Wanted) -> Value {
    let labels = object!({"app": "web"});
    object!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "labels": labels},
        "spec": {
            "replicas": wanted.replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "web", "image": wanted.image,
                        "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}},
                    }],
                },
            },
        },
    })
}

/// Asks again, of any replica, until it is done or refused for good.
async fn ask<F, Fut>(run: &Run, what: &str, request: F) -> bool
where
    F: Fn(triarch_registry::Client) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<Value, Status>> + Send + 'static,
{
    for _ in 0..TRIES {
        let via = run.any();
        let Some(plane) = run.up(via).and_then(|up| up.plane) else {
            run.env.sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (client, request) = (plane.registry.client(user()), request.clone());
        drop(plane);
        let answer = run.call(via, move |_| async move { request(client).await }).await;
        run.trace.line(|| match &answer {
            Ok(Ok(v)) => format!("user r{via} {what}: revision {}", v["metadata"]["resourceVersion"]),
            Ok(Err(s)) => format!("user r{via} {what}: {} {}", s.code, s.message),
            Err(gone) => format!("user r{via} {what}: {gone:?}"),
        });
        match answer {
            Ok(Ok(_)) => return true,
            Ok(Err(s)) if s.is_already_exists() => return true,
            _ => run.env.sleep(run.env.jitter(Duration::from_millis(150), 50)).await,
        }
    }
    false
}

async fn create(run: &Run, what: &str, object: Value) -> bool {
    ask(run, what, move |c| {
        let object = object.clone();
        async move { c.create(object).await }
    })
    .await
}

pub fn start(run: &Arc<Run>) {
    let r = run.clone();
    run.client(async move { user_story(&r).await });
}

async fn user_story(run: &Arc<Run>) {
    let mut wanted = Wanted { replicas: 4 + run.env.random_below(4), image: "registry.example/web:1".into() };
    if !(create(run, "create service", service()).await && create(run, "create deployment", manifest(&wanted)).await) {
        run.tally.violation(CONVERGES, "the Service and the Deployment could not be created");
        return;
    }
    *run.asked.lock() = Some(wanted.clone());
    // Some pods are on their way when the leader dies.
    run.env.sleep(Duration::from_millis(run.env.random_below(60))).await;
    kill_the_leader(run, &wanted).await;
    for n in 2.. {
        run.env.sleep(run.env.jitter(Duration::from_secs(3), 80)).await;
        if run.load.is_cancelled() || run.faults_over() {
            return;
        }
        match run.env.random_below(2) {
            0 => wanted.replicas = run.env.random_below(9),
            _ => wanted.image = format!("registry.example/web:{n}"),
        }
        // A request that was not answered may have been made: from here on this is what was asked.
        *run.asked.lock() = Some(wanted.clone());
        let patch = object!({"spec": {"replicas": wanted.replicas, "template": {"spec": {"containers": [
            {"name": "web", "image": wanted.image}]}}}});
        let asked = ask(run, "patch deployment", move |c| {
            let patch = patch.clone();
            async move {
                let kind = c.kind("apps/v1", "Deployment")?;
                c.patch(kind, "default", "web", PatchType::Strategic, &patch, None).await
            }
        });
        if !asked.await {
            run.tally.violation(CONVERGES, "the Deployment could not be patched");
        }
    }
}

/// Kills the leader while the Deployment is not yet what was asked, and brings it back.
async fn kill_the_leader(run: &Arc<Run>, wanted: &Wanted) {
    let _one_at_a_time = run.damage.lock().await;
    let Some(leader) = run.leader() else { return };
    let in_the_middle = run.up(leader).is_some_and(|up| missing(up.db.mvcc(), wanted).is_some());
    if !run.kill(leader) {
        return;
    }
    if in_the_middle {
        run.tally.fault(MID_ROLLOUT);
    }
    run.env.sleep(Duration::from_millis(run.env.random_below(2000))).await;
    run.restart(leader).await;
}

fn text<'a>(v: &'a Value, path: &str) -> &'a str {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn list(mvcc: &Mvcc, prefix: Prefix) -> Vec<Value> {
    let items = mvcc.list(&ListRequest::all(prefix)).map(|l| l.items).unwrap_or_default();
    items.into_iter().map(|s| json(&s.object, s.mod_revision)).collect()
}

/// Every node and pod in a line, for who looks for the reason.
fn picture(mvcc: &Mvcc) -> String {
    let mut out = String::new();
    for n in list(mvcc, Prefix::resource("nodes")) {
        let conditions = n.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        let ready: Vec<&Value> = conditions.filter(|c| c["type"] == "Ready").map(|c| &c["status"]).collect();
        let _ = write!(out, "\n  {} ready {ready:?} taints {}", text(&n, "/metadata/name"), n["spec"]["taints"]);
    }
    for p in list(mvcc, Prefix::namespaced("pods", "default")) {
        let at = [
            "/metadata/name",
            "/spec/nodeName",
            "/spec/containers/0/image",
            "/status/phase",
            "/metadata/deletionTimestamp",
        ];
        let conditions = p.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        let told: Vec<String> = conditions
            .map(|c| format!("{}={} {}", text(c, "/type"), text(c, "/status"), text(c, "/message")))
            .collect();
        let _ = write!(out, "\n  {:?} {told:?}", at.map(|path| text(&p, path)));
    }
    out
}

/// Why the Deployment is not yet what was asked; `None`: it is.
fn missing(mvcc: &Mvcc, wanted: &Wanted) -> Option<String> {
    let list = |resource: &str| list(mvcc, Prefix::namespaced(resource, "default"));
    let Some(deployment) = list("deployments.apps").into_iter().next() else { return Some("no Deployment".into()) };
    let number = |v: &Value, path: &str| v.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let status = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
    let counts = status.map(|s| number(&deployment["status"], &format!("/{s}")));
    let seen = number(&deployment, "/status/observedGeneration") == number(&deployment, "/metadata/generation");
    if !seen || counts.iter().any(|n| *n != wanted.replicas) {
        return Some(format!("status {}", deployment["status"]));
    }
    let pods = list("pods");
    let good: Vec<&Value> = pods
        .iter()
        .filter(|p| {
            text(p, "/spec/containers/0/image") == wanted.image
                && text(p, "/status/phase") == "Running"
                && p.pointer("/metadata/deletionTimestamp").is_none()
                && !text(p, "/spec/nodeName").is_empty()
        })
        .collect();
    if good.len() as u64 != wanted.replicas || pods.len() != good.len() {
        return Some(format!("of {} pods {} run {}", pods.len(), good.len(), wanted.image));
    }
    let addresses: BTreeSet<&str> = good.iter().map(|p| text(p, "/status/podIP")).collect();
    let slices = list("endpointslices.discovery.k8s.io");
    let own =
        slices.iter().filter(|s| s.pointer("/metadata/labels/kubernetes.io~1service-name") == Some(&"web".into()));
    let ready = own
        .flat_map(|s| s["endpoints"].as_array().into_iter().flatten())
        .filter(|e| e["conditions"]["ready"] == true)
        .filter_map(|e| e.pointer("/addresses/0").and_then(Value::as_str));
    let ready: BTreeSet<&str> = ready.collect();
    (ready != addresses).then(|| format!("endpoints {ready:?} of pods at {addresses:?}"))
}

/// After the faults: waits until the Deployment is what was asked last.
pub async fn finish(run: &Arc<Run>) {
    let why = || {
        let Some(wanted) = run.asked.lock().clone() else { return Some("it was never created".into()) };
        let (_, up) = run.ups().into_iter().next()?;
        missing(up.db.mvcc(), &wanted).map(|why| format!("asked for {wanted:?}: {why}"))
    };
    let picture = || run.ups().into_iter().next().map(|(_, up)| picture(up.db.mvcc())).unwrap_or_default();
    // The user's last request may still be under way.
    let done = run.until(SETTLE, || why().is_none()).await;
    run.tally.checked(CONVERGES, 1);
    if let (false, Some(why)) = (done, why()) {
        run.tally.violation(CONVERGES, format!("{why}{}", picture()));
    }
    run.trace.line(|| format!("the Deployment is what was asked: {done}"));
}
