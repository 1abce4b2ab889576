//! Small questions about typed objects that several controllers ask.

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::{Metadata, Resource};
use serde_json::Value;
use triarch_env::Wall;

use crate::{Name, Note, ObjectRef};

/// The time as metav1.Time has it: whole seconds.
pub fn time(now: Wall) -> Time {
    Time(Timestamp::from_second(now.secs()).unwrap_or_default())
}

/// Seconds since the epoch of a metav1.Time.
pub fn secs(t: &Time) -> i64 {
    t.0.as_second()
}

pub fn name_of(m: &ObjectMeta) -> Name {
    Name::new(m.namespace.as_deref().unwrap_or_default(), m.name.as_deref().unwrap_or_default())
}

pub fn uid(m: &ObjectMeta) -> &str {
    m.uid.as_deref().unwrap_or_default()
}

pub fn deleting(m: &ObjectMeta) -> bool {
    m.deletion_timestamp.is_some()
}

/// Creation in seconds since the epoch; 0 when it is not set.
pub fn created(m: &ObjectMeta) -> i64 {
    m.creation_timestamp.as_ref().map_or(0, secs)
}

pub fn annotation<'a>(m: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    m.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn label<'a>(m: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    m.labels.as_ref()?.get(key).map(String::as_str)
}

pub fn has_finalizer(m: &ObjectMeta, finalizer: &str) -> bool {
    m.finalizers.iter().flatten().any(|f| f == finalizer)
}

/// The owner that controls the object.
pub fn controller_of(m: &ObjectMeta) -> Option<&OwnerReference> {
    m.owner_references.iter().flatten().find(|r| r.controller == Some(true))
}

/// A reference from an object to the controller that made it.
pub fn controller_ref<T: Resource + Metadata<Ty = ObjectMeta>>(owner: &T) -> OwnerReference {
    OwnerReference {
        api_version: T::API_VERSION.into(),
        kind: T::KIND.into(),
        name: owner.metadata().name.clone().unwrap_or_default(),
        uid: uid(owner.metadata()).into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub fn object_ref<T: Resource + Metadata<Ty = ObjectMeta>>(o: &T) -> ObjectRef {
    let m = o.metadata();
    ObjectRef {
        api_version: T::API_VERSION.into(),
        kind: T::KIND.into(),
        namespace: m.namespace.clone().unwrap_or_default(),
        name: m.name.clone().unwrap_or_default(),
        uid: uid(m).into(),
        resource_version: m.resource_version.clone().unwrap_or_default(),
    }
}

pub fn note<T: Resource + Metadata<Ty = ObjectMeta>>(
    o: &T,
    component: &'static str,
    kind: &'static str,
    reason: &'static str,
    message: impl Into<String>,
) -> Note {
    Note { about: object_ref(o), kind, reason, message: message.into(), component }
}

/// A typed object as the JSON that is written; typed objects always serialize.
pub fn to_value<T: serde::Serialize>(o: &T) -> Value {
    serde_json::to_value(o).unwrap_or(Value::Null)
}

pub fn pod_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

pub fn pod_phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Succeeded or failed for good.
pub fn pod_terminal(pod: &Pod) -> bool {
    matches!(pod_phase(pod), "Succeeded" | "Failed")
}

/// Neither terminal nor being deleted.
pub fn pod_active(pod: &Pod) -> bool {
    !pod_terminal(pod) && !deleting(&pod.metadata)
}

pub fn pod_ready(pod: &Pod) -> bool {
    pod_condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Ready for at least `min_ready_seconds`; otherwise, when the pod is ready,
/// in how many seconds it will be.
pub fn pod_available(pod: &Pod, min_ready_seconds: i32, now: Wall) -> Result<(), Option<i64>> {
    let Some(c) = pod_condition(pod, "Ready").filter(|c| c.status == "True") else { return Err(None) };
    if min_ready_seconds == 0 {
        return Ok(());
    }
    let Some(since) = c.last_transition_time.as_ref().map(secs) else { return Err(None) };
    let left = since + i64::from(min_ready_seconds) - now.secs();
    if left <= 0 { Ok(()) } else { Err(Some(left)) }
}

pub fn pod_node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}
