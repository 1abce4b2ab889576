//! EndpointSlices: at most a hundred endpoints each, moved as little as possible.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;

const MAX_ENDPOINTS: usize = 100;
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const HEADLESS: &str = "service.kubernetes.io/headless";

pub struct Slices;

impl Controller for Slices {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn keys(&self, world: &World, change: &Change, out: &mut Vec<Key>) {
        if change.resource == resources::ENDPOINT_SLICES {
            // Somebody else changed or deleted one of ours.
            for m in [&change.old, &change.new].into_iter().flatten().filter_map(Any::metadata) {
                if label(m, MANAGED_BY) == Some(MANAGER)
                    && let Some(service) = label(m, SERVICE_NAME)
                {
                    out.push(Key::new(resources::SERVICES, Name::new(&change.name.namespace, service)));
                }
            }
        }
        services_of(world, change, out);
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let mut plan = Plan::default();
        // The slices of a Service that is gone are its dependents.
        let Some(svc) = cx.world.services.get(&key.name).filter(|s| !deleting(&s.metadata)) else { return plan };
        if selector_of(svc).is_none() {
            return plan;
        }
        let ours: Vec<&Arc<EndpointSlice>> = cx
            .world
            .slices_of(&key.name)
            .into_iter()
            .filter(|s| label(&s.metadata, MANAGED_BY) == Some(MANAGER) && !deleting(&s.metadata))
            .collect();
        let families = families(svc);
        let mut groups: BTreeMap<(String, Vec<Port>), Vec<Endpoint>> = BTreeMap::new();
        let pods = pods_of(cx.world, svc);
        plan.cooldown = PER_POD * pods.len() as u32;
        for pod in pods {
            let ports = ports_on(svc, pod);
            for family in &families {
                if let Some(ip) = address(pod, family) {
                    let group = groups.entry((family.clone(), ports.clone())).or_default();
                    group.push(endpoint(cx.world, svc, pod, ip));
                }
            }
        }
        // A Service without endpoints keeps one empty slice per family.
        for family in &families {
            if !groups.keys().any(|(f, _)| f == family) {
                groups.insert((family.clone(), Vec::new()), Vec::new());
            }
        }
        let mut spare: Vec<&Arc<EndpointSlice>> = Vec::new();
        for slice in &ours {
            if !groups.keys().any(|(f, p)| *f == slice.address_type && same_ports(p, slice)) {
                spare.push(slice);
            }
        }
        let mut writes: Vec<Op> = Vec::new();
        for ((family, ports), wanted) in groups {
            let mine: Vec<_> =
                ours.iter().filter(|s| s.address_type == family && same_ports(&ports, s)).copied().collect();
            fill(svc, &family, &ports, wanted, &mine, &mut spare, &mut writes);
        }
        for slice in spare {
            let name = name_of(&slice.metadata);
            let options = DeleteOptions { uid: slice.metadata.uid.clone(), ..DeleteOptions::default() };
            writes.push(Op::Delete { resource: resources::ENDPOINT_SLICES, name, options });
        }
        writes.into_iter().for_each(|w| plan.push(w));
        plan
    }
}

/// Spreads `wanted` over the slices of one family and set of ports: endpoints
/// stay where they are, new ones go to slices that are written anyway, then to
/// the fullest with room, then to spare or new slices.
fn fill<'a>(
    svc: &Service,
    family: &str,
    ports: &[Port],
    wanted: Vec<Endpoint>,
    mine: &[&'a Arc<EndpointSlice>],
    spare: &mut Vec<&'a Arc<EndpointSlice>>,
    writes: &mut Vec<Op>,
) {
    let identity = |e: &Endpoint| {
        let uid = e.target_ref.as_ref().and_then(|r| r.uid.clone());
        (uid.unwrap_or_default(), e.addresses.first().cloned().unwrap_or_default())
    };
    let mut left: BTreeMap<_, Endpoint> = wanted.into_iter().map(|e| (identity(&e), e)).collect();
    let labels = labels(svc);
    let mut kept: Vec<(&'a Arc<EndpointSlice>, Vec<Endpoint>, bool)> = Vec::new();
    for slice in mine {
        let before = slice.endpoints.as_deref().unwrap_or_default();
        let now: Vec<Endpoint> = before.iter().filter_map(|e| left.remove(&identity(e))).collect();
        let dirty = now != before || slice.metadata.labels.as_ref() != Some(&labels) || !owned(slice, svc);
        kept.push((slice, now, dirty));
    }
    let mut new: Vec<Endpoint> = left.into_values().collect();
    // Slices that are written anyway take new endpoints first.
    for (_, now, dirty) in kept.iter_mut().filter(|k| k.2) {
        debug_assert!(*dirty);
        take(&mut new, now);
    }
    if !new.is_empty() {
        let mut clean: Vec<_> = kept.iter_mut().filter(|k| !k.2 && k.1.len() + new.len() <= MAX_ENDPOINTS).collect();
        clean.sort_by_key(|k| std::cmp::Reverse(k.1.len()));
        if let Some(k) = clean.into_iter().next() {
            take(&mut new, &mut k.1);
            k.2 = true;
        }
    }
    let keep_one = kept.iter().all(|k| k.1.is_empty()) && new.is_empty();
    for (i, (slice, now, dirty)) in kept.into_iter().enumerate() {
        if now.is_empty() && !(keep_one && i == 0) {
            spare.push(slice);
        } else if dirty {
            writes.push(update(svc, slice, ports, now));
        }
    }
    let mut first = mine.is_empty();
    while !new.is_empty() || std::mem::take(&mut first) {
        let mut now = Vec::new();
        take(&mut new, &mut now);
        first = false;
        match spare.iter().position(|s| s.address_type == family) {
            Some(i) => writes.push(update(svc, spare.remove(i), ports, now)),
            None => {
                let slice = EndpointSlice {
                    address_type: family.to_owned(),
                    endpoints: Some(now),
                    metadata: ObjectMeta {
                        generate_name: Some(format!("{}-", svc.metadata.name.as_deref().unwrap_or_default())),
                        namespace: svc.metadata.namespace.clone(),
                        labels: Some(labels.clone()),
                        owner_references: Some(vec![controller_ref(svc)]),
                        ..ObjectMeta::default()
                    },
                    ports: Some(slice_ports(ports)),
                };
                writes.push(Op::Create { resource: resources::ENDPOINT_SLICES, object: to_value(&slice) });
            }
        }
    }
}

fn take(from: &mut Vec<Endpoint>, to: &mut Vec<Endpoint>) {
    let n = MAX_ENDPOINTS.saturating_sub(to.len()).min(from.len());
    to.extend(from.drain(..n));
}

fn owned(slice: &EndpointSlice, svc: &Service) -> bool {
    controller_of(&slice.metadata).is_some_and(|r| r.uid == uid(&svc.metadata))
}

fn update(svc: &Service, slice: &EndpointSlice, ports: &[Port], endpoints: Vec<Endpoint>) -> Op {
    let mut slice = slice.clone();
    slice.endpoints = Some(endpoints);
    slice.ports = Some(slice_ports(ports));
    slice.metadata.labels = Some(labels(svc));
    slice.metadata.owner_references = Some(vec![controller_ref(svc)]);
    Op::Update { resource: resources::ENDPOINT_SLICES, object: to_value(&slice) }
}

fn slice_ports(ports: &[Port]) -> Vec<EndpointPort> {
    let port = |(name, protocol, number, app): &Port| EndpointPort {
        app_protocol: app.clone(),
        name: Some(name.clone()),
        port: Some(*number),
        protocol: Some(protocol.clone()),
    };
    ports.iter().map(port).collect()
}

fn same_ports(ports: &[Port], slice: &EndpointSlice) -> bool {
    let mut a: Vec<Port> = ports.to_vec();
    let mut b: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(|p| {
            let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
            (p.name.clone().unwrap_or_default(), protocol, p.port.unwrap_or(0), p.app_protocol.clone())
        })
        .collect();
    a.sort();
    b.sort();
    a == b
}

/// The Service's labels, less what this controller sets itself.
fn labels(svc: &Service) -> BTreeMap<String, String> {
    let mut l = svc.metadata.labels.clone().unwrap_or_default();
    l.remove(HEADLESS);
    l.insert(SERVICE_NAME.into(), svc.metadata.name.clone().unwrap_or_default());
    l.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(svc) {
        l.insert(HEADLESS.into(), String::new());
    }
    l
}

fn endpoint(world: &World, svc: &Service, pod: &Pod, ip: String) -> Endpoint {
    let publish = svc.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true);
    let (serving, terminating) = (pod_ready(pod), deleting(&pod.metadata));
    let node = pod_node(pod);
    let zone = node
        .and_then(|n| world.nodes.named(n))
        .and_then(|n| label(&n.metadata, "topology.kubernetes.io/zone"))
        .map(str::to_owned);
    Endpoint {
        addresses: vec![ip],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(svc, pod),
        node_name: node.map(str::to_owned),
        target_ref: Some(reference(pod)),
        zone,
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;
    use serde_json::{Value, json};

    fn service() -> Value {
        json!({"metadata": {"name": "web", "namespace": "d", "uid": "svc-1", "labels": {"a": "b"}},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"],
                "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}})
    }

    fn pod(i: usize, ready: bool, extra: Value) -> Value {
        let ip = format!("10.244.{}.{}", i / 250, i % 250 + 1);
        let mut p = json!({"metadata": {"name": format!("p{i:04}"), "namespace": "d", "uid": format!("u{i}"), "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
        crate::testing::merge(&mut p, &extra);
        p
    }

    fn key() -> Key {
        Key::new(resources::SERVICES, Name::new("d", "web"))
    }

    /// Applies a plan's writes to the fixture, as the driver would.
    fn settle(f: &mut Fixture, plan: &Plan) {
        let mut n = f.world.revision;
        for w in plan.writes() {
            n += 1;
            match w.op.clone() {
                Op::Create { resource, mut object } => {
                    if object["metadata"].get("name").is_none() {
                        object["metadata"]["name"] = json!(format!("web-{n}"));
                    }
                    object["metadata"]["uid"] = json!(format!("slice-{n}"));
                    f.set(resource, object);
                }
                Op::Update { resource, object } => drop(f.set(resource, object)),
                Op::Delete { resource, name, .. } => drop(f.remove(resource, name)),
                o => panic!("{o:?}"),
            }
        }
    }

    #[test]
    fn an_endpoint_shows_readiness_termination_node_and_resolved_port() {
        let gone = json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}});
        let plan = Fixture::new()
            .put(resources::SERVICES, service())
            .put(resources::PODS, pod(0, true, json!({})))
            .put(resources::PODS, pod(1, false, json!({})))
            .put(resources::PODS, pod(2, true, gone))
            .put(resources::PODS, pod(3, true, json!({"status": {"phase": "Failed"}})))
            .reconcile(&Slices, &key());
        let Op::Create { object, .. } = &plan.writes().next().unwrap().op else { panic!("{plan:?}") };
        assert_eq!(object["metadata"]["labels"], json!({"a": "b", SERVICE_NAME: "web", MANAGED_BY: MANAGER}));
        assert_eq!(object["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
        let told: Vec<_> = object["endpoints"].as_array().unwrap().iter().map(|e| e["conditions"].clone()).collect();
        let c = |r: bool, s: bool, t: bool| json!({"ready": r, "serving": s, "terminating": t});
        assert_eq!(told, [c(true, true, false), c(false, false, false), c(false, true, true)]);
        assert_eq!(object["endpoints"][0]["nodeName"], "n1");
        assert_eq!(object["endpoints"][0]["targetRef"]["name"], "p0000");
    }

    #[test]
    fn slices_hold_a_hundred_and_a_change_touches_only_its_own() {
        let mut f = Fixture::new().put(resources::SERVICES, service());
        (0..250).for_each(|i| drop(f.set(resources::PODS, pod(i, true, json!({})))));
        let plan = f.reconcile(&Slices, &key());
        assert_eq!(plan.writes().count(), 3);
        settle(&mut f, &plan);
        assert!(f.reconcile(&Slices, &key()).is_empty());
        f.set(resources::PODS, pod(7, false, json!({})));
        let plan = f.reconcile(&Slices, &key());
        assert_eq!(plan.writes().count(), 1, "one slice is written");
        settle(&mut f, &plan);
        (250..260).for_each(|i| drop(f.set(resources::PODS, pod(i, true, json!({})))));
        let plan = f.reconcile(&Slices, &key());
        assert!(matches!(plan.writes().next().unwrap().op, Op::Update { .. }), "there is room in the last");
        assert_eq!(plan.writes().count(), 1);
    }

    #[test]
    fn a_service_without_pods_keeps_one_empty_slice() {
        let mut f = Fixture::new().put(resources::SERVICES, service()).put(resources::PODS, pod(0, true, json!({})));
        let plan = f.reconcile(&Slices, &key());
        settle(&mut f, &plan);
        f.remove(resources::PODS, Name::new("d", "p0000"));
        let plan = f.reconcile(&Slices, &key());
        settle(&mut f, &plan);
        assert!(f.reconcile(&Slices, &key()).is_empty());
        let left: Vec<_> = f.world.endpoint_slices.values().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].endpoints.as_deref(), Some(&[][..]));
    }
}
