//! The shape of a Service's spec: defaults, what the server derives, and what
//! a change of type clears.

use serde_json::{Value, json};

use super::is_headless;
use crate::value::{child, default, default_str, each_mut, get, int_of, is_set, list, opt, remove, same, set, str_of};

pub fn defaults(v: &mut Value) {
    let spec = child(v, "spec");
    default_str(spec, "sessionAffinity", "None");
    match str_of(spec, "sessionAffinity") {
        "None" => remove(spec, "sessionAffinityConfig"),
        "ClientIP" => {
            let seconds = get(get(get(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds");
            if seconds.is_null() {
                set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10_800}}));
            }
        }
        _ => {}
    }
    default_str(spec, "type", "ClusterIP");
    for port in each_mut(spec, "ports") {
        default_str(port, "protocol", "TCP");
        let unset =
            matches!(get(port, "targetPort"), Value::Null) || port["targetPort"] == 0 || port["targetPort"] == "";
        if unset {
            let number = int_of(port, "port");
            set(port, "targetPort", number);
        }
    }
    if externally_accessible(spec) {
        default_str(spec, "externalTrafficPolicy", "Cluster");
    }
    if needs_cluster_ip(spec) {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if str_of(spec, "type") == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

pub fn externally_accessible(spec: &Value) -> bool {
    match str_of(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

pub fn needs_cluster_ip(spec: &Value) -> bool {
    ["ClusterIP", "NodePort", "LoadBalancer"].contains(&str_of(spec, "type"))
}

pub fn needs_node_port(spec: &Value) -> bool {
    match str_of(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => get(spec, "allocateLoadBalancerNodePorts") != &Value::Bool(false),
        _ => false,
    }
}

pub fn needs_health_check(spec: &Value) -> bool {
    str_of(spec, "type") == "LoadBalancer" && str_of(spec, "externalTrafficPolicy") == "Local"
}

/// On create: the two forms of the cluster IP agree; families are filled in.
pub fn created(v: &mut Value, family: &str) {
    let spec = child(v, "spec");
    let one = str_of(spec, "clusterIP").to_owned();
    match list(spec, "clusterIPs").first().cloned() {
        None if !one.is_empty() => set(spec, "clusterIPs", json!([one])),
        Some(first) if one.is_empty() => set(spec, "clusterIP", first),
        _ => {}
    }
    families(spec, family);
}

/// Families and their policy where the user left them open.
fn families(spec: &mut Value, family: &str) {
    if !needs_cluster_ip(spec) {
        return;
    }
    let other = if family == "IPv4" { "IPv6" } else { "IPv4" };
    // Endpoints of a headless service without selector may be of both families.
    if is_headless(spec) && list_is_empty(spec, "selector") {
        default_str(spec, "ipFamilyPolicy", "RequireDualStack");
        if list(spec, "ipFamilies").is_empty() {
            set(spec, "ipFamilies", json!([family]));
        }
        if list(spec, "ipFamilies").len() == 1 && str_of(spec, "ipFamilyPolicy") != "SingleStack" {
            let first = list(spec, "ipFamilies")[0].clone();
            let second = if first == family { other } else { family };
            set(spec, "ipFamilies", json!([first, second]));
        }
        return;
    }
    default_str(spec, "ipFamilyPolicy", "SingleStack");
    if list(spec, "ipFamilies").is_empty() {
        set(spec, "ipFamilies", json!([family]));
    }
}

fn list_is_empty(spec: &Value, key: &str) -> bool {
    get(spec, key).as_object().is_none_or(serde_json::Map::is_empty)
}

/// On update: values that were allocated stay unless the user changes them, and
/// those that the new type has no use for go unless the user set them.
pub fn updated(new: &mut Value, old: &Value, family: &str) {
    let (spec, was) = (child(new, "spec"), get(old, "spec"));
    keep_allocated(spec, was);
    drop_unneeded(spec, was);
    agree(spec, was);
    families(spec, family);
}

fn keep_allocated(spec: &mut Value, was: &Value) {
    if needs_cluster_ip(was) && needs_cluster_ip(spec) {
        default_str(spec, "clusterIP", str_of(was, "clusterIP"));
        if list(spec, "clusterIPs").is_empty() && str_of(spec, "clusterIP") == str_of(was, "clusterIP") {
            set(spec, "clusterIPs", get(was, "clusterIPs").clone());
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if same(get(spec, key), &Value::Null) && is_set(was, key) {
                set(spec, key, get(was, key).clone());
            }
        }
    }
    if needs_node_port(was) && needs_node_port(spec) {
        let mut used: Vec<i64> = list(spec, "ports").iter().map(|p| int_of(p, "nodePort")).collect();
        for port in each_mut(spec, "ports") {
            if int_of(port, "nodePort") != 0 {
                continue;
            }
            let twin = |p: &&Value| {
                int_of(p, "port") == int_of(port, "port") && str_of(p, "protocol") == str_of(port, "protocol")
            };
            let before = list(was, "ports").iter().find(twin).map_or(0, |p| int_of(p, "nodePort"));
            if before != 0 && !used.contains(&before) {
                set(port, "nodePort", before);
                used.push(before);
            }
        }
    }
    if needs_health_check(was) && needs_health_check(spec) && int_of(spec, "healthCheckNodePort") == 0 {
        set(spec, "healthCheckNodePort", int_of(was, "healthCheckNodePort"));
    }
}

fn drop_unneeded(spec: &mut Value, was: &Value) {
    if needs_cluster_ip(was) && !needs_cluster_ip(spec) && str_of(spec, "clusterIP") == str_of(was, "clusterIP") {
        for key in ["clusterIP", "clusterIPs"] {
            remove(spec, key);
        }
    }
    if needs_cluster_ip(was) && !needs_cluster_ip(spec) {
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if same(get(spec, key), get(was, key)) {
                remove(spec, key);
            }
        }
    }
    let node_ports = |s: &Value| list(s, "ports").iter().map(|p| int_of(p, "nodePort")).collect::<Vec<_>>();
    if needs_node_port(was) && !needs_node_port(spec) && node_ports(spec) == node_ports(was) {
        for port in each_mut(spec, "ports") {
            remove(port, "nodePort");
        }
    }
    let key = "healthCheckNodePort";
    if needs_health_check(was) && !needs_health_check(spec) && int_of(spec, key) == int_of(was, key) {
        remove(spec, key);
    }
    if str_of(was, "type") == "LoadBalancer" && str_of(spec, "type") != "LoadBalancer" {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(get(spec, key), get(was, key)) {
                remove(spec, key);
            }
        }
    }
    let key = "externalTrafficPolicy";
    if externally_accessible(was) && !externally_accessible(spec) && str_of(spec, key) == str_of(was, key) {
        remove(spec, key);
    }
}

/// A user who changes one form of the cluster IP means both.
fn agree(spec: &mut Value, was: &Value) {
    if !needs_cluster_ip(spec) {
        return;
    }
    let one = str_of(spec, "clusterIP").to_owned();
    let changed_one = one != str_of(was, "clusterIP");
    let changed_many = !same(get(spec, "clusterIPs"), get(was, "clusterIPs"));
    if changed_one && !changed_many {
        match one.is_empty() {
            true => remove(spec, "clusterIPs"),
            false => set(spec, "clusterIPs", json!([one])),
        }
    } else if changed_many && !changed_one {
        match list(spec, "clusterIPs").first().cloned() {
            Some(first) if one.is_empty() => set(spec, "clusterIP", first),
            None => remove(spec, "clusterIP"),
            Some(_) => {}
        }
    }
    if opt(spec, "clusterIPs").is_none() && !one.is_empty() {
        set(spec, "clusterIPs", json!([one]));
    }
}
