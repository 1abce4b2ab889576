//! What a write to `status` may say.

use std::collections::BTreeSet;

use serde_json::Value;
use triarch_api::status::ErrorList;
use triarch_registry::RuleContext;

use crate::field::{self, Path};
use crate::value::{at, child, copy, each_mut, get, int_of, is_set, list, opt, str_of};
use crate::{ip, meta};

/// The QoS class is for good, and an agent that knows nothing of observed
/// generations does not reset them.
pub fn prepare(new: &mut Value, old: &Value) {
    let (status, was) = (child(new, "status"), get(old, "status"));
    if str_of(status, "qosClass").is_empty() {
        copy(was, status, "qosClass");
    }
    let generation = "observedGeneration";
    if int_of(status, generation) == 0 {
        copy(was, status, generation);
    }
    for c in each_mut(status, "conditions") {
        let before = list(was, "conditions").iter().find(|b| str_of(b, "type") == str_of(c, "type"));
        if let (0, Some(before)) = (int_of(c, generation), before) {
            copy(before, c, generation);
        }
    }
}

pub fn validate(_: &RuleContext<'_>, new: &Value, old: &Value, errs: &mut ErrorList) {
    let (p, now, was) = (Path::new("status"), get(new, "status"), get(old, "status"));
    for (i, c) in list(now, "conditions").iter().enumerate() {
        let kind = str_of(c, "type");
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind) {
            // Upstream's path.
            meta::label_key(errs, &Path::new("metadata").child("conditions").index(i).child("Type"), kind);
        }
    }
    let nominated = str_of(now, "nominatedNodeName");
    if !nominated.is_empty() && nominated != str_of(was, "nominatedNodeName") {
        meta::dns1123_subdomain(errs, &p.child("nominatedNodeName"), nominated);
    }
    field::immutable(errs, p.child("qosClass"), get(now, "qosClass"), get(was, "qosClass"));
    let policy = at(old, &["spec", "restartPolicy"]).as_str().unwrap_or("");
    transitions(errs, &p.child("containerStatuses"), now, was, "containerStatuses", policy, &[]);
    let sidecars: Vec<&str> = list(get(old, "spec"), "initContainers")
        .iter()
        .filter(|c| str_of(c, "restartPolicy") == "Always")
        .map(|c| str_of(c, "name"))
        .collect();
    transitions(errs, &p.child("initContainerStatuses"), now, was, "initContainerStatuses", policy, &sidecars);
    let key = "ephemeralContainerStatuses";
    transitions(errs, &p.child(key), now, was, key, "Never", &[]);
    addresses(errs, &p.child("podIPs"), now, "podIPs");
    let hosts = list(now, "hostIPs");
    if let Some(first) = hosts.first()
        && str_of(first, "ip") != str_of(now, "hostIP")
    {
        field::invalid(errs, p.child("hostIPs").index(0).child("ip"), str_of(first, "ip"), "must be equal to `hostIP`");
    }
    addresses(errs, &p.child("hostIPs"), now, "hostIPs");
}

/// A container that will not be restarted stays terminated.
fn transitions(errs: &mut ErrorList, p: &Path, now: &Value, was: &Value, key: &str, policy: &str, exempt: &[&str]) {
    if policy == "Always" {
        return;
    }
    for (i, before) in list(was, key).iter().enumerate() {
        let Some(terminated) = opt(get(before, "state"), "terminated") else { continue };
        let name = str_of(before, "name");
        if (int_of(terminated, "exitCode") != 0 && policy == "OnFailure") || exempt.contains(&name) {
            continue;
        }
        let revived = |c: &&Value| str_of(c, "name") == name && !is_set(get(c, "state"), "terminated");
        if list(now, key).iter().any(|c| revived(&c)) {
            field::forbidden(errs, p.index(i).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// At most one of each family.
fn addresses(errs: &mut ErrorList, p: &Path, status: &Value, key: &str) {
    let all = list(status, key);
    let mut seen = BTreeSet::new();
    for (i, a) in all.iter().enumerate() {
        let text = str_of(a, "ip");
        ip::valid(errs, &p.index(i), text);
        if !seen.insert(text) {
            field::duplicate(errs, p.index(i), a.clone());
        }
    }
    let v6 = all.iter().filter(|a| str_of(a, "ip").contains(':')).count();
    if all.len() > 2 || (all.len() == 2 && v6 != 1) {
        field::invalid(errs, p, all.to_vec(), "may specify no more than one IP for each IP family");
    }
}
