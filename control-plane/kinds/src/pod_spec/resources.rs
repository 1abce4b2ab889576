//! Compute resources of containers and pods: names, amounts, requests against
//! limits, aggregation and the QoS class.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use triarch_api::names;
use triarch_api::quantity::Quantity;
use triarch_api::status::ErrorList;

use super::Ctx;
use crate::field::{self, Path};
use crate::meta;
use crate::value::{child, entries, get, list, opt, set, str_of};

const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
const COUNTS: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

pub fn parse(v: &Value) -> Quantity {
    match v {
        Value::String(text) => Quantity::parse(text).unwrap_or(Quantity::ZERO),
        Value::Number(n) => Quantity::parse(&n.to_string()).unwrap_or(Quantity::ZERO),
        _ => Quantity::ZERO,
    }
}

fn resource_name(errs: &mut ErrorList, p: &Path, name: &str) -> bool {
    let messages = names::qualified_name(name);
    if !messages.is_empty() {
        field::invalid_each(errs, p, name, messages);
        return false;
    }
    if !name.contains('/') && !is_huge_page(name) && !STANDARD.contains(&name) {
        field::invalid(errs, p, name, "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

fn container_resource_name(errs: &mut ErrorList, p: &Path, name: &str) {
    resource_name(errs, p, name);
    if !name.contains('/') {
        if !is_huge_page(name) && !["cpu", "memory", "ephemeral-storage"].contains(&name) {
            field::invalid(errs, p, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        field::invalid(errs, p, name, "doesn't follow extended resource name standard");
    }
}

fn pod_resource_name(errs: &mut ErrorList, p: &Path, name: &str) {
    if resource_name(errs, p, name) && !is_huge_page(name) && !["cpu", "memory"].contains(&name) {
        field::not_supported(errs, p, name, &["cpu", "memory"]);
    }
}

/// An amount in a resource list: not negative, whole where it counts things.
pub fn amount(errs: &mut ErrorList, p: &Path, name: &str, value: &Value) {
    let q = parse(value);
    if q.sign() < 0 {
        field::invalid(errs, p, q.to_string(), "must be greater than or equal to 0");
    }
    if (COUNTS.contains(&name) || is_extended(name)) && Quantity::from_int(q.value()) != q {
        field::invalid(errs, p, q.to_string(), "must be an integer");
    }
}

fn huge_page(errs: &mut ErrorList, p: &Path, name: &str, q: Quantity) {
    let page = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
    let divisible = page.is_some_and(|page| page.value() > 0 && q.value() % page.value() == 0);
    if !divisible {
        field::invalid(errs, p, q.to_string(), format!("{q} is not positive integer multiple of {name}"));
    }
}

/// A container's requirements.
pub fn container(errs: &mut ErrorList, p: &Path, requirements: &Value, ctx: &Ctx<'_>) {
    validate(errs, p, requirements, container_resource_name, ctx);
}

/// The pod's own requirements, against its containers'.
pub fn pod_level(errs: &mut ErrorList, p: &Path, spec: &Value, ctx: &Ctx<'_>) {
    let Some(requirements) = opt(spec, "resources") else { return };
    if opt(requirements, "claims").is_some() {
        field::forbidden(errs, p.child("claims"), "claims cannot be set for Resources at pod-level");
    }
    validate(errs, p, requirements, pod_resource_name, ctx);
    let requests = get(requirements, "requests");
    for (name, sum) in aggregate(spec) {
        let own = parse(get(requests, &name));
        if sum > own {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            field::invalid(errs, p.child("requests").key(&name), own.to_string(), detail);
        }
    }
    for (i, c) in list(spec, "containers").iter().enumerate() {
        for (name, limit) in entries(get(c, "resources"), "limits") {
            let (limit, Some(own)) = (parse(limit), opt(get(requirements, "limits"), name).map(parse)) else {
                continue;
            };
            if limit > own {
                let p = p.child("containers").index(i).key(name).child("limits");
                field::invalid(
                    errs,
                    p,
                    limit.to_string(),
                    format!("must be less than or equal to pod limits of {own}"),
                );
            }
        }
    }
}

fn validate(errs: &mut ErrorList, p: &Path, r: &Value, check_name: fn(&mut ErrorList, &Path, &str), ctx: &Ctx<'_>) {
    let (limits, requests) = (p.child("limits"), p.child("requests"));
    let (mut compute, mut huge) = (false, false);
    for (name, value) in entries(r, "limits") {
        let p = limits.key(name);
        check_name(errs, &p, name);
        amount(errs, &p, name, value);
        if is_huge_page(name) {
            huge = true;
            huge_page(errs, &p, name, parse(value));
        }
        compute |= name == "cpu" || name == "memory";
    }
    for (name, value) in entries(r, "requests") {
        let p = requests.key(name);
        check_name(errs, &p, name);
        amount(errs, &p, name, value);
        let q = parse(value);
        match opt(get(r, "limits"), name).map(parse) {
            Some(limit) if q != limit && !overcommit_allowed(name) => {
                field::invalid(errs, &requests, q.to_string(), format!("must be equal to {name} limit of {limit}"));
            }
            Some(limit) if q > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                field::invalid(errs, &requests, q.to_string(), detail);
            }
            None if !overcommit_allowed(name) => {
                field::required(errs, &limits, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
        if is_huge_page(name) {
            huge = true;
            huge_page(errs, &p, name, q);
        }
        compute |= name == "cpu" || name == "memory";
    }
    if huge && !compute {
        field::forbidden(errs, p, "HugePages require cpu or memory");
    }
    claims(errs, &p.child("claims"), r, ctx);
}

/// Each claim must be one of the pod's and be named once.
fn claims(errs: &mut ErrorList, p: &Path, r: &Value, ctx: &Ctx<'_>) {
    let mut seen: Vec<String> = Vec::new();
    for (i, claim) in list(r, "claims").iter().enumerate() {
        let (p, name, request) = (p.index(i), str_of(claim, "name"), str_of(claim, "request"));
        if name.is_empty() {
            field::required(errs, &p, "");
            continue;
        }
        if seen.iter().any(|s| s == name) {
            field::duplicate(errs, &p, name);
        } else {
            let mut key = name.to_owned();
            if !request.is_empty() {
                meta::dns1123_label(errs, &p.child("request"), request);
                key = format!("{name}/{request}");
            }
            let overlaps = request.is_empty() && seen.iter().any(|s| s.split('/').next() == Some(name));
            if seen.contains(&key) || overlaps {
                field::duplicate(errs, &p, key.as_str());
            }
            seen.push(key);
        }
        if !ctx.claims.contains(&name) {
            let mut detail = "must be one of the names in pod.spec.resourceClaims".to_owned();
            if ctx.claims.is_empty() {
                detail.push_str(" which is empty");
            } else {
                let mut known = ctx.claims.clone();
                known.sort_unstable();
                detail.push_str(&format!(": {}", known.join(", ")));
            }
            field::not_found(errs, &p, name);
            if let Some(last) = errs.0.last_mut() {
                last.detail = detail;
            }
        }
    }
}

type Amounts = BTreeMap<String, Quantity>;

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, q) in more {
        let sum = total.get(name).copied().unwrap_or(Quantity::ZERO).add(*q);
        total.insert(name.clone(), sum);
    }
}

fn max(total: &mut Amounts, other: &Amounts) {
    for (name, q) in other {
        if total.get(name).is_none_or(|have| have < q) {
            total.insert(name.clone(), *q);
        }
    }
}

fn amounts(container: &Value, which: &str) -> Amounts {
    entries(get(container, "resources"), which).into_iter().map(|(k, v)| (k.to_owned(), parse(v))).collect()
}

fn is_sidecar(container: &Value) -> bool {
    str_of(container, "restartPolicy") == "Always"
}

/// What the containers request together: all of them at once with their
/// sidecars, or an init container with the sidecars started before it.
pub fn aggregate(spec: &Value) -> Amounts {
    let mut total = Amounts::new();
    for c in list(spec, "containers") {
        add(&mut total, &amounts(c, "requests"));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for c in list(spec, "initContainers") {
        let own = amounts(c, "requests");
        if is_sidecar(c) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            max(&mut peak, &sidecars);
        } else {
            let mut now = sidecars.clone();
            add(&mut now, &own);
            max(&mut peak, &now);
        }
    }
    max(&mut total, &peak);
    total
}

/// A pod that states limits for itself requests what its containers do, or else its limits.
pub(super) fn default_pod_level(spec: &mut Value) {
    let limits = get(get(spec, "resources"), "limits").as_object().cloned().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let supported = |name: &str| name == "cpu" || name == "memory" || is_huge_page(name);
    let mut requests = get(get(spec, "resources"), "requests").as_object().cloned().unwrap_or_default();
    for (name, sum) in aggregate(spec) {
        if !requests.contains_key(&name) && supported(&name) && overcommit_allowed(&name) {
            requests.insert(name, json!(sum.to_string()));
        }
    }
    for (name, limit) in limits {
        if !requests.contains_key(&name) && supported(&name) {
            requests.insert(name, limit);
        }
    }
    if !requests.is_empty() {
        set(child(spec, "resources"), "requests", requests);
    }
}

/// Guaranteed, Burstable or BestEffort.
pub fn qos_class(spec: &Value) -> &'static str {
    let positive = |list: Amounts| -> Amounts {
        list.into_iter().filter(|(name, q)| (name == "cpu" || name == "memory") && q.sign() > 0).collect()
    };
    let (mut requests, mut limits, mut guaranteed) = (Amounts::new(), Amounts::new(), true);
    if opt(spec, "resources").is_some() {
        requests = positive(amounts(spec, "requests"));
        let own = positive(amounts(spec, "limits"));
        guaranteed = own.len() == 2 || entries(get(spec, "resources"), "limits").is_empty();
        limits = own;
    } else {
        for c in list(spec, "containers").iter().chain(list(spec, "initContainers")) {
            add(&mut requests, &positive(amounts(c, "requests")));
            let own = positive(amounts(c, "limits"));
            guaranteed &= own.len() == 2;
            add(&mut limits, &own);
        }
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let equal = requests.len() == limits.len() && requests.iter().all(|(name, q)| limits.get(name) == Some(q));
    if guaranteed && equal { "Guaranteed" } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qos_follows_requests_and_limits_of_cpu_and_memory() {
        let pod = |resources: Value| json!({"containers": [{"name": "a", "resources": resources}]});
        assert_eq!(qos_class(&pod(json!({}))), "BestEffort");
        assert_eq!(qos_class(&pod(json!({"limits": {"example.com/x": "1"}}))), "BestEffort");
        assert_eq!(qos_class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos_class(&pod(json!({"requests": both, "limits": both}))), "Guaranteed");
        let more = json!({"cpu": "2", "memory": "1Gi"});
        assert_eq!(qos_class(&pod(json!({"requests": both, "limits": more}))), "Burstable");
    }

    #[test]
    fn an_init_container_counts_with_the_sidecars_before_it() {
        let spec = json!({
            "containers": [{"resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
                {"resources": {"requests": {"cpu": "2"}}},
            ],
        });
        assert_eq!(aggregate(&spec)["cpu"].to_string(), "2500m");
    }
}
