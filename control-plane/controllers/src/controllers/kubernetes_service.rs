//! The Service `kubernetes` in `default`, with every replica's advertise address behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::Change;
use crate::*;

/// How often the replicas' addresses are looked at.
const INTERVAL: Duration = Duration::from_secs(10);
const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";

/// The replicas that serve the API, as nodes and pods reach them.
pub trait ApiEndpoints: Send + Sync + 'static {
    fn now(&self) -> Vec<SocketAddr>;
}

impl ApiEndpoints for Vec<SocketAddr> {
    fn now(&self) -> Vec<SocketAddr> {
        self.clone()
    }
}

pub struct KubernetesService {
    endpoints: Arc<dyn ApiEndpoints>,
    ip: IpAddr,
}

impl KubernetesService {
    pub fn new(endpoints: Arc<dyn ApiEndpoints>, ip: IpAddr) -> KubernetesService {
        KubernetesService { endpoints, ip }
    }

    /// The one key of this controller: who knows that the replicas have changed pokes it.
    pub fn key() -> Key {
        Key::new(resources::SERVICES, Name::new(NAMESPACE, NAME))
    }
}

impl Controller for KubernetesService {
    fn name(&self) -> &'static str {
        "kubernetes-service"
    }

    fn keys(&self, _: &World, change: &Change, out: &mut Vec<Key>) {
        let ours = matches!(change.resource, resources::SERVICES | resources::ENDPOINTS | resources::ENDPOINT_SLICES)
            && (&*change.name.namespace, &*change.name.name) == (NAMESPACE, NAME);
        if ours || (change.resource == resources::NAMESPACES && &*change.name.name == NAMESPACE) {
            out.push(KubernetesService::key());
        }
    }

    fn first(&self) -> Vec<Key> {
        vec![KubernetesService::key()]
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let mut plan = Plan::default();
        plan.after(key, INTERVAL);
        if cx.world.namespaces.named(NAMESPACE).is_none() {
            return plan;
        }
        let mut all = self.endpoints.now();
        all.retain(|a| a.is_ipv4() == self.ip.is_ipv4());
        all.sort();
        all.dedup();
        let port = all.first().map_or(6443, SocketAddr::port);
        let family = if self.ip.is_ipv4() { "IPv4" } else { "IPv6" };
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"type": "ClusterIP", "clusterIP": self.ip.to_string(), "sessionAffinity": "None",
                "ipFamilies": [family], "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]},
        });
        match cx.world.services.get(&key.name) {
            None => plan.push(Op::Create { resource: resources::SERVICES, object: service }),
            Some(have) => {
                let have = to_value(&**have);
                let (now, want) = (&have["spec"]["ports"][0], &service["spec"]["ports"][0]);
                if ["name", "port", "protocol", "targetPort"].iter().any(|f| now[f] != want[f]) {
                    let patch = json!({"spec": {"ports": service["spec"]["ports"]}});
                    plan.push(Op::Patch {
                        resource: resources::SERVICES,
                        name: key.name.clone(),
                        subresource: None,
                        patch,
                    });
                }
            }
        }
        if all.is_empty() {
            return plan;
        }
        let addresses: Vec<Value> = all.iter().map(|a| json!({"ip": a.ip().to_string()})).collect();
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": addresses, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
        });
        let targets: Vec<Value> =
            all.iter().map(|a| json!({"addresses": [a.ip().to_string()], "conditions": {"ready": true}})).collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": NAME}},
            "endpoints": targets, "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        });
        let have = cx.world.endpoints.get(&key.name).map(|e| to_value(&**e));
        ensure(&mut plan, resources::ENDPOINTS, have, endpoints, &["subsets"]);
        let have = cx.world.endpoint_slices.get(&key.name).map(|e| to_value(&**e));
        ensure(&mut plan, resources::ENDPOINT_SLICES, have, slice, &["endpoints", "ports"]);
        plan
    }
}

/// Creates the object, or updates it when one of the fields differs.
fn ensure(plan: &mut Plan, resource: &'static str, have: Option<Value>, want: Value, fields: &[&str]) {
    match have {
        None => plan.push(Op::Create { resource, object: want }),
        Some(mut have) => {
            let differs =
                fields.iter().any(|f| have[*f] != want[*f]) || have["metadata"]["labels"] != want["metadata"]["labels"];
            if differs {
                for f in fields {
                    have[*f] = want[*f].clone();
                }
                have["metadata"]["labels"] = want["metadata"]["labels"].clone();
                plan.push(Op::Update { resource, object: have });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[test]
    fn the_service_and_both_kinds_of_endpoints_follow_the_replicas() {
        let addresses: Vec<SocketAddr> = vec!["10.0.0.2:6443".parse().unwrap(), "10.0.0.1:6443".parse().unwrap()];
        let c = KubernetesService::new(Arc::new(addresses), "10.96.0.1".parse().unwrap());
        let mut f = Fixture::new().put(resources::NAMESPACES, json!({"metadata": {"name": "default", "uid": "n"}}));
        let plan = f.reconcile(&c, &KubernetesService::key());
        let made: Vec<(&'static str, Value)> = plan
            .writes()
            .map(|w| match &w.op {
                Op::Create { resource, object } => (*resource, object.clone()),
                o => panic!("{o:?}"),
            })
            .collect();
        assert_eq!(
            made.iter().map(|m| m.0).collect::<Vec<_>>(),
            [resources::SERVICES, resources::ENDPOINTS, resources::ENDPOINT_SLICES]
        );
        assert_eq!(made[1].1["subsets"][0]["addresses"], json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]));
        for (r, mut o) in made {
            o["metadata"]["uid"] = json!(r);
            f.set(r, o);
        }
        assert!(f.reconcile(&c, &KubernetesService::key()).is_empty());
        let c = KubernetesService::new(
            Arc::new(vec!["10.0.0.1:6443".parse::<SocketAddr>().unwrap()]),
            "10.96.0.1".parse().unwrap(),
        );
        assert_eq!(f.reconcile(&c, &KubernetesService::key()).writes().count(), 2, "a replica left");
    }
}
