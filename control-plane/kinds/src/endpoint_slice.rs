//! EndpointSlice.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;
use triarch_registry::{GenerationRule, Kind};

use crate::describe;
use crate::field::{self, Path};
use crate::print::{AGE, NAME, text};
use crate::value::{default, each_mut, entries, get, is_set, list, opt, opt_int, str_of};
use crate::{ip, meta};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_TOPOLOGY: usize = 16;
const MAX_HINTS: usize = 8;
/// So many entries are shown in a cell.
const SHOWN: usize = 3;

pub static KIND: Kind = Kind {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    list_kind: "EndpointSliceList",
    plural: "endpointslices",
    singular: "endpointslice",
    schema: "discovery/v1.EndpointSlice",
    resource: "endpointslices.discovery.k8s.io",
    columns: &[
        NAME,
        text("AddressType", describe::SLICE_ADDRESS_TYPE, |v, _| str_of(v, "addressType").into()),
        text("Ports", describe::SLICE_PORTS, |v, _| ports_cell(v).into()),
        text("Endpoints", describe::SLICE_ENDPOINTS, |v, _| endpoints_cell(v).into()),
        AGE,
    ],
    generation: GenerationRule::AllButMetadata,
    validate_name: meta::subdomain_name,
    defaults: |v| {
        for port in each_mut(v, "ports") {
            default(port, "name", "");
            default(port, "protocol", "TCP");
        }
    },
    validate: |_, v, errs| validate(errs, v),
    validate_update: |_, new, old, errs| {
        field::immutable(errs, "addressType", get(new, "addressType"), get(old, "addressType"));
    },
    ..Kind::BASE
};

fn validate(errs: &mut ErrorList, v: &Value) {
    let kind = str_of(v, "addressType");
    field::one_of(errs, &Path::new("addressType"), kind, &["FQDN", "IPv4", "IPv6"]);
    let (p, endpoints) = (Path::new("endpoints"), list(v, "endpoints"));
    if endpoints.len() > MAX_ENDPOINTS {
        field::too_many(errs, &p, endpoints.len(), MAX_ENDPOINTS);
    } else {
        for (i, e) in endpoints.iter().enumerate() {
            endpoint(errs, &p.index(i), e, kind);
        }
    }
    ports(errs, &Path::new("ports"), list(v, "ports"));
}

fn endpoint(errs: &mut ErrorList, p: &Path, e: &Value, kind: &str) {
    let (at, addresses) = (p.child("addresses"), list(e, "addresses"));
    if addresses.is_empty() {
        field::required(errs, &at, "must contain at least 1 address");
    } else if addresses.len() > MAX_ADDRESSES {
        field::too_many(errs, &at, addresses.len(), MAX_ADDRESSES);
    }
    for (i, a) in addresses.iter().enumerate() {
        let (at, a) = (at.index(i), a.as_str().unwrap_or(""));
        match kind {
            "IPv4" => {
                if a.parse::<Ipv4Addr>().is_err() {
                    field::invalid(errs, &at, a, "must be an IPv4 address");
                }
                ip::not_special(errs, &at, a);
            }
            "IPv6" => {
                if a.parse::<Ipv6Addr>().is_err() {
                    field::invalid(errs, &at, a, "must be an IPv6 address");
                }
                ip::not_special(errs, &at, a);
            }
            "FQDN" => fully_qualified(errs, &at, a),
            _ => {}
        }
    }
    if is_set(e, "nodeName") {
        meta::dns1123_subdomain(errs, &p.child("nodeName"), str_of(e, "nodeName"));
    }
    let topology = entries(e, "deprecatedTopology");
    if topology.len() > MAX_TOPOLOGY {
        field::too_many(errs, p.child("deprecatedTopology"), topology.len(), MAX_TOPOLOGY);
    }
    meta::labels(errs, &p.child("deprecatedTopology"), e, "deprecatedTopology");
    if is_set(e, "hostname") {
        meta::dns1123_label(errs, &p.child("hostname"), str_of(e, "hostname"));
    }
    if let Some(hints) = opt(e, "hints") {
        for key in ["forZones", "forNodes"] {
            let (p, hints) = (p.child("hints").child(key), list(hints, key));
            if hints.len() > MAX_HINTS {
                field::too_many(errs, &p, hints.len(), MAX_HINTS);
            }
            let mut seen = BTreeSet::new();
            for (i, hint) in hints.iter().enumerate() {
                let (p, name) = (p.index(i).child("name"), str_of(hint, "name"));
                if !seen.insert(name) {
                    field::duplicate(errs, &p, name);
                }
                if key == "forZones" {
                    field::invalid_each(errs, &p, name, names::label_value(name));
                } else {
                    meta::dns1123_subdomain(errs, &p, name);
                }
            }
        }
    }
}

fn fully_qualified(errs: &mut ErrorList, p: &Path, name: &str) {
    let trimmed = name.strip_suffix('.').unwrap_or(name);
    if trimmed.is_empty() {
        field::required(errs, p, "");
        return;
    }
    let messages = names::dns1123_subdomain(trimmed);
    if !messages.is_empty() {
        field::invalid(errs, p, name, messages.join(","));
    } else if trimmed.split('.').count() < 2 {
        field::invalid(errs, p, name, "should be a domain with at least two segments separated by dots");
    }
}

fn ports(errs: &mut ErrorList, p: &Path, ports: &[Value]) {
    if ports.len() > MAX_PORTS {
        field::too_many(errs, p, ports.len(), MAX_PORTS);
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let (p, name) = (p.index(i), str_of(port, "name"));
        if !name.is_empty() {
            meta::dns1123_label(errs, &p.child("name"), name);
        }
        if !seen.insert(name) {
            field::duplicate(errs, p.child("name"), name);
        }
        field::one_of(errs, &p.child("protocol"), str_of(port, "protocol"), &["SCTP", "TCP", "UDP"]);
        if let Some(number) = opt_int(port, "port") {
            field::invalid_number(errs, &p.child("port"), number, names::port_number(number));
        }
        if is_set(port, "appProtocol") {
            meta::label_key(errs, &p.child("appProtocol"), str_of(port, "appProtocol"));
        }
    }
}

fn shown(all: &[String]) -> String {
    let text = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    match all.len() {
        n if n > SHOWN => format!("{text} + {} more...", n - SHOWN),
        _ if text.is_empty() => "<unset>".to_owned(),
        _ => text,
    }
}

fn ports_cell(v: &Value) -> String {
    let port = |p: &Value| match (opt_int(p, "port"), opt(p, "name").and_then(Value::as_str)) {
        (Some(n), _) => n.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "*".to_owned(),
    };
    shown(&list(v, "ports").iter().map(port).collect::<Vec<_>>())
}

fn endpoints_cell(v: &Value) -> String {
    let addresses = list(v, "endpoints").iter().flat_map(|e| list(e, "addresses"));
    shown(&addresses.map(|a| a.as_str().unwrap_or("").to_owned()).collect::<Vec<_>>())
}
