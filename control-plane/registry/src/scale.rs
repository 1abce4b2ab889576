//! autoscaling/v1 Scale over any kind that has replicas.

use serde_json::{Value, json};
use triarch_api::meta;
use triarch_api::status::{ErrorList, FieldError, Status};

pub const SCHEMA: &str = "autoscaling/v1.Scale";

/// The Scale that a parent shows; it shares the parent's resourceVersion.
pub fn from_parent(parent: &Value, spec: &str, status: &str, selector: fn(&Value) -> String) -> Value {
    let m = &parent["metadata"];
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(v) = m.get(field) {
            metadata[field] = v.clone();
        }
    }
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {},
        "status": {"replicas": meta::get_i64(parent, status).unwrap_or(0)},
    });
    // `spec.replicas` is omitempty.
    if let Some(n) = meta::get_i64(parent, spec).filter(|n| *n != 0) {
        scale["spec"]["replicas"] = n.into();
    }
    let selector = selector(parent);
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// The parent with the replicas of `scale`.
pub fn into_parent(parent: &Value, scale: &Value, spec: &str) -> Result<Value, Status> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let mut errors = ErrorList::new();
        errors.push(FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0"));
        return Err(Status::invalid(("autoscaling", "Scale"), meta::name(scale), &errors));
    }
    let mut out = parent.clone();
    meta::set(&mut out, spec, replicas);
    if let Some(rv) = scale.pointer("/metadata/resourceVersion") {
        out["metadata"]["resourceVersion"] = rv.clone();
    } else if let Some(m) = out["metadata"].as_object_mut() {
        m.remove("resourceVersion");
    }
    if let Some(uid) = scale.pointer("/metadata/uid") {
        out["metadata"]["uid"] = uid.clone();
    }
    Ok(out)
}
