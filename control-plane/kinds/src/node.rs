//! Node, its `status` and `proxy`.

use std::collections::BTreeSet;

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::{ErrorList, FieldError};
use triarch_registry::{Kind, RuleContext, Scope, SelectableField, StatusRule, Subresource, SubresourceHandler, Verb};

use crate::describe;
use crate::field::{self, Path};
use crate::go_form;
use crate::meta;
use crate::pod_spec::{resources, taint_effect};
use crate::print::{AGE, NAME, text, wide};
use crate::value::{at, child_if_set, copy, entries, flag, get, is_set, list, list_at, opt, same, set, str_at, str_of};

pub static KIND: Kind = Kind {
    kind: "Node",
    list_kind: "NodeList",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    scope: Scope::Cluster,
    schema: "core/v1.Node",
    resource: "nodes",
    subresources: &[
        Subresource {
            name: "proxy",
            verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
            handler: SubresourceHandler::Connect,
            response: ("", "v1", "NodeProxyOptions"),
            schema: "core/v1.NodeProxyOptions",
        },
        Subresource {
            name: "status",
            verbs: &[Verb::Get, Verb::Patch, Verb::Update],
            handler: SubresourceHandler::Status,
            response: ("", "v1", "Node"),
            schema: "core/v1.Node",
        },
    ],
    columns: &[
        NAME,
        text("Status", "The status of the node", |v, _| status_cell(v).into()),
        text("Roles", "The roles of the node", |v, _| roles(v).into()),
        AGE,
        text("Version", describe::NODE_KUBELET_VERSION, |v, _| info(v, "kubeletVersion").into()),
        wide("Internal-IP", describe::NODE_ADDRESSES, |v, _| address(v, "InternalIP").into()),
        wide("External-IP", describe::NODE_ADDRESSES, |v, _| address(v, "ExternalIP").into()),
        wide("OS-Image", describe::NODE_OS_IMAGE, |v, _| known(info(v, "osImage"))),
        wide("Kernel-Version", describe::NODE_KERNEL_VERSION, |v, _| known(info(v, "kernelVersion"))),
        wide("Container-Runtime", describe::NODE_CONTAINER_RUNTIME, |v, _| known(info(v, "containerRuntimeVersion"))),
    ],
    selectable: &[SelectableField {
        path: "spec.unschedulable",
        get: |v| flag(get(v, "spec"), "unschedulable").to_string(),
    }],
    validate_name: meta::subdomain_name,
    defaults,
    prepare_update: |_, new, old| copy(old, new, "status"),
    validate: |_, v, errs| validate(v, errs),
    validate_update: |_, new, old, errs| validate_update(new, old, errs),
    status: Some(StatusRule { validate: validate_status, ..StatusRule::BASE }),
    ..Kind::BASE
};

fn defaults(v: &mut Value) {
    let capacity = at(v, &["status", "capacity"]).clone();
    if let Some(status) = child_if_set(v, "status")
        && capacity.is_object()
        && !is_set(status, "allocatable")
    {
        set(status, "allocatable", capacity);
    }
    // The first CIDR stands in two places.
    if let Some(spec) = child_if_set(v, "spec") {
        let (one, many) = (str_of(spec, "podCIDR").to_owned(), list(spec, "podCIDRs").first().cloned());
        match many {
            None if !one.is_empty() => set(spec, "podCIDRs", vec![one]),
            Some(first) if one.is_empty() => set(spec, "podCIDR", first),
            _ => {}
        }
    }
}

fn validate(v: &Value, errs: &mut ErrorList) {
    // Upstream reports taints under metadata.
    taints(errs, &Path::new("metadata").child("taints"), v);
    amounts(v, errs);
    let (p, cidrs) = (Path::new("spec").child("podCIDRs"), list_at(v, &["spec", "podCIDRs"]));
    let mut seen = BTreeSet::new();
    for (i, cidr) in cidrs.iter().enumerate() {
        let cidr = cidr.as_str().unwrap_or("");
        field::invalid_each(errs, &p.index(i), cidr, names::cidr(cidr));
        if !seen.insert(cidr) {
            field::duplicate(errs, p.index(i), cidr);
        }
    }
    let families: BTreeSet<bool> = seen.iter().map(|c| c.contains(':')).collect();
    if cidrs.len() > 1 && (cidrs.len() > 2 || families.len() != 2) {
        field::invalid(errs, &p, cidrs.to_vec(), "may specify no more than one CIDR for each IP family");
    }
    if str_at(v, &["spec", "podCIDR"]) != cidrs.first().and_then(Value::as_str).unwrap_or("") {
        field::invalid(errs, "spec.podCIDR", str_at(v, &["spec", "podCIDR"]), "must match the first of `podCIDRs`");
    }
}

fn amounts(v: &Value, errs: &mut ErrorList) {
    for which in ["capacity", "allocatable"] {
        for (name, amount) in entries(get(v, "status"), which) {
            resources::amount(errs, &Path::new("status").child(which).child(name), name, amount);
        }
    }
}

fn taints(errs: &mut ErrorList, p: &Path, v: &Value) {
    let mut seen = BTreeSet::new();
    for (i, taint) in list_at(v, &["spec", "taints"]).iter().enumerate() {
        let (p, key, value, effect) =
            (p.index(i), str_of(taint, "key"), str_of(taint, "value"), str_of(taint, "effect"));
        meta::label_key(errs, &p.child("key"), key);
        let messages = names::label_value(value);
        if !messages.is_empty() {
            field::invalid(errs, p.child("value"), value, messages.join(";"));
        }
        taint_effect(errs, &p.child("effect"), effect);
        if !seen.insert((effect, key)) {
            let mut error = FieldError::duplicate(&p, taint.clone()).showing(go_form::compact("core/v1.Taint", taint));
            "taints must be unique by key and effect pair".clone_into(&mut error.detail);
            errs.push(error);
        }
    }
}

fn validate_update(new: &Value, old: &Value, errs: &mut ErrorList) {
    let (was, now) = (list_at(old, &["spec", "podCIDRs"]), list_at(new, &["spec", "podCIDRs"]));
    if !was.is_empty() && was != now {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        field::forbidden(errs, "spec.podCIDRs", detail);
    }
    let (was, now) = (str_at(old, &["spec", "providerID"]), str_at(new, &["spec", "providerID"]));
    if !was.is_empty() && was != now {
        let detail = "node updates may not change providerID except from \"\" to valid";
        field::forbidden(errs, "spec.providerID", detail);
    }
    if !same(at(new, &["spec", "externalID"]), at(old, &["spec", "externalID"])) {
        field::forbidden(errs, "spec.externalID", "may not be updated");
    }
}

fn validate_status(_: &RuleContext<'_>, new: &Value, _: &Value, errs: &mut ErrorList) {
    amounts(new, errs);
    let addresses = list_at(new, &["status", "addresses"]);
    for (i, a) in addresses.iter().enumerate() {
        if addresses[..i].contains(a) {
            field::duplicate(errs, Path::new("status").child("addresses").index(i), a.clone());
        }
    }
}

fn status_cell(v: &Value) -> String {
    let ready = list_at(v, &["status", "conditions"]).iter().find(|c| str_of(c, "type") == "Ready");
    let mut text = match ready.map(|c| str_of(c, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(get(v, "spec"), "unschedulable") {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(v: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in entries(get(v, "metadata"), "labels") {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => {
                roles.insert(role);
            }
            _ if key == "kubernetes.io/role" => {
                roles.extend(value.as_str().filter(|role| !role.is_empty()));
            }
            _ => {}
        }
    }
    if roles.is_empty() { "<none>".to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn info<'a>(v: &'a Value, key: &str) -> &'a str {
    str_at(v, &["status", "nodeInfo", key])
}

fn known(text: &str) -> Value {
    if text.is_empty() { "<unknown>".into() } else { text.into() }
}

fn address<'a>(v: &'a Value, kind: &str) -> &'a str {
    let found = list_at(v, &["status", "addresses"]).iter().find(|a| str_of(a, "type") == kind);
    found.and_then(|a| opt(a, "address")).and_then(Value::as_str).unwrap_or("<none>")
}
