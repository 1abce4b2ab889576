//! What an update may change in a pod.

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;

use crate::field::{self, Path};
use crate::pod_spec::resources;
use crate::value::{child, copy, each_mut, entries, get, list, opt, opt_int, remove, same, set, str_of};
use crate::{diff, go_form};

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An ordinary update, after the object's own rules.
pub fn spec(new: &Value, old: &Value, errs: &mut ErrorList) {
    let (p, now, was) = (Path::new("spec"), get(new, "spec"), get(old, "spec"));
    for kind in ["containers", "initContainers"] {
        if !images(errs, &p.child(kind), list(now, kind), list(was, kind)) {
            return;
        }
    }
    if !deadline(errs, &p.child("activeDeadlineSeconds"), now, was) {
        return;
    }
    tolerations(errs, &p.child("tolerations"), now, was);
    let gates = list(was, "schedulingGates");
    for (i, gate) in list(now, "schedulingGates").iter().enumerate() {
        let name = str_of(gate, "name");
        if !gates.iter().any(|g| str_of(g, "name") == name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            field::forbidden(errs, p.child("schedulingGates").index(i).child("name"), detail);
        }
    }
    if same(now, was) {
        return;
    }
    let mut munged = now.clone();
    for kind in ["containers", "initContainers"] {
        for (c, before) in each_mut(&mut munged, kind).zip(list(was, kind)) {
            copy(before, c, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        copy(was, &mut munged, key);
    }
    let grace = "terminationGracePeriodSeconds";
    if opt_int(was, grace).is_some_and(|s| s < 0) && opt_int(now, grace) == Some(1) {
        copy(was, &mut munged, grace);
    }
    if !gates.is_empty() {
        while_gated(errs, &p, &mut munged, was);
    }
    if !same(&munged, was) {
        field::forbidden(errs, &p, format!("{FIXED}\n{}", difference("core/v1.PodSpec", was, &munged)));
    }
}

/// False when nothing more can be compared.
fn images(errs: &mut ErrorList, p: &Path, now: &[Value], was: &[Value]) -> bool {
    if now.len() != was.len() {
        field::forbidden(errs, p, "pod updates may not add or remove containers");
        return false;
    }
    for (i, c) in now.iter().enumerate() {
        let (p, image) = (p.index(i).child("image"), str_of(c, "image"));
        if image.is_empty() {
            field::required(errs, &p, "");
        }
        if image.trim() != image {
            field::invalid(errs, &p, image, "must not have leading or trailing whitespace");
        }
    }
    true
}

/// From nothing to a positive value, or to a smaller one.
fn deadline(errs: &mut ErrorList, p: &Path, now: &Value, was: &Value) -> bool {
    let key = "activeDeadlineSeconds";
    match (opt_int(now, key), opt_int(was, key)) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            field::invalid(errs, p, seconds, names::inclusive_range(0, i64::from(i32::MAX)));
            false
        }
        (Some(seconds), Some(before)) if before < seconds => {
            field::invalid(errs, p, seconds, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            field::invalid(errs, p, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

/// Old tolerations stay, apart from how long they last.
fn tolerations(errs: &mut ErrorList, p: &Path, now: &Value, was: &Value) {
    let bare = |t: &Value| {
        let mut t = t.clone();
        remove(&mut t, "tolerationSeconds");
        t
    };
    let now: Vec<Value> = list(now, "tolerations").iter().map(bare).collect();
    if list(was, "tolerations").iter().any(|t| !now.iter().any(|n| same(n, &bare(t)))) {
        field::forbidden(errs, p, "existing toleration can not be modified except its tolerationSeconds");
    }
}

/// A gated pod's node selector and node affinity may become narrower.
fn while_gated(errs: &mut ErrorList, p: &Path, munged: &mut Value, was: &Value) {
    if !same(get(munged, "nodeSelector"), get(was, "nodeSelector")) {
        for (key, value) in entries(was, "nodeSelector") {
            if get(munged, "nodeSelector").get(key) != Some(value) {
                let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
                field::invalid(errs, p.child("nodeSelector"), get(munged, "nodeSelector").clone(), detail);
                break;
            }
        }
        copy(was, munged, "nodeSelector");
    }
    let key = "nodeAffinity";
    let (now_affinity, was_affinity) = (get(munged, "affinity").clone(), get(was, "affinity"));
    if !same(get(&now_affinity, key), get(was_affinity, key)) {
        narrower(errs, &p.child("affinity").child(key), get(&now_affinity, key), get(was_affinity, key));
        if opt(was, "affinity").is_none() && now_affinity.as_object().is_some_and(|a| a.keys().all(|k| k == key)) {
            remove(munged, "affinity");
        } else {
            copy(was_affinity, child(munged, "affinity"), key);
        }
    }
}

fn narrower(errs: &mut ErrorList, p: &Path, now: &Value, was: &Value) {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let Some(before) = opt(was, required) else { return };
    let p = p.child(required).child("nodeSelectorTerms");
    let (now_terms, was_terms) = (list(get(now, required), "nodeSelectorTerms"), list(before, "nodeSelectorTerms"));
    if now_terms.len() != was_terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        field::invalid(errs, p, now_terms.to_vec(), detail);
        return;
    }
    for (i, (n, w)) in now_terms.iter().zip(was_terms).enumerate() {
        let kept = ["matchExpressions", "matchFields"].iter().all(|k| {
            let (n, w) = (list(n, k), list(w, k));
            n.len() >= w.len() && n.iter().zip(w).all(|(n, w)| same(n, w))
        });
        if !kept {
            let detail = "only additions are allowed (no mutations or deletions)";
            field::invalid(errs, p.index(i), n.clone(), detail);
        }
    }
}

/// Both as upstream's internal type, line by line.
fn difference(schema: &str, was: &Value, now: &Value) -> String {
    diff::unified(&go_form::pretty(schema, was), &go_form::pretty(schema, now))
}

/// The `ephemeralcontainers` view: only they change.
pub fn with_ephemeral_containers(new: &Value, old: &Value) -> Value {
    let mut out = old.clone();
    copy(new, &mut out, "metadata");
    copy(get(new, "spec"), child(&mut out, "spec"), "ephemeralContainers");
    out
}

/// They can be added, never changed or removed.
pub fn ephemeral_containers(new: &Value, old: &Value, errs: &mut ErrorList) {
    let p = Path::new("spec").child("ephemeralContainers");
    if crate::value::metadata_map(old, "annotations", "kubernetes.io/config.mirror").is_some() {
        field::forbidden(errs, "[]", "static pods do not support ephemeral containers");
        return;
    }
    let now = list(get(new, "spec"), "ephemeralContainers");
    for was in list(get(old, "spec"), "ephemeralContainers") {
        let name = str_of(was, "name");
        match now.iter().find(|c| str_of(c, "name") == name) {
            None => field::forbidden(errs, &p, format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(c) if !same(c, was) => {
                let changed = difference("core/v1.EphemeralContainer", was, c);
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n{changed}");
                field::forbidden(errs, &p, detail);
            }
            Some(_) => {}
        }
    }
}

/// The `resize` view: resources and resize policies of containers change.
pub fn with_resources(new: &Value, old: &Value) -> Value {
    let mut out = old.clone();
    copy(new, &mut out, "metadata");
    for kind in ["containers", "initContainers"] {
        let sent = list(get(new, "spec"), kind);
        for c in each_mut(child(&mut out, "spec"), kind) {
            if let Some(n) = sent.iter().find(|n| str_of(n, "name") == str_of(c, "name")) {
                for key in ["resources", "resizePolicy"] {
                    copy(n, c, key);
                }
            }
        }
    }
    out
}

/// Only cpu and memory, without a change of QoS class.
pub fn resize(new: &Value, old: &Value, errs: &mut ErrorList) {
    let p = Path::new("spec");
    if crate::value::metadata_map(old, "annotations", "kubernetes.io/config.mirror").is_some() {
        field::forbidden(errs, "[]", "static pods cannot be resized");
        return;
    }
    let (now, was) = (get(new, "spec"), get(old, "spec"));
    if resources::qos_class(now) != resources::qos_class(was) {
        let class = str_of(get(new, "status"), "qosClass");
        field::invalid(errs, &p, class, "Pod QOS Class may not change as a result of resizing");
    }
    for kind in ["initContainers", "containers"] {
        for (i, (c, before)) in list(now, kind).iter().zip(list(was, kind)).enumerate() {
            let sidecar = kind == "containers" || str_of(before, "restartPolicy") == "Always";
            if same(get(c, "resources"), get(before, "resources")) {
                continue;
            }
            if !sidecar {
                field::forbidden(errs, &p, "resources for non-sidecar init containers are immutable");
                continue;
            }
            one(errs, &p.child(kind).index(i).child("resources"), c, before);
            let mut munged = get(c, "resources").clone();
            for which in ["requests", "limits"] {
                for name in ["cpu", "memory"] {
                    match opt(get(get(before, "resources"), which), name) {
                        Some(q) => set(child(&mut munged, which), name, q.clone()),
                        None if get(&munged, which).is_object() => remove(child(&mut munged, which), name),
                        None => {}
                    }
                }
            }
            if !same(&munged, get(before, "resources")) {
                let of = if kind == "containers" {
                    "only cpu and memory resources are mutable"
                } else {
                    "only cpu and memory resources for sidecar containers are mutable"
                };
                field::forbidden(errs, &p, of);
            }
        }
    }
}

fn one(errs: &mut ErrorList, p: &Path, now: &Value, was: &Value) {
    let (n, w) = (get(now, "resources"), get(was, "resources"));
    for which in ["requests", "limits"] {
        if entries(w, which).iter().any(|(name, _)| get(n, which).get(*name).is_none()) {
            field::forbidden(errs, p.child(which), format!("resource {which} cannot be removed"));
        }
    }
}
