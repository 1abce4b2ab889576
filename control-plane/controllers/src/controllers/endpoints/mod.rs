//! The pods behind each Service, as EndpointSlices and as Endpoints.

mod legacy;
mod slices;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::world::Change;
use crate::*;
pub use legacy::Legacy;
pub use slices::Slices;

/// Rest of a Service per endpoint, so that a large one is not computed anew for
/// each of its pods while they all start.
const PER_POD: std::time::Duration = std::time::Duration::from_micros(20);

/// `(name, protocol, number, appProtocol)` of an endpoint's port.
type Port = (String, String, i32, Option<String>);

/// The Services that a change of a Service or of a pod concerns.
fn services_of(world: &World, change: &Change, out: &mut Vec<Key>) {
    match change.resource {
        resources::SERVICES => out.push(Key::new(resources::SERVICES, change.name.clone())),
        resources::PODS => {
            if let (Some(Any::Pod(a)), Some(Any::Pod(b))) = (&change.old, &change.new)
                && same_for_endpoints(a, b)
            {
                return;
            }
            for (name, svc) in world.services.in_namespace(&change.name.namespace) {
                let Some(selector) = selector_of(svc) else { continue };
                let hit = [&change.old, &change.new]
                    .into_iter()
                    .flatten()
                    .filter_map(Any::metadata)
                    .any(|m| selector::subset(selector, m.labels.as_ref()));
                if hit {
                    out.push(Key::new(resources::SERVICES, name.clone()));
                }
            }
        }
        _ => {}
    }
}

/// Whether nothing that an endpoint shows differs, so that status updates of
/// other kinds wake nobody.
fn same_for_endpoints(a: &Pod, b: &Pod) -> bool {
    let ips = |p: &Pod| p.status.as_ref().and_then(|s| s.pod_ips.clone());
    let hostname = |p: &Pod| p.spec.as_ref().map(|s| (s.hostname.clone(), s.subdomain.clone()));
    a.metadata.labels == b.metadata.labels
        && pod_ready(a) == pod_ready(b)
        && pod_terminal(a) == pod_terminal(b)
        && deleting(&a.metadata) == deleting(&b.metadata)
        && pod_node(a) == pod_node(b)
        && ips(a) == ips(b)
        && hostname(a) == hostname(b)
}

/// The selector of a Service whose endpoints are ours to write.
fn selector_of(svc: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = svc.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|s| !s.is_empty())
}

/// The selected pods that have an address and have not finished, in name order.
fn pods_of<'a>(world: &'a World, svc: &'a Service) -> Vec<&'a Arc<Pod>> {
    let Some(selector) = selector_of(svc) else { return Vec::new() };
    world
        .pods
        .in_namespace(svc.metadata.namespace.as_deref().unwrap_or_default())
        .map(|(_, p)| p)
        .filter(|p| !pod_terminal(p) && selector::subset(selector, p.metadata.labels.as_ref()))
        .collect()
}

/// The pod's address of a family (`IPv4`, `IPv6`).
fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|i| &i.ip).chain(&status.pod_ip);
    let fits = |ip: &&String| ip.parse::<IpAddr>().is_ok_and(|a| a.is_ipv4() == (family == "IPv4"));
    all.into_iter().find(fits).cloned()
}

fn families(svc: &Service) -> Vec<String> {
    let spec = svc.spec.as_ref();
    let listed = spec.and_then(|s| s.ip_families.clone()).unwrap_or_default();
    if !listed.is_empty() {
        return listed;
    }
    let v6 =
        spec.and_then(|s| s.cluster_ip.as_ref()).and_then(|ip| ip.parse::<IpAddr>().ok()).is_some_and(|a| a.is_ipv6());
    vec![if v6 { "IPv6" } else { "IPv4" }.to_owned()]
}

fn is_headless(svc: &Service) -> bool {
    svc.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// The ports of a Service on one pod; a named target that the pod does not have is left out.
fn ports_on(svc: &Service, pod: &Pod) -> Vec<Port> {
    let ports = svc.spec.as_ref().and_then(|s| s.ports.as_ref());
    ports
        .into_iter()
        .flatten()
        .filter_map(|p| {
            let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
            let number = target(p, &protocol, pod)?;
            Some((p.name.clone().unwrap_or_default(), protocol, number, p.app_protocol.clone()))
        })
        .collect()
}

fn target(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        Some(IntOrString::Int(0)) | None => Some(port.port),
        Some(IntOrString::Int(n)) => Some(*n),
        Some(IntOrString::String(s)) if s.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars =
                spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let mut all = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
            all.find(|c| c.name.as_ref() == Some(name) && c.protocol.as_deref().unwrap_or("TCP") == protocol)
                .map(|c| c.container_port)
        }
    }
}

fn hostname(svc: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let ours = spec.subdomain == svc.metadata.name && pod.metadata.namespace == svc.metadata.namespace;
    spec.hostname.clone().filter(|h| !h.is_empty() && ours)
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
