//! Ports of the node that belong to its pods (`hostPort`): one endpoint each,
//! through the same maps as Services. Pure.

use std::net::Ipv4Addr;

use crate::Protocol;
use crate::desired::{Backend, Desired, PortKey, Target};

/// One container port that is reached at the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub namespace: String,
    pub pod: String,
    pub protocol: Protocol,
    /// `None`: every address of the node.
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: u16,
    pub pod_ip: Ipv4Addr,
    pub container_port: u16,
}

impl Desired {
    /// Adds the node's own pods' ports. A Service's address or node port that
    /// is there already stays: it was promised to the whole cluster.
    pub fn add_host_ports(&mut self, ports: &[HostPort]) {
        for port in ports {
            let key = PortKey {
                namespace: port.namespace.clone(),
                service: format!("pod/{}", port.pod),
                port: format!("{}:{}", port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED), port.host_port),
                protocol: port.protocol,
                external: true,
            };
            let target = Target { to: key.clone(), masquerade: false };
            let taken = match port.host_ip {
                Some(ip) => {
                    let place = (ip, port.protocol, port.host_port);
                    *self.addresses.entry(place).or_insert_with(|| target.clone()) != target
                }
                None => {
                    *self.node_ports.entry((port.protocol, port.host_port)).or_insert_with(|| target.clone()) != target
                }
            };
            if !taken {
                let endpoints = [(port.pod_ip, port.container_port)].into();
                self.backends.insert(key, Backend { endpoints, affinity: None });
                self.hairpin.insert(port.pod_ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{EndpointSlice, Service, State, desired};

    fn port(pod: &str, host_ip: Option<&str>, host_port: u16) -> HostPort {
        HostPort {
            namespace: "d".into(),
            pod: pod.into(),
            protocol: Protocol::Tcp,
            host_ip: host_ip.map(|ip| ip.parse().expect("an address")),
            host_port,
            pod_ip: "10.1.0.9".parse().expect("an address"),
            container_port: 8080,
        }
    }

    #[test]
    fn a_pods_port_is_reached_at_every_address_of_the_node_or_at_the_one_it_names() {
        let mut want = Desired::default();
        want.add_host_ports(&[port("a", None, 80), port("a", Some("192.0.2.1"), 81)]);
        assert!(want.node_ports.contains_key(&(Protocol::Tcp, 80)));
        assert!(want.addresses.contains_key(&("192.0.2.1".parse().expect("an address"), Protocol::Tcp, 81)));
        let mut state = State::default();
        let script = state.update(&want).expect("a change").script;
        assert!(script.contains("tcp . 80 :") && script.contains("10.1.0.9 . 8080"), "{script}");
        assert_eq!(state.update(&want), None);
        // The pod goes, and so does its port.
        let script = state.update(&Desired::default()).expect("a change").script;
        assert!(script.contains("delete element ip triarch_v1 np { tcp . 80"), "{script}");
    }

    #[test]
    fn a_services_node_port_is_not_taken_over() {
        let service = Service::parse(&json!({"metadata": {"namespace": "d", "name": "web"}, "spec": {
            "clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}}));
        let before = desired::<&Service, &EndpointSlice>(&[&service], &[], "n1");
        let mut after = before.clone();
        after.add_host_ports(&[port("a", None, 30080)]);
        assert_eq!(after, before);
    }
}
