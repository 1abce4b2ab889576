//! Whether the node takes a pod that was bound to it: host ports only, since
//! whoever binds without the scheduler can still ask for one that is taken. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::Pod;

/// Host address (empty: all), protocol and port of everything a pod asks for.
fn host_ports(pod: &Pod) -> BTreeSet<(String, String, u16)> {
    let of_container = |c: &crate::model::Container, host_network: bool| -> Vec<_> {
        c.ports
            .iter()
            .filter_map(|p| {
                let number = if p.host_port > 0 { p.host_port } else { p.container_port };
                let protocol = if p.protocol.is_empty() { "TCP".to_owned() } else { p.protocol.clone() };
                let ip = if p.host_ip == "0.0.0.0" { String::new() } else { p.host_ip.clone() };
                (p.host_port > 0 || host_network).then_some((ip, protocol, number))
            })
            .collect()
    };
    pod.all_containers()
        .filter(|(c, init)| !init || c.is_sidecar(*init))
        .flat_map(|(c, _)| of_container(c, pod.spec.host_network))
        .collect()
}

/// Reason and message when `pod` cannot run beside `others`. A pod that was
/// taken before stays taken.
pub fn reject(pod: &Pod, others: &[Arc<Pod>]) -> Option<(String, String)> {
    if pod.status.start_time.is_some() || pod.is_deleted() {
        return None;
    }
    let wanted = host_ports(pod);
    if wanted.is_empty() {
        return None;
    }
    let clash = |a: &(String, String, u16), b: &(String, String, u16)| {
        a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || a.0.is_empty() || b.0.is_empty())
    };
    let taken = others.iter().filter(|o| o.metadata.uid != pod.metadata.uid).flat_map(|o| host_ports(o));
    for held in taken {
        if wanted.iter().any(|w| clash(w, &held)) {
            let text = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
            return Some(("NodePorts".into(), text.into()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, port: &str) -> Pod {
        let text =
            format!(r#"{{"metadata":{{"uid":"{uid}"}},"spec":{{"containers":[{{"name":"c","ports":[{port}]}}]}}}}"#);
        serde_json::from_str(&text).expect("a pod")
    }

    #[test]
    fn a_taken_host_port_is_refused_and_another_address_or_protocol_is_not() {
        let held = [Arc::new(pod("a", r#"{"containerPort":80,"hostPort":8080,"hostIP":"192.0.2.1"}"#))];
        let clashes = |port: &str| reject(&pod("b", port), &held).is_some();
        assert!(clashes(r#"{"containerPort":1,"hostPort":8080}"#));
        assert!(clashes(r#"{"containerPort":1,"hostPort":8080,"hostIP":"192.0.2.1"}"#));
        assert!(!clashes(r#"{"containerPort":1,"hostPort":8080,"hostIP":"127.0.0.1"}"#));
        assert!(!clashes(r#"{"containerPort":1,"hostPort":8080,"protocol":"UDP"}"#));
        assert!(!clashes(r#"{"containerPort":8080}"#));
        assert!(reject(&held[0], &held).is_none(), "itself");
    }
}
