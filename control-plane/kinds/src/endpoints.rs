//! Endpoints.

use std::net::IpAddr;

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;
use triarch_registry::Kind;

use crate::describe;
use crate::field::{self, Path};
use crate::print::{AGE, NAME, text};
use crate::value::{default_str, each_mut, int_of, is_set, list, str_of};
use crate::{ip, meta};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// So many addresses are shown in a cell.
const SHOWN: usize = 3;

pub static KIND: Kind = Kind {
    kind: "Endpoints",
    list_kind: "EndpointsList",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    schema: "core/v1.Endpoints",
    resource: "endpoints",
    columns: &[NAME, text("Endpoints", describe::ENDPOINTS_SUBSETS, |v, _| cell(v).into()), AGE],
    create_on_update: true,
    validate_name: meta::subdomain_name,
    defaults: |v| {
        for subset in each_mut(v, "subsets") {
            for port in each_mut(subset, "ports") {
                default_str(port, "protocol", "TCP");
            }
        }
    },
    validate: |_, v, errs| validate(errs, v),
    warnings: |_, _| vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned()],
    ..Kind::BASE
};

fn validate(errs: &mut ErrorList, v: &Value) {
    for (i, subset) in list(v, "subsets").iter().enumerate() {
        let p = Path::new("subsets").index(i);
        let (ready, not_ready, ports) =
            (list(subset, "addresses"), list(subset, "notReadyAddresses"), list(subset, "ports"));
        if ready.is_empty() && not_ready.is_empty() {
            field::required(errs, &p, "must specify `addresses` or `notReadyAddresses`");
        }
        for (key, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            for (j, a) in addresses.iter().enumerate() {
                address(errs, &p.child(key).index(j), a);
            }
        }
        for (j, port) in ports.iter().enumerate() {
            port_rule(errs, &p.child("ports").index(j), port, ports.len() > 1);
        }
    }
}

fn address(errs: &mut ErrorList, p: &Path, a: &Value) {
    let text = str_of(a, "ip");
    ip::valid(errs, &p.child("ip"), text);
    if !str_of(a, "hostname").is_empty() {
        meta::dns1123_label(errs, &p.child("hostname"), str_of(a, "hostname"));
    }
    if is_set(a, "nodeName") {
        meta::dns1123_subdomain(errs, &p.child("nodeName"), str_of(a, "nodeName"));
    }
    ip::not_special(errs, &p.child("ip"), text);
}

fn port_rule(errs: &mut ErrorList, p: &Path, port: &Value, named: bool) {
    let (name, number) = (str_of(port, "name"), int_of(port, "port"));
    if named && name.is_empty() {
        field::required(errs, p.child("name"), "");
    } else if !name.is_empty() {
        meta::dns1123_label(errs, &p.child("name"), name);
    }
    field::invalid_number(errs, &p.child("port"), number, names::port_number(number));
    field::one_of(errs, &p.child("protocol"), str_of(port, "protocol"), &PROTOCOLS);
    if is_set(port, "appProtocol") {
        meta::label_key(errs, &p.child("appProtocol"), str_of(port, "appProtocol"));
    }
}

fn cell(v: &Value) -> String {
    let subsets = list(v, "subsets");
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let (mut shown, mut count) = (Vec::new(), 0);
    for subset in subsets {
        let addresses = list(subset, "addresses");
        // A headless service's endpoints may have no ports: then bare addresses.
        let bare = [Value::Null];
        let ports = if list(subset, "ports").is_empty() { &bare[..] } else { list(subset, "ports") };
        for port in ports {
            for a in addresses {
                if shown.len() < SHOWN {
                    shown.push(host_port(str_of(a, "ip"), port.get("port").and_then(Value::as_i64)));
                }
                count += 1;
            }
        }
    }
    let text = shown.join(",");
    if count > SHOWN { format!("{text} + {} more...", count - SHOWN) } else { text }
}

fn host_port(ip: &str, port: Option<i64>) -> String {
    match (port, ip.parse::<IpAddr>()) {
        (None, _) => ip.to_owned(),
        (Some(port), Ok(IpAddr::V6(_))) => format!("[{ip}]:{port}"),
        (Some(port), _) => format!("{ip}:{port}"),
    }
}
