//! Endpoints: the older form, one object per Service.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::slices::HEADLESS;
use super::*;

/// Addresses in one object; what is over it is left out and said in an annotation.
const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

pub struct Legacy;

impl Controller for Legacy {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn keys(&self, world: &World, change: &Change, out: &mut Vec<Key>) {
        if change.resource == resources::ENDPOINTS {
            out.push(Key::new(resources::SERVICES, change.name.clone()));
        }
        services_of(world, change, out);
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let have = cx.world.endpoints.get(&key.name);
        let Some(svc) = cx.world.services.get(&key.name) else {
            // Only our own go with their Service; others may have been made by hand.
            return match have.filter(|e| label(&e.metadata, MANAGED_BY) == Some(MANAGER)) {
                Some(e) => {
                    let options = DeleteOptions { uid: e.metadata.uid.clone(), ..DeleteOptions::default() };
                    Plan::one(Op::Delete { resource: resources::ENDPOINTS, name: key.name.clone(), options })
                }
                None => Plan::nothing(),
            };
        };
        if selector_of(svc).is_none() || deleting(&svc.metadata) {
            return Plan::nothing();
        }
        let publish = svc.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true);
        let family = families(svc).into_iter().next().unwrap_or_default();
        let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
        let (mut count, mut over) = (0, false);
        let pods = pods_of(cx.world, svc);
        let cooldown = PER_POD * pods.len() as u32;
        for pod in pods.into_iter().filter(|p| publish || !deleting(&p.metadata)) {
            let Some(ip) = address(pod, &family) else { continue };
            let ports = ports_on(svc, pod);
            if ports.is_empty() && !is_headless(svc) {
                continue;
            }
            if count == MAX_ADDRESSES {
                over = true;
                break;
            }
            count += 1;
            let a = EndpointAddress {
                hostname: hostname(svc, pod),
                ip,
                node_name: pod_node(pod).map(str::to_owned),
                target_ref: Some(reference(pod)),
            };
            let group = groups.entry(ports).or_default();
            if publish || pod_ready(pod) { group.0.push(a) } else { group.1.push(a) }
        }
        let subsets: Vec<EndpointSubset> =
            groups.into_iter().map(|(ports, (ready, not))| subset(ports, ready, not)).collect();
        let subsets = (!subsets.is_empty()).then_some(subsets);

        let mut labels = svc.metadata.labels.clone().unwrap_or_default();
        labels.remove(HEADLESS);
        labels.insert(MANAGED_BY.into(), MANAGER.into());
        if is_headless(svc) {
            labels.insert(HEADLESS.into(), String::new());
        }
        let mut wanted = match have {
            Some(e) => Endpoints::clone(e),
            None => Endpoints {
                metadata: ObjectMeta {
                    name: svc.metadata.name.clone(),
                    namespace: svc.metadata.namespace.clone(),
                    ..ObjectMeta::default()
                },
                subsets: None,
            },
        };
        wanted.subsets = subsets;
        wanted.metadata.labels = Some(labels);
        let mut annotations = wanted.metadata.annotations.take().unwrap_or_default();
        if over {
            annotations.insert(OVER_CAPACITY.into(), "truncated".into());
        } else {
            annotations.remove(OVER_CAPACITY);
        }
        wanted.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
        let plan = match have {
            Some(e) if **e == wanted => Plan::nothing(),
            Some(_) => Plan::one(Op::Update { resource: resources::ENDPOINTS, object: to_value(&wanted) }),
            None => Plan::one(Op::Create { resource: resources::ENDPOINTS, object: to_value(&wanted) }),
        };
        Plan { cooldown, ..plan }
    }
}

fn subset(ports: Vec<Port>, mut ready: Vec<EndpointAddress>, mut not: Vec<EndpointAddress>) -> EndpointSubset {
    let order = |a: &EndpointAddress| (a.ip.parse::<IpAddr>().ok(), a.target_ref.as_ref().and_then(|r| r.uid.clone()));
    ready.sort_by_key(order);
    not.sort_by_key(order);
    let ports: BTreeSet<Port> = ports.into_iter().collect();
    let ports: Vec<EndpointPort> = ports
        .into_iter()
        .map(|(name, protocol, port, app_protocol)| EndpointPort {
            app_protocol,
            name: (!name.is_empty()).then_some(name),
            port,
            protocol: Some(protocol),
        })
        .collect();
    EndpointSubset {
        addresses: (!ready.is_empty()).then_some(ready),
        not_ready_addresses: (!not.is_empty()).then_some(not),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;
    use serde_json::json;

    #[test]
    fn ready_and_unready_addresses_are_apart_and_terminating_ones_are_out() {
        let key = Key::new(resources::SERVICES, Name::new("d", "web"));
        let pod = |n: &str, ip: &str, ready: &str, gone: Option<&str>| {
            json!({"metadata": {"name": n, "namespace": "d", "uid": n, "labels": {"app": "web"}, "deletionTimestamp": gone},
                "spec": {"nodeName": "n1", "containers": []},
                "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}})
        };
        let mut f = Fixture::new()
            .put(
                resources::SERVICES,
                json!({"metadata": {"name": "web", "namespace": "d", "uid": "s"},
                "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}}),
            )
            .put(resources::PODS, pod("a", "10.0.0.10", "True", None))
            .put(resources::PODS, pod("b", "10.0.0.9", "True", None))
            .put(resources::PODS, pod("c", "10.0.0.1", "False", None))
            .put(resources::PODS, pod("d", "10.0.0.2", "True", Some("2020-01-01T00:00:00Z")));
        let Op::Create { object, .. } = f.reconcile(&Legacy, &key).writes().next().unwrap().op.clone() else {
            panic!()
        };
        let ips = |p: &str| -> Vec<String> {
            let list = object["subsets"][0][p].as_array().unwrap();
            list.iter().map(|a| a["ip"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(
            (ips("addresses"), ips("notReadyAddresses")),
            (vec!["10.0.0.9".into(), "10.0.0.10".into()], vec!["10.0.0.1".into()])
        );
        assert_eq!(object["subsets"][0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
        f.set(resources::ENDPOINTS, object);
        assert!(f.reconcile(&Legacy, &key).is_empty());
        f.remove(resources::SERVICES, Name::new("d", "web"));
        assert!(matches!(f.reconcile(&Legacy, &key).writes().next().unwrap().op, Op::Delete { .. }));
    }
}
