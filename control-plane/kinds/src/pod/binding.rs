//! `pods/binding`: a scheduler's decision.

use serde_json::{Value, json};
use triarch_api::status::{ErrorList, Status};
use triarch_mvcc::Key;
use triarch_registry::{ActionContext, ActionOutcome};

use crate::field;
use crate::value::{child, entries, get, is_set, list_at, object, set, str_at, str_of};

/// Labels of a node that its pods get.
const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub fn validate(binding: &Value, errs: &mut ErrorList) {
    let target = get(binding, "target");
    let kind = str_of(target, "kind");
    if !kind.is_empty() && kind != "Node" {
        field::not_supported(errs, "target.kind", kind, &["Node", "<empty>"]);
    }
    if str_of(target, "name").is_empty() {
        field::required(errs, "target.name", "");
    }
}

/// Assigns the pod to the node, once.
pub fn bind(ctx: &ActionContext<'_>, body: Value) -> Result<ActionOutcome, Status> {
    let name = str_at(&body, &["metadata", "name"]);
    if !name.is_empty() && name != ctx.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let mut errs = ErrorList::new();
    validate(&body, &mut errs);
    if !errs.is_empty() {
        return Err(Status::invalid(("", "Binding"), name, &errs));
    }
    let refuse = |why: String| Status::conflict(("", "pods/binding"), ctx.name, why);
    let pod = ctx.object;
    let (uid, have) = (str_at(&body, &["metadata", "uid"]), str_at(pod, &["metadata", "uid"]));
    if !uid.is_empty() && uid != have {
        return Err(refuse(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {have}")));
    }
    if is_set(get(pod, "metadata"), "deletionTimestamp") {
        return Err(refuse(format!("pod {} is being deleted, cannot be assigned to a host", ctx.name)));
    }
    let assigned = str_at(pod, &["spec", "nodeName"]);
    if !assigned.is_empty() {
        return Err(refuse(format!("pod {} is already assigned to node {assigned:?}", ctx.name)));
    }
    if !list_at(pod, &["spec", "schedulingGates"]).is_empty() {
        return Err(refuse(format!("pod {} has non-empty .spec.schedulingGates", ctx.name)));
    }
    let node = str_at(&body, &["target", "name"]);
    let mut pod = pod.clone();
    set(child(&mut pod, "spec"), "nodeName", node);
    for (key, value) in entries(get(&body, "metadata"), "annotations") {
        object(child(child(&mut pod, "metadata"), "annotations")).insert(key.to_owned(), value.clone());
    }
    topology_labels(ctx, node, &mut pod);
    scheduled(&mut pod, &ctx.rules.now.rfc3339());
    Ok(ActionOutcome::Update { object: pod, answer: Status::created(), code: 201 })
}

/// The node's zone and region become labels of the pod, unless it has its own.
fn topology_labels(ctx: &ActionContext<'_>, node: &str, pod: &mut Value) {
    if node.contains('\0') {
        return;
    }
    let Some(node) = ctx.rules.store.get(&Key::new("nodes", "", node)) else { return };
    for (key, value) in &node.object.meta.labels {
        if TOPOLOGY.contains(&&**key) {
            let labels = object(child(child(pod, "metadata"), "labels"));
            labels.entry(&**key).or_insert_with(|| (**value).into());
        }
    }
}

fn scheduled(pod: &mut Value, now: &str) {
    let status = child(pod, "status");
    let mut conditions = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    conditions.retain(|c| str_of(c, "type") != "PodScheduled");
    conditions.push(json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now}));
    set(status, "conditions", conditions);
}
