//! Containers: regular, init and ephemeral; their ports and mounts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;

use super::volumes::{descending, no_backsteps};
use super::{Ctx, env, probes, resources, security};
use crate::field::{self, Path};
use crate::meta;
use crate::value::{flag, get, int_of, is_set, list, opt, str_of};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// `containers`: at least one, unique names, ports that do not clash on the host.
pub fn regular(errs: &mut ErrorList, p: &Path, spec: &Value, ctx: &Ctx<'_>) {
    let containers = list(spec, "containers");
    if containers.is_empty() {
        field::required(errs, p, "");
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, c) in containers.iter().enumerate() {
        let (p, name) = (p.index(i), str_of(c, "name"));
        common(errs, &p, c, ctx);
        if !seen.insert(name) {
            field::duplicate(errs, p.child("name"), name);
        }
        if let Some(hooks) = opt(c, "lifecycle") {
            probes::lifecycle(errs, &p.child("lifecycle"), hooks, ctx);
        }
        probes::all(errs, &p, c, ctx);
        restart_policy(errs, &p, c);
    }
    host_port_conflicts(errs, p, containers);
}

/// `initContainers`: names unique among the regular ones too; probes and hooks
/// only for sidecars.
pub fn init(errs: &mut ErrorList, p: &Path, spec: &Value, ctx: &Ctx<'_>) {
    let mut seen: BTreeSet<&str> = list(spec, "containers").iter().map(|c| str_of(c, "name")).collect();
    for (i, c) in list(spec, "initContainers").iter().enumerate() {
        let (at, name) = (p.index(i), str_of(c, "name"));
        common(errs, &at, c, ctx);
        restart_policy(errs, &at, c);
        if seen.contains(name) {
            field::duplicate(errs, at.child("name"), name);
        } else if !name.is_empty() {
            seen.insert(name);
        }
        host_port_conflicts(errs, p, std::slice::from_ref(c));
        if str_of(c, "restartPolicy") == "Always" {
            if let Some(hooks) = opt(c, "lifecycle") {
                probes::lifecycle(errs, &at.child("lifecycle"), hooks, ctx);
            }
            probes::all(errs, &at, c, ctx);
        } else {
            for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if is_set(c, key) {
                    field::forbidden(
                        errs,
                        at.child(key),
                        "may not be set for init containers without restartPolicy=Always",
                    );
                }
            }
        }
    }
}

/// `ephemeralContainers`: nothing that a workload would rely on.
pub fn ephemeral(errs: &mut ErrorList, p: &Path, spec: &Value, ctx: &Ctx<'_>) {
    const DENIED: [&str; 9] = [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ];
    let detail = "cannot be set for an Ephemeral Container";
    let others: BTreeSet<&str> =
        list(spec, "containers").iter().chain(list(spec, "initContainers")).map(|c| str_of(c, "name")).collect();
    let mut all = others.clone();
    for (i, c) in list(spec, "ephemeralContainers").iter().enumerate() {
        let (p, name, target) = (p.index(i), str_of(c, "name"), str_of(c, "targetContainerName"));
        common(errs, &p, c, ctx);
        only_in_pods(errs, &p, c);
        if !all.insert(name) {
            field::duplicate(errs, p.child("name"), name);
        }
        if !target.is_empty() && !others.contains(target) {
            field::not_found(errs, p.child("targetContainerName"), target);
        }
        for key in DENIED {
            if !crate::value::same(get(c, key), &Value::Null) {
                field::forbidden(errs, p.child(key), detail);
            }
        }
        for (j, mount) in list(c, "volumeMounts").iter().enumerate() {
            for key in ["subPath", "subPathExpr"] {
                if !str_of(mount, key).is_empty() {
                    field::forbidden(errs, p.child("volumeMounts").index(j).child(key), detail);
                }
            }
        }
    }
}

/// What is checked in pods but not in templates, for old templates' sake.
pub fn only_in_pods(errs: &mut ErrorList, p: &Path, c: &Value) {
    let image = str_of(c, "image");
    if image.trim() != image {
        field::invalid(errs, p.child("image"), image, "must not have leading or trailing whitespace");
    }
}

fn common(errs: &mut ErrorList, p: &Path, c: &Value, ctx: &Ctx<'_>) {
    let name = str_of(c, "name");
    if name.is_empty() {
        field::required(errs, p.child("name"), "");
    } else {
        meta::dns1123_label(errs, &p.child("name"), name);
    }
    if str_of(c, "image").is_empty() {
        field::required(errs, p.child("image"), "");
    }
    let policy = str_of(c, "terminationMessagePolicy");
    field::one_of(errs, &p.child("terminationMessagePolicy"), policy, &["File", "FallbackToLogsOnError"]);
    ports(errs, &p.child("ports"), c);
    env::vars(errs, &p.child("env"), c);
    env::sources(errs, &p.child("envFrom"), c);
    mounts(errs, &p.child("volumeMounts"), c, ctx);
    devices(errs, &p.child("volumeDevices"), c, ctx);
    field::one_of(errs, &p.child("imagePullPolicy"), str_of(c, "imagePullPolicy"), &PULL_POLICIES);
    resources::container(errs, &p.child("resources"), get(c, "resources"), ctx);
    resize_policy(errs, &p.child("resizePolicy"), c, ctx);
    if let Some(sc) = opt(c, "securityContext") {
        security::container(errs, &p.child("securityContext"), sc, ctx);
    }
}

fn ports(errs: &mut ErrorList, p: &Path, c: &Value) {
    let mut seen = BTreeSet::new();
    for (i, port) in list(c, "ports").iter().enumerate() {
        let (p, name) = (p.index(i), str_of(port, "name"));
        if !name.is_empty() {
            let messages = names::port_name(name);
            if !messages.is_empty() {
                field::invalid_each(errs, &p.child("name"), name, messages);
            } else if !seen.insert(name) {
                field::duplicate(errs, p.child("name"), name);
            }
        }
        match int_of(port, "containerPort") {
            0 => field::required(errs, p.child("containerPort"), ""),
            n => field::invalid_number(errs, &p.child("containerPort"), n, names::port_number(n)),
        }
        match int_of(port, "hostPort") {
            0 => {}
            n => field::invalid_number(errs, &p.child("hostPort"), n, names::port_number(n)),
        }
        field::one_of(errs, &p.child("protocol"), str_of(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

fn host_port_conflicts(errs: &mut ErrorList, p: &Path, containers: &[Value]) {
    let mut seen = BTreeSet::new();
    for (i, c) in containers.iter().enumerate() {
        for (j, port) in list(c, "ports").iter().enumerate() {
            let host = int_of(port, "hostPort");
            if host == 0 {
                continue;
            }
            let text = format!("{}/{}/{host}", str_of(port, "protocol"), str_of(port, "hostIP"));
            if !seen.insert(text.clone()) {
                field::duplicate(errs, p.index(i).child("ports").index(j).child("hostPort"), text);
            }
        }
    }
}

/// With the host's network a container port is a host port.
pub fn host_network_ports(errs: &mut ErrorList, p: &Path, spec: &Value, is_pod: bool) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    for (i, c) in list(spec, "containers").iter().enumerate() {
        for (j, port) in list(c, "ports").iter().enumerate() {
            let (host, own) = (int_of(port, "hostPort"), int_of(port, "containerPort"));
            if (is_pod || host != 0) && host != own {
                let p = p.child("containers").index(i).child("ports").index(j).child("hostPort");
                field::invalid(errs, p, host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn mounts(errs: &mut ErrorList, p: &Path, c: &Value, ctx: &Ctx<'_>) {
    let devices: BTreeMap<&str, &str> =
        list(c, "volumeDevices").iter().map(|d| (str_of(d, "name"), str_of(d, "devicePath"))).collect();
    let mut paths = BTreeSet::new();
    for (i, mount) in list(c, "volumeMounts").iter().enumerate() {
        let (at, name, path) = (p.index(i), str_of(mount, "name"), str_of(mount, "mountPath"));
        if name.is_empty() {
            field::required(errs, at.child("name"), "");
        }
        if !ctx.volumes.contains_key(name) {
            field::not_found(errs, at.child("name"), name);
        }
        if path.is_empty() {
            field::required(errs, at.child("mountPath"), "");
        }
        if !paths.insert(path) {
            field::invalid(errs, at.child("mountPath"), path, "must be unique");
        }
        if devices.contains_key(name) {
            field::invalid(errs, at.child("name"), name, "must not already exist in volumeDevices");
        }
        if devices.values().any(|d| *d == path) {
            let detail = "must not already exist as a path in volumeDevices";
            field::invalid(errs, at.child("mountPath"), path, detail);
        }
        // Upstream leaves the index out of the paths below.
        let (sub, expr) = (str_of(mount, "subPath"), str_of(mount, "subPathExpr"));
        if !sub.is_empty() {
            descending(errs, &p.child("subPath"), sub);
        }
        if !expr.is_empty() {
            if !sub.is_empty() {
                field::invalid(errs, at.child("subPathExpr"), expr, "subPathExpr and subPath are mutually exclusive");
            }
            descending(errs, &p.child("subPathExpr"), expr);
        }
        propagation(errs, &p.child("mountPropagation"), mount, c);
        recursive_read_only(errs, &p.child("recursiveReadOnly"), mount);
    }
}

fn propagation(errs: &mut ErrorList, p: &Path, mount: &Value, c: &Value) {
    let Some(mode) = opt(mount, "mountPropagation").and_then(Value::as_str) else { return };
    let modes = ["Bidirectional", "HostToContainer", "None"];
    if !modes.contains(&mode) {
        field::not_supported(errs, p, mode, &modes);
    }
    if mode == "Bidirectional" && !flag(get(c, "securityContext"), "privileged") {
        field::forbidden(errs, p, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn recursive_read_only(errs: &mut ErrorList, p: &Path, mount: &Value) {
    match opt(mount, "recursiveReadOnly").and_then(Value::as_str) {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(mount, "readOnly") {
                field::forbidden(errs, p, "may only be specified when readOnly is true");
            }
            if !["", "None"].contains(&str_of(mount, "mountPropagation")) {
                field::forbidden(errs, p, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => field::not_supported(errs, p, other, &["Disabled", "IfPossible", "Enabled"]),
    }
}

fn devices(errs: &mut ErrorList, p: &Path, c: &Value, ctx: &Ctx<'_>) {
    let mounts: BTreeMap<&str, &str> =
        list(c, "volumeMounts").iter().map(|m| (str_of(m, "name"), str_of(m, "mountPath"))).collect();
    let (mut paths, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in list(c, "volumeDevices").iter().enumerate() {
        let (at, name, path) = (p.index(i), str_of(device, "name"), str_of(device, "devicePath"));
        let volume = ctx.volumes.get(name);
        if name.is_empty() {
            field::required(errs, at.child("name"), "");
        }
        if seen.contains(name) {
            field::invalid(errs, at.child("name"), name, "must be unique");
        }
        match volume {
            Some(v) if !is_set(v, "persistentVolumeClaim") && !is_set(v, "ephemeral") => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                field::invalid(errs, at.child("name"), name, detail);
            }
            Some(_) => {}
            None => field::not_found(errs, at.child("name"), name),
        }
        if path.is_empty() {
            field::required(errs, at.child("devicePath"), "");
        }
        if paths.contains(path) {
            field::invalid(errs, at.child("devicePath"), path, "must be unique");
        }
        let mut steps = ErrorList::new();
        no_backsteps(&mut steps, p, path);
        if steps.is_empty() {
            paths.insert(path);
        } else {
            field::invalid(errs, at.child("devicePath"), path, "can not contain backsteps ('..')");
        }
        if mounts.contains_key(name) {
            field::invalid(errs, at.child("name"), name, "must not already exist in volumeMounts");
        }
        if mounts.values().any(|m| *m == path) {
            field::invalid(errs, at.child("devicePath"), path, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            seen.insert(name);
        }
    }
}

fn resize_policy(errs: &mut ErrorList, p: &Path, c: &Value, ctx: &Ctx<'_>) {
    let mut seen = BTreeSet::new();
    for (i, policy) in list(c, "resizePolicy").iter().enumerate() {
        let (resource, restart) = (str_of(policy, "resourceName"), str_of(policy, "restartPolicy"));
        if !seen.insert(resource) {
            field::duplicate(errs, p.index(i), resource);
        }
        field::one_of(errs, p, resource, &["cpu", "memory"]);
        field::one_of(errs, p, restart, &["NotRequired", "RestartContainer"]);
        if ctx.restart_policy == "Never" && restart != "NotRequired" {
            field::invalid(errs, p, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}

fn restart_policy(errs: &mut ErrorList, p: &Path, c: &Value) {
    let rules = list(c, "restartPolicyRules");
    match opt(c, "restartPolicy").and_then(Value::as_str) {
        None if !rules.is_empty() => {
            field::required(errs, p.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
        }
        Some(policy) if !RESTART_POLICIES.contains(&policy) => {
            field::not_supported(errs, p.child("restartPolicy"), policy, &RESTART_POLICIES);
        }
        _ => {}
    }
    let p = p.child("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        field::too_long(errs, &p, MAX_RESTART_RULES);
    }
    for (i, rule) in rules.iter().enumerate() {
        let p = p.index(i);
        field::one_of(errs, &p.child("action"), str_of(rule, "action"), &["Restart", "RestartAllContainers"]);
        let Some(codes) = opt(rule, "exitCodes") else {
            field::required(errs, p.child("exitCodes"), "must be specified");
            continue;
        };
        let p = p.child("exitCodes");
        field::one_of(errs, &p.child("operator"), str_of(codes, "operator"), &["In", "NotIn"]);
        if list(codes, "values").len() > MAX_EXIT_CODES {
            field::too_long(errs, p.child("values"), MAX_EXIT_CODES);
        }
    }
}
