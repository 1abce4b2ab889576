//! Service, its `status` and `proxy`.
//!
//! ```text
//!   shape ──── defaults, what the server fills in and clears on a change of type
//!   rules ──── validation          alloc ── cluster IPs and node ports in the write's own transaction
//! ```

pub mod alloc;
mod rules;
mod shape;

use serde_json::{Value, json};
use triarch_registry::{DeleteRule, Kind, SelectableField, StatusRule, Subresource, SubresourceHandler, Verb};

use crate::describe;
use crate::meta;
use crate::print::{AGE, NAME, labels, or_none, text, wide};
use crate::value::{copy, get, int_of, list, list_at, set, str_at, str_of};

pub static KIND: Kind = Kind {
    kind: "Service",
    list_kind: "ServiceList",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    schema: "core/v1.Service",
    resource: "services",
    subresources: &[
        Subresource {
            name: "proxy",
            verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
            handler: SubresourceHandler::Connect,
            response: ("", "v1", "ServiceProxyOptions"),
            schema: "core/v1.ServiceProxyOptions",
        },
        Subresource {
            name: "status",
            verbs: &[Verb::Get, Verb::Patch, Verb::Update],
            handler: SubresourceHandler::Status,
            response: ("", "v1", "Service"),
            schema: "core/v1.Service",
        },
    ],
    columns: &[
        NAME,
        text("Type", describe::SERVICE_TYPE, |v, _| spec(v, "type").into()),
        text("Cluster-IP", describe::SERVICE_CLUSTER_IP, |v, _| {
            or_none(list_at(v, &["spec", "clusterIPs"]).first().and_then(Value::as_str).unwrap_or(""))
        }),
        text("External-IP", describe::SERVICE_EXTERNAL_IPS, |v, _| external(v).into()),
        text("Port(s)", describe::SERVICE_PORTS, |v, _| ports(v)),
        AGE,
        wide("Selector", describe::SERVICE_SELECTOR, |v, _| labels(get(v, "spec"), "selector").into()),
    ],
    selectable: &[
        SelectableField { path: "spec.clusterIP", get: |v| spec(v, "clusterIP").to_owned() },
        SelectableField { path: "spec.type", get: |v| spec(v, "type").to_owned() },
    ],
    create_on_update: true,
    delete: DeleteRule::Object,
    validate_name: meta::label1035_name,
    defaults: shape::defaults,
    prepare_create: |ctx, v| {
        set(v, "status", json!({"loadBalancer": {}}));
        shape::created(v, alloc::family(ctx.store));
    },
    prepare_update: |ctx, new, old| {
        copy(old, new, "status");
        shape::updated(new, old, alloc::family(ctx.store));
    },
    validate: |ctx, v, errs| rules::validate(v, alloc::family(ctx.store), errs),
    validate_update: |_, new, old, errs| rules::update(new, old, errs),
    status: Some(StatusRule { validate: |_, new, _, errs| rules::status(new, errs), ..StatusRule::BASE }),
    allocate: Some(alloc::allocate),
    ..Kind::BASE
};

fn spec<'a>(v: &'a Value, key: &str) -> &'a str {
    str_at(v, &["spec", key])
}

/// A service without a cluster IP by wish.
pub fn is_headless(spec: &Value) -> bool {
    str_of(spec, "clusterIP") == "None" || list(spec, "clusterIPs").first().is_some_and(|ip| ip == "None")
}

fn external(v: &Value) -> String {
    let ips: Vec<&str> = list_at(v, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    match spec(v, "type") {
        "ClusterIP" | "NodePort" if ips.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => ips.join(","),
        "LoadBalancer" => {
            let mut ingress: Vec<&str> = list_at(v, &["status", "loadBalancer", "ingress"])
                .iter()
                .map(|i| if str_of(i, "ip").is_empty() { str_of(i, "hostname") } else { str_of(i, "ip") })
                .filter(|a| !a.is_empty())
                .collect();
            ingress.sort_unstable();
            ingress.dedup();
            // In full: a server makes wide rows always.
            let text = ingress.join(",");
            match (text.is_empty(), ips.is_empty()) {
                (true, true) => "<pending>".to_owned(),
                (true, false) => ips.join(","),
                (false, true) => text,
                (false, false) => format!("{text},{}", ips.join(",")),
            }
        }
        "ExternalName" => spec(v, "externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn ports(v: &Value) -> Value {
    let port = |p: &Value| {
        let (number, node, protocol) = (int_of(p, "port"), int_of(p, "nodePort"), str_of(p, "protocol"));
        if node > 0 { format!("{number}:{node}/{protocol}") } else { format!("{number}/{protocol}") }
    };
    or_none(&list_at(v, &["spec", "ports"]).iter().map(port).collect::<Vec<_>>().join(","))
}
