//! Which ports of the node belong to its pods.

use triarch_kubelet::Kubelet;
use triarch_kubelet::model::{Pod, PodStatus};
use triarch_proxy::{HostPort, Protocol};

/// Those of all pods that run here and have an address.
pub fn wanted(kubelet: &Kubelet) -> Vec<HostPort> {
    let mut all: Vec<HostPort> = kubelet.running().iter().flat_map(|(pod, status)| of(pod, status)).collect();
    all.sort();
    all
}

/// A pod in the node's own network has its ports there by itself.
pub fn any(pod: &Pod) -> bool {
    !pod.spec.host_network && pod.all_containers().any(|(c, _)| c.ports.iter().any(|p| p.host_port > 0))
}

fn of(pod: &Pod, status: &PodStatus) -> Vec<HostPort> {
    let Ok(pod_ip) = status.pod_ip.parse() else { return Vec::new() };
    if !any(pod) {
        return Vec::new();
    }
    let ports = pod.all_containers().flat_map(|(c, _)| &c.ports).filter(|p| p.host_port > 0);
    ports
        .map(|p| HostPort {
            namespace: pod.metadata.namespace.clone(),
            pod: pod.metadata.name.clone(),
            protocol: Protocol::parse(&p.protocol),
            host_ip: p.host_ip.parse().ok().filter(|ip: &std::net::Ipv4Addr| !ip.is_unspecified()),
            host_port: p.host_port,
            pod_ip,
            container_port: p.container_port,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ports(spec: serde_json::Value, ip: &str) -> Vec<String> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec})).expect("a pod");
        let status = PodStatus { pod_ip: ip.into(), ..PodStatus::default() };
        of(&pod, &status)
            .iter()
            .map(|p| format!("{:?} {} -> {}:{}", p.host_ip, p.host_port, p.pod_ip, p.container_port))
            .collect()
    }

    #[test]
    fn only_host_ports_of_pods_with_an_address_of_their_own_count() {
        let list = json!([{"containerPort": 80, "hostPort": 8080, "hostIP": "0.0.0.0"}, {"containerPort": 81}]);
        let spec = |host_network: bool| json!({"hostNetwork": host_network, "containers": [{"name": "c", "image": "i", "ports": list}]});
        assert_eq!(ports(spec(false), "10.1.0.2"), ["None 8080 -> 10.1.0.2:80"]);
        assert!(ports(spec(false), "").is_empty() && ports(spec(true), "10.1.0.2").is_empty());
    }
}
