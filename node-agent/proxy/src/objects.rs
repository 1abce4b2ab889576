//! The parts of Service and EndpointSlice that a node's rules are made of.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn parse(text: &str) -> Protocol {
        match text {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub cluster_ip: Option<Ipv4Addr>,
    /// External IPs and a load balancer's.
    pub external_ips: Vec<Ipv4Addr>,
    pub ports: Vec<ServicePort>,
    /// ClientIP affinity, with its time-out in seconds.
    pub affinity: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointSlice {
    pub namespace: String,
    pub service: String,
    /// Name, protocol and number; a port without a number is none.
    pub ports: Vec<(String, Protocol, u16)>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub ip: Ipv4Addr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: String,
}

fn text<'a>(v: &'a Value, path: &str) -> &'a str {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(v: &'a Value, path: &str) -> &'a [Value] {
    v.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn port(v: Option<&Value>) -> Option<u16> {
    v.and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
}

impl Service {
    pub fn parse(v: &Value) -> Service {
        let ingress =
            list(v, "/status/loadBalancer/ingress").iter().filter_map(|i| i.get("ip")?.as_str()?.parse().ok());
        let own = list(v, "/spec/externalIPs").iter().filter_map(|i| i.as_str()?.parse().ok());
        let ports = list(v, "/spec/ports").iter().filter_map(|p| {
            Some(ServicePort {
                name: text(p, "/name").to_owned(),
                protocol: Protocol::parse(text(p, "/protocol")),
                port: port(p.get("port"))?,
                node_port: port(p.get("nodePort")),
            })
        });
        let affinity = (text(v, "/spec/sessionAffinity") == "ClientIP").then(|| {
            let seconds = v.pointer("/spec/sessionAffinityConfig/clientIP/timeoutSeconds").and_then(Value::as_u64);
            seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or(10_800)
        });
        Service {
            namespace: text(v, "/metadata/namespace").to_owned(),
            name: text(v, "/metadata/name").to_owned(),
            cluster_ip: text(v, "/spec/clusterIP").parse().ok().filter(|_| text(v, "/spec/type") != "ExternalName"),
            external_ips: own.chain(ingress).collect(),
            ports: ports.collect(),
            affinity,
            internal_local: text(v, "/spec/internalTrafficPolicy") == "Local",
            external_local: text(v, "/spec/externalTrafficPolicy") == "Local",
        }
    }
}

impl EndpointSlice {
    pub fn parse(v: &Value) -> EndpointSlice {
        let ports = list(v, "/ports").iter().filter_map(|p| {
            Some((text(p, "/name").to_owned(), Protocol::parse(text(p, "/protocol")), port(p.get("port"))?))
        });
        let endpoints = list(v, "/endpoints").iter().flat_map(|e| {
            let flag = |name: &str| e.pointer(&format!("/conditions/{name}")).and_then(Value::as_bool);
            let ready = flag("ready").unwrap_or(true);
            list(e, "/addresses").iter().filter_map(move |a| {
                Some(Endpoint {
                    ip: a.as_str()?.parse().ok()?,
                    ready,
                    serving: flag("serving").unwrap_or(ready),
                    terminating: flag("terminating").unwrap_or(false),
                    node: text(e, "/nodeName").to_owned(),
                })
            })
        });
        EndpointSlice {
            namespace: text(v, "/metadata/namespace").to_owned(),
            service: v
                .pointer("/metadata/labels")
                .and_then(|l| l.get("kubernetes.io/service-name"))
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        }
    }
}
