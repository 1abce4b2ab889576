//! A pod as the scheduler sees it: parsed once, compared often.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelector, Pod, PreferredSchedulingTerm, Toleration};
use triarch_controllers::Name;

use crate::resource::{Resources, requests};

/// A port on the node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Empty or `0.0.0.0`: every address.
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub name: Name,
    pub pod: Arc<Pod>,
    pub priority: i32,
    pub requests: Resources,
    /// With defaults for containers that ask for nothing.
    pub nonzero: Resources,
    pub host_ports: Vec<HostPort>,
}

impl PodInfo {
    pub fn new(name: Name, pod: Arc<Pod>) -> PodInfo {
        let spec = pod.spec.as_ref();
        let host_ports = spec
            .iter()
            .flat_map(|s| {
                s.containers
                    .iter()
                    .chain(s.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always")))
            })
            .flat_map(|c| c.ports.iter().flatten())
            .filter_map(|p| {
                Some(HostPort {
                    ip: p.host_ip.clone().unwrap_or_default(),
                    protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()),
                    port: p.host_port.filter(|h| *h > 0)?,
                })
            })
            .collect();
        PodInfo {
            name,
            priority: spec.and_then(|s| s.priority).unwrap_or(0),
            requests: requests(&pod, false),
            nonzero: requests(&pod, true),
            host_ports,
            pod,
        }
    }

    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    pub fn tolerations(&self) -> &[Toleration] {
        self.pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
    }

    pub fn wanted_node(&self) -> Option<&str> {
        triarch_controllers::pod_node(&self.pod)
    }

    pub fn node_selector(&self) -> Option<&std::collections::BTreeMap<String, String>> {
        self.pod.spec.as_ref()?.node_selector.as_ref().filter(|s| !s.is_empty())
    }

    pub fn required_affinity(&self) -> Option<&NodeSelector> {
        let affinity = self.pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        affinity.required_during_scheduling_ignored_during_execution.as_ref()
    }

    pub fn preferred_affinity(&self) -> &[PreferredSchedulingTerm] {
        let affinity = self.pod.spec.as_ref().and_then(|s| s.affinity.as_ref()?.node_affinity.as_ref());
        affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
    }

    pub fn never_preempts(&self) -> bool {
        self.pod.spec.as_ref().and_then(|s| s.preemption_policy.as_deref()) == Some("Never")
    }
}

/// Whether a pod is this scheduler's to place now.
pub fn wants_node(pod: &Pod, scheduler: &str) -> bool {
    let Some(spec) = pod.spec.as_ref() else { return false };
    let ours = spec.scheduler_name.as_deref().unwrap_or("default-scheduler") == scheduler;
    ours && triarch_controllers::pod_node(pod).is_none()
        && triarch_controllers::pod_active(pod)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}
