//! Pod specs: defaults and rules, shared by pods and by everything that has a
//! pod template.
//!
//! ```text
//!   defaults ── template, pod          volumes ─┐
//!   image ───── tag of a reference     containers ── env, probes, resources, security
//!                                      affinity, scheduling, dns ─┘
//! ```
//! Errors come in the order in which upstream checks the fields. Only values
//! are looked at here: nothing outside the spec.

mod affinity;
mod containers;
mod defaults;
mod dns;
mod env;
mod image;
mod probes;
pub mod resources;
mod scheduling;
mod security;
mod volumes;

use std::collections::BTreeMap;

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;

pub use defaults::{pod as default_pod, template as default_template};
pub(crate) use probes::port;
pub(crate) use scheduling::taint_effect;

use crate::field::{self, Path};
use crate::meta;
use crate::value::{flag, get, is_set, list, opt, opt_int, str_of};

/// What the rules of the parts need of the whole.
pub struct Ctx<'a> {
    /// The spec is a pod's own, not a template's.
    pub is_pod: bool,
    /// Of the pod, when it is known: generic ephemeral volumes are named after it.
    pub pod_name: &'a str,
    /// Names in `resourceClaims`.
    pub claims: Vec<&'a str>,
    pub volumes: BTreeMap<&'a str, &'a Value>,
    pub restart_policy: &'a str,
    pub grace: Option<i64>,
    pub host_users: bool,
}

/// The rules of a pod spec at `p`.
pub fn validate(errs: &mut ErrorList, p: &Path, spec: &Value, is_pod: bool, pod_name: &str) {
    let grace = opt_int(spec, "terminationGracePeriodSeconds");
    if grace.is_none() {
        field::required(errs, p.child("terminationGracePeriodSeconds"), "");
    }
    let mut ctx = Ctx {
        is_pod,
        pod_name,
        claims: list(spec, "resourceClaims").iter().map(|c| str_of(c, "name")).filter(|n| !n.is_empty()).collect(),
        volumes: BTreeMap::new(),
        restart_policy: str_of(spec, "restartPolicy"),
        grace,
        host_users: get(spec, "hostUsers").as_bool().unwrap_or(true),
    };
    volumes::validate(errs, &p.child("volumes"), spec, &mut ctx);
    scheduling::resource_claims(errs, &p.child("resourceClaims"), spec);
    containers::regular(errs, &p.child("containers"), spec, &ctx);
    containers::init(errs, &p.child("initContainers"), spec, &ctx);
    containers::ephemeral(errs, &p.child("ephemeralContainers"), spec, &ctx);
    resources::pod_level(errs, &p.child("resources"), spec, &ctx);
    containers::host_network_ports(errs, p, spec, is_pod);
    field::one_of(errs, &p.child("restartPolicy"), ctx.restart_policy, &["Always", "OnFailure", "Never"]);
    let dns_policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    field::one_of(errs, &p.child("dnsPolicy"), str_of(spec, "dnsPolicy"), &dns_policies);
    meta::labels(errs, &p.child("nodeSelector"), spec, "nodeSelector");
    security::pod(errs, &p.child("securityContext"), spec);
    affinity::validate(errs, &p.child("affinity"), opt(spec, "affinity"));
    dns::config(errs, &p.child("dnsConfig"), spec);
    scheduling::readiness_gates(errs, &p.child("readinessGates"), spec);
    scheduling::scheduling_gates(errs, &p.child("schedulingGates"), spec);
    scheduling::topology_spread(errs, &p.child("topologySpreadConstraints"), spec);
    host_users(errs, p, spec, &ctx);
    names_and_limits(errs, p, spec);
    if let Some(os) = opt(spec, "os") {
        operating_system(errs, p, spec, os);
    }
}

fn host_users(errs: &mut ErrorList, p: &Path, spec: &Value, ctx: &Ctx<'_>) {
    if ctx.host_users {
        return;
    }
    for (field, path) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if flag(spec, field) {
            field::forbidden(errs, p.child(path), "when `pod.Spec.HostUsers` is false");
        }
    }
}

fn names_and_limits(errs: &mut ErrorList, p: &Path, spec: &Value) {
    let subdomain = |errs: &mut ErrorList, key: &str| {
        let name = str_of(spec, key);
        if !name.is_empty() {
            meta::dns1123_subdomain(errs, &p.child(key), name);
        }
    };
    subdomain(errs, "serviceAccountName");
    subdomain(errs, "nodeName");
    if let Some(seconds) = opt_int(spec, "activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = names::inclusive_range(1, i64::from(i32::MAX));
        field::invalid(errs, p.child("activeDeadlineSeconds"), seconds, detail);
    }
    for key in ["hostname", "subdomain"] {
        let name = str_of(spec, key);
        if !name.is_empty() {
            meta::dns1123_label(errs, &p.child(key), name);
        }
    }
    scheduling::tolerations(errs, &p.child("tolerations"), spec);
    dns::host_aliases(errs, &p.child("hostAliases"), spec);
    subdomain(errs, "priorityClassName");
    if is_set(spec, "runtimeClassName") {
        meta::dns1123_subdomain(errs, &p.child("runtimeClassName"), str_of(spec, "runtimeClassName"));
    }
    if is_set(spec, "preemptionPolicy") {
        let policy = str_of(spec, "preemptionPolicy");
        field::one_of(errs, &p.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
    for (name, amount) in crate::value::entries(spec, "overhead") {
        resources::amount(errs, &p.child("overhead").key(name), name, amount);
    }
}

fn operating_system(errs: &mut ErrorList, p: &Path, spec: &Value, os: &Value) {
    let name = str_of(os, "name");
    match name {
        "" => field::required(errs, p.child("os").child("name"), "cannot be empty"),
        "linux" => security::linux_only(errs, p, spec),
        "windows" => security::windows_only(errs, p, spec),
        other => field::not_supported(errs, p.child("os"), other, &["linux", "windows"]),
    }
}

/// What is checked in pods but not in templates.
pub fn only_in_pods(errs: &mut ErrorList, p: &Path, spec: &Value) {
    for kind in ["containers", "initContainers"] {
        for (i, c) in list(spec, kind).iter().enumerate() {
            containers::only_in_pods(errs, &p.child(kind).index(i), c);
        }
    }
}

/// All containers of a spec with their paths: init, regular, ephemeral.
pub fn each_container<'a>(spec: &'a Value, p: &Path) -> Vec<(Path, &'a Value)> {
    let mut all = Vec::new();
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        let p = p.child(kind);
        all.extend(list(spec, kind).iter().enumerate().map(|(i, c)| (p.index(i), c)));
    }
    all
}
