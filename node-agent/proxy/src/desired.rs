//! What the node's maps should hold for these Services and EndpointSlices. Pure.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{Endpoint, EndpointSlice, Protocol, Service};

/// One port of a service, as reached from inside or (where the policy differs)
/// from outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortKey {
    pub namespace: String,
    pub service: String,
    pub port: String,
    pub protocol: Protocol,
    pub external: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    pub endpoints: BTreeSet<(Ipv4Addr, u16)>,
    /// ClientIP affinity, seconds.
    pub affinity: Option<u32>,
}

/// Where traffic to an address or a node port goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    pub to: PortKey,
    /// The source address is rewritten to the node's.
    pub masquerade: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub backends: BTreeMap<PortKey, Backend>,
    pub addresses: BTreeMap<(Ipv4Addr, Protocol, u16), Target>,
    pub node_ports: BTreeMap<(Protocol, u16), Target>,
    /// Pods of this node that may reach themselves through a service.
    pub hairpin: BTreeSet<Ipv4Addr>,
}

/// The endpoints to use of all there are: ready ones; where none is ready, those
/// that still serve while they end.
fn usable<'a>(all: impl Iterator<Item = &'a Endpoint> + Clone) -> Vec<&'a Endpoint> {
    let ready: Vec<_> = all.clone().filter(|e| e.ready).collect();
    if !ready.is_empty() {
        return ready;
    }
    all.filter(|e| e.serving && e.terminating).collect()
}

/// The maps of node `node`.
pub fn desired<S: Borrow<Service>, E: Borrow<EndpointSlice>>(services: &[S], slices: &[E], node: &str) -> Desired {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let slice = slice.borrow();
        by_service.entry((&slice.namespace, &slice.service)).or_default().push(slice);
    }
    let mut out = Desired::default();
    for service in services {
        let service: &Service = service.borrow();
        let Some(cluster_ip) = service.cluster_ip else { continue };
        let slices = by_service.get(&(service.namespace.as_str(), service.name.as_str()));
        let slices = slices.map(Vec::as_slice).unwrap_or_default();
        for port in &service.ports {
            let all: Vec<(&Endpoint, u16)> = slices
                .iter()
                .flat_map(|s| {
                    let number = s.ports.iter().find(|(n, p, _)| *n == port.name && *p == port.protocol).map(|p| p.2);
                    s.endpoints.iter().filter_map(move |e| Some((e, number?)))
                })
                .collect();
            let choose = |local: bool| -> BTreeSet<(Ipv4Addr, u16)> {
                let pool = all.iter().filter(|(e, _)| !local || e.node == node);
                let good = usable(pool.clone().map(|(e, _)| *e));
                pool.filter(|(e, _)| good.iter().any(|g| std::ptr::eq(*g, *e))).map(|(e, p)| (e.ip, *p)).collect()
            };
            let key = |external: bool| PortKey {
                namespace: service.namespace.clone(),
                service: service.name.clone(),
                port: port.name.clone(),
                protocol: port.protocol,
                external,
            };
            let backend = |local: bool| Backend { endpoints: choose(local), affinity: service.affinity };
            out.backends.insert(key(false), backend(service.internal_local));
            let own_node = all.iter().filter(|(e, _)| e.node == node).map(|(e, _)| e.ip);
            out.hairpin.extend(own_node);
            let inside = Target { to: key(false), masquerade: false };
            out.addresses.insert((cluster_ip, port.protocol, port.port), inside);
            if port.node_port.is_none() && service.external_ips.is_empty() {
                continue;
            }
            // The outside needs its own endpoints where a policy sets it apart.
            let apart = service.external_local || service.internal_local;
            if apart {
                out.backends.insert(key(true), backend(service.external_local));
            }
            let outside = Target { to: key(apart), masquerade: !service.external_local };
            for ip in &service.external_ips {
                out.addresses.insert((*ip, port.protocol, port.port), outside.clone());
            }
            if let Some(node_port) = port.node_port {
                out.node_ports.insert((port.protocol, node_port), outside);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(spec: serde_json::Value) -> Service {
        Service::parse(&json!({"metadata": {"namespace": "d", "name": "web"}, "spec": spec}))
    }

    fn slice(endpoints: serde_json::Value) -> EndpointSlice {
        EndpointSlice::parse(&json!({
            "metadata": {"namespace": "d", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            "endpoints": endpoints,
        }))
    }

    fn ips(b: &Backend) -> Vec<String> {
        b.endpoints.iter().map(|(ip, port)| format!("{ip}:{port}")).collect()
    }

    #[test]
    fn only_ready_endpoints_serve_and_ending_ones_where_none_is_ready() {
        let s = service(json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]}));
        let two = slice(json!([
            {"addresses": ["10.1.0.1"], "conditions": {"ready": true}, "nodeName": "n1"},
            {"addresses": ["10.1.0.2"], "conditions": {"ready": false}, "nodeName": "n2"},
        ]));
        let d = desired(&[&s], &[&two], "n1");
        assert_eq!(ips(d.backends.values().next().expect("one")), ["10.1.0.1:8080"]);
        assert_eq!(d.hairpin.len(), 1, "only this node's pods");
        let ending = slice(json!([
            {"addresses": ["10.1.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        ]));
        assert_eq!(ips(desired(&[&s], &[&ending], "n1").backends.values().next().expect("one")), ["10.1.0.2:8080"]);
    }

    #[test]
    fn local_policies_and_node_ports_have_endpoints_of_their_own() {
        let ports = json!([{"name": "http", "port": 80, "nodePort": 30080}]);
        let s = service(json!({"clusterIP": "10.96.0.5", "ports": ports, "externalTrafficPolicy": "Local"}));
        let two = slice(json!([
            {"addresses": ["10.1.0.1"], "nodeName": "n1"}, {"addresses": ["10.2.0.1"], "nodeName": "n2"},
        ]));
        let d = desired(&[&s], &[&two], "n1");
        let np = &d.node_ports[&(Protocol::Tcp, 30080)];
        assert!(np.to.external && !np.masquerade);
        assert_eq!(ips(&d.backends[&np.to]), ["10.1.0.1:8080"]);
        let inside = &d.addresses[&("10.96.0.5".parse().expect("an address"), Protocol::Tcp, 80)];
        assert_eq!(d.backends[&inside.to].endpoints.len(), 2);
    }

    #[test]
    fn headless_and_external_name_services_have_no_rules() {
        let headless = service(json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}));
        assert_eq!(desired::<&Service, &EndpointSlice>(&[&headless], &[], "n1"), Desired::default());
    }
}
