//! Validation of Services.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use triarch_api::names;
use triarch_api::status::ErrorList;

use super::is_headless;
use super::shape::{externally_accessible, needs_cluster_ip, needs_health_check};
use crate::field::{self, Path};
use crate::pod_spec;
use crate::value::{at, get, int_of, is_set, list, list_at, opt, opt_int, same, str_of};
use crate::{ip, meta};

const MAX_AFFINITY_SECONDS: i64 = 86_400;
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

pub fn validate(v: &Value, family: &str, errs: &mut ErrorList) {
    let (p, spec) = (Path::new("spec"), get(v, "spec"));
    let (kind, headless, ports) = (str_of(spec, "type"), is_headless(spec), list(spec, "ports"));
    if ports.is_empty() && !headless && kind != "ExternalName" {
        field::required(errs, p.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            field::invalid(errs, p.child("clusterIPs").index(0), "None", detail);
        }
        "ExternalName" => external_name(errs, &p, spec),
        _ => {}
    }
    service_ports(errs, &p.child("ports"), ports);
    meta::labels(errs, &p.child("selector"), spec, "selector");
    affinity(errs, &p, spec);
    if kind != "ExternalName" {
        cluster_ips(errs, &p, spec, family);
    }
    for (i, address) in list(spec, "externalIPs").iter().enumerate() {
        let (p, address) = (p.child("externalIPs").index(i), address.as_str().unwrap_or(""));
        if ip::valid(errs, &p, address) {
            ip::not_special(errs, &p, address);
        }
    }
    field::one_of(errs, &p.child("type"), kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    unique_ports(errs, &p.child("ports"), ports, kind);
    source_ranges(errs, v, spec, kind);
    if is_set(spec, "allocateLoadBalancerNodePorts") && kind != "LoadBalancer" {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        field::forbidden(errs, p.child("allocateLoadBalancerNodePorts"), detail);
    }
    if let Some(class) = opt(spec, "loadBalancerClass").and_then(Value::as_str) {
        if kind == "LoadBalancer" {
            meta::label_key(errs, &p.child("loadBalancerClass"), class);
        } else {
            field::forbidden(errs, p.child("loadBalancerClass"), "may only be used when `type` is 'LoadBalancer'");
        }
    }
    traffic(errs, &p, spec);
}

fn external_name(errs: &mut ErrorList, p: &Path, spec: &Value) {
    let detail = "may not be set for ExternalName services";
    for key in ["clusterIPs", "ipFamilies"] {
        if !list(spec, key).is_empty() {
            field::forbidden(errs, p.child(key), detail);
        }
    }
    if is_set(spec, "ipFamilyPolicy") {
        field::forbidden(errs, p.child("ipFamilyPolicy"), detail);
    }
    let name = str_of(spec, "externalName");
    match name.strip_suffix('.').unwrap_or(name) {
        "" => field::required(errs, p.child("externalName"), ""),
        name => meta::dns1123_subdomain(errs, &p.child("externalName"), name),
    }
}

fn service_ports(errs: &mut ErrorList, p: &Path, ports: &[Value]) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let (p, name, number) = (p.index(i), str_of(port, "name"), int_of(port, "port"));
        if ports.len() > 1 && name.is_empty() {
            field::required(errs, p.child("name"), "");
        } else if !name.is_empty() {
            meta::dns1123_label(errs, &p.child("name"), name);
            if !seen.insert(name) {
                field::duplicate(errs, p.child("name"), name);
            }
        }
        field::invalid_number(errs, &p.child("port"), number, names::port_number(number));
        field::one_of(errs, &p.child("protocol"), str_of(port, "protocol"), &["SCTP", "TCP", "UDP"]);
        pod_spec::port(errs, &p.child("targetPort"), port.get("targetPort"));
        if is_set(port, "appProtocol") {
            meta::label_key(errs, &p.child("appProtocol"), str_of(port, "appProtocol"));
        }
    }
}

fn affinity(errs: &mut ErrorList, p: &Path, spec: &Value) {
    let affinity = str_of(spec, "sessionAffinity");
    field::one_of(errs, &p.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    let (p, config) = (p.child("sessionAffinityConfig"), opt(spec, "sessionAffinityConfig"));
    if affinity == "None" && config.is_some() {
        field::forbidden(errs, &p, "must not be set when session affinity is None");
    }
    if affinity != "ClientIP" {
        return;
    }
    let detail = "when session affinity type is ClientIP";
    let Some(config) = config else { return field::required(errs, &p, detail) };
    let Some(client) = opt(config, "clientIP") else { return field::required(errs, p.child("clientIP"), detail) };
    let p = p.child("clientIP").child("timeoutSeconds");
    match opt_int(client, "timeoutSeconds") {
        None => field::required(errs, &p, detail),
        Some(s) if s <= 0 || s > MAX_AFFINITY_SECONDS => {
            field::invalid(errs, &p, s, format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"));
        }
        Some(_) => {}
    }
}

fn cluster_ips(errs: &mut ErrorList, p: &Path, spec: &Value, family: &str) {
    let (one, many, families) = (str_of(spec, "clusterIP"), list(spec, "clusterIPs"), list(spec, "ipFamilies"));
    let (ips, fams, policy) = (p.child("clusterIPs"), p.child("ipFamilies"), str_of(spec, "ipFamilyPolicy"));
    match (one.is_empty(), many.first()) {
        (false, None) => field::required(errs, &ips, ""),
        (false, Some(first)) if first != one => {
            field::invalid(errs, &ips, many.to_vec(), "first value must match `clusterIP`");
        }
        (true, Some(_)) => field::invalid(errs, &ips, many.to_vec(), "must be empty when `clusterIP` is not specified"),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for (i, f) in families.iter().enumerate() {
        let (p, f) = (fams.index(i), f.as_str().unwrap_or(""));
        if !FAMILIES.contains(&f) {
            field::not_supported(errs, &p, f, &FAMILIES);
        }
        if !seen.insert(f) {
            field::duplicate(errs, &p, f);
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    if !policy.is_empty() && !policies.contains(&policy) {
        field::not_supported(errs, p.child("ipFamilyPolicy"), policy, &policies);
    }
    let mut broken = false;
    for (i, address) in many.iter().enumerate() {
        let address = address.as_str().unwrap_or("");
        if i == 0 && address == "None" {
            if many.len() > 1 {
                broken = true;
                field::invalid(errs, &ips, many.to_vec(), "'None' must be the first and only value");
            }
            continue;
        }
        broken |= !ip::valid(errs, &ips.index(i), address);
    }
    if many.len() > 2 {
        field::invalid(errs, &ips, many.to_vec(), "may only hold up to 2 values");
    }
    if broken || many.is_empty() || many[0] == "None" {
        return;
    }
    for (i, address) in many.iter().enumerate() {
        let actual = if address.as_str().unwrap_or("").contains(':') { "IPv6" } else { "IPv4" };
        if let Some(wanted) = families.get(i).and_then(Value::as_str)
            && FAMILIES.contains(&wanted)
            && wanted != actual
        {
            let detail = format!("expected an {wanted} value as indicated by `ipFamilies[{i}]`");
            field::invalid(errs, ips.index(i), address.clone(), detail);
        }
    }
    single_stack(errs, p, families, policy, family);
}

/// One family of addresses is configured.
fn single_stack(errs: &mut ErrorList, p: &Path, families: &[Value], policy: &str, family: &str) {
    if policy == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        field::invalid(errs, p.child("ipFamilyPolicy"), policy, detail);
    }
    for (i, f) in families.iter().enumerate() {
        let f = f.as_str().unwrap_or("");
        if f != family && FAMILIES.contains(&f) {
            field::invalid(errs, p.child("ipFamilies").index(i), f, "not configured on this cluster");
        }
    }
}

fn unique_ports(errs: &mut ErrorList, p: &Path, ports: &[Value], kind: &str) {
    if kind == "ClusterIP" {
        for (i, port) in ports.iter().enumerate() {
            if int_of(port, "nodePort") != 0 {
                field::forbidden(errs, p.index(i).child("nodePort"), "may not be used when `type` is 'ClusterIP'");
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let node = int_of(port, "nodePort");
        if node != 0 && !seen.insert((str_of(port, "protocol"), node)) {
            field::duplicate(errs, p.index(i).child("nodePort"), node);
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let (protocol, number) = (str_of(port, "protocol"), int_of(port, "port"));
        if !seen.insert((protocol, number)) {
            field::duplicate(errs, p.index(i), json!({"protocol": protocol, "port": number, "targetPort": 0}));
        }
    }
}

fn source_ranges(errs: &mut ErrorList, v: &Value, spec: &Value, kind: &str) {
    let annotation = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = list(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() {
        let p = Path::new("spec").child("LoadBalancerSourceRanges");
        if kind != "LoadBalancer" {
            field::forbidden(errs, &p, only);
        }
        for (i, range) in ranges.iter().enumerate() {
            let range = range.as_str().unwrap_or("").trim();
            field::invalid_each(errs, &p.index(i), range, names::cidr(range));
        }
    } else if let Some(text) = crate::value::metadata_map(v, "annotations", annotation) {
        let p = Path::new("metadata").child("annotations").key(annotation);
        if kind != "LoadBalancer" {
            field::forbidden(errs, &p, only);
        }
        for range in text.split(',').map(str::trim).filter(|r| !r.is_empty()) {
            field::invalid_each(errs, &p, range, names::cidr(range));
        }
    }
}

fn traffic(errs: &mut ErrorList, p: &Path, spec: &Value) {
    let external = str_of(spec, "externalTrafficPolicy");
    if externally_accessible(spec) {
        field::one_of(errs, &p.child("externalTrafficPolicy"), external, &["Cluster", "Local"]);
    } else if !external.is_empty() {
        let detail = "may only be set for externally-accessible services";
        field::invalid(errs, p.child("externalTrafficPolicy"), external, detail);
    }
    let health = int_of(spec, "healthCheckNodePort");
    if !needs_health_check(spec) {
        if health != 0 {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            field::invalid(errs, p.child("healthCheckNodePort"), health, detail);
        }
    } else if health != 0 {
        field::invalid_number(errs, &p.child("healthCheckNodePort"), health, names::port_number(health));
    }
    let internal = p.child("internalTrafficPolicy");
    match opt(spec, "internalTrafficPolicy").and_then(Value::as_str) {
        None if needs_cluster_ip(spec) => field::required(errs, &internal, ""),
        Some(policy) if policy != "Cluster" && policy != "Local" => {
            field::not_supported(errs, &internal, policy, &["Cluster", "Local"]);
        }
        _ => {}
    }
    let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    if let Some(distribution) = opt(spec, "trafficDistribution").and_then(Value::as_str)
        && !known.contains(&distribution)
    {
        field::not_supported(errs, p.child("trafficDistribution"), distribution, &known);
    }
}

/// Addresses and classes, once set, stay.
pub fn update(new: &Value, old: &Value, errs: &mut ErrorList) {
    let (spec, was) = (get(new, "spec"), get(old, "spec"));
    let p = Path::new("spec");
    if str_of(spec, "type") != "ExternalName" && str_of(was, "type") != "ExternalName" {
        let (now_ips, was_ips) = (list(spec, "clusterIPs"), list(was, "clusterIPs"));
        match (now_ips.first(), was_ips.first()) {
            (None, Some(_)) => {
                let detail = "primary clusterIP can not be unset";
                field::invalid(errs, p.child("clusterIPs").index(0), now_ips.to_vec(), detail);
            }
            (Some(now), Some(before)) if now != before => {
                field::invalid(errs, p.child("clusterIPs").index(0), now_ips.to_vec(), "may not change once set");
            }
            _ => {}
        }
        let (now_f, was_f) = (list(spec, "ipFamilies").first(), list(was, "ipFamilies").first());
        if let (Some(now), Some(before)) = (now_f, was_f)
            && now != before
        {
            field::invalid(errs, p.child("ipFamilies").index(0), now.clone(), "may not change once set");
        }
    }
    if str_of(spec, "type") == "LoadBalancer" && str_of(was, "type") == "LoadBalancer" {
        let key = "loadBalancerClass";
        if !same(get(spec, key), get(was, key)) {
            field::invalid(errs, p.child(key), get(spec, key).clone(), "may not change once set");
        }
    }
    let key = "healthCheckNodePort";
    if needs_health_check(spec) && needs_health_check(was) && int_of(spec, key) != int_of(was, key) {
        field::forbidden(errs, p.child(key), "field is immutable");
    }
}

/// Ingress points of a load balancer.
pub fn status(new: &Value, errs: &mut ErrorList) {
    let p = Path::new("status").child("loadBalancer").child("ingress");
    let ingress = list_at(new, &["status", "loadBalancer", "ingress"]);
    if at(new, &["spec", "type"]) != "LoadBalancer" && !ingress.is_empty() {
        field::forbidden(errs, &p, "may only be used when `spec.type` is 'LoadBalancer'");
        return;
    }
    for (i, point) in ingress.iter().enumerate() {
        let (p, address, host) = (p.index(i), str_of(point, "ip"), str_of(point, "hostname"));
        if !address.is_empty() {
            ip::valid(errs, &p.child("ip"), address);
        }
        match opt(point, "ipMode").and_then(Value::as_str) {
            Some(_) if address.is_empty() => {
                field::forbidden(errs, p.child("ipMode"), "may not be specified when `ip` is not set");
            }
            Some(mode) if mode != "VIP" && mode != "Proxy" => {
                field::not_supported(errs, p.child("ipMode"), mode, &["Proxy", "VIP"]);
            }
            _ => {}
        }
        if !host.is_empty() {
            meta::dns1123_subdomain(errs, &p.child("hostname"), host);
            if host.parse::<std::net::IpAddr>().is_ok() {
                field::invalid(errs, p.child("hostname"), host, "must be a DNS name, not an IP address");
            }
        }
    }
}
