//! Scheduling scenarios: pods and nodes in, a node or the reasons out.

use std::sync::Arc;

use serde_json::{Value, json};
use triarch_controllers::Name;
use triarch_controllers::testing::merge;

use super::*;

fn node(name: &str, extra: Value) -> Value {
    let mut n = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}});
    merge(&mut n, &extra);
    n
}

fn pod(name: &str, spec: Value) -> PodInfo {
    let mut p =
        json!({"metadata": {"name": name, "namespace": "d", "uid": name}, "spec": {"containers": [{"name": "c"}]}});
    merge(&mut p["spec"], &spec);
    PodInfo::new(Name::new("d", name), Arc::new(serde_json::from_value(p).unwrap()))
}

fn cpu(amount: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]})
}

fn cluster(nodes: &[Value]) -> Cache {
    let mut c = Cache::default();
    nodes.iter().for_each(|n| c.set_node(Arc::new(serde_json::from_value(n.clone()).unwrap())));
    c
}

fn place(p: &PodInfo, c: &Cache) -> String {
    schedule(p, c, 0, 0).map(|c| c.node).unwrap_or_else(|d| d.message(false))
}

#[test]
fn every_filter_says_why_in_upstreams_words() {
    let three = |extra: Value| cluster(&[node("a", extra.clone()), node("b", extra.clone()), node("c", extra)]);
    let why = |p: &PodInfo, c: &Cache| place(p, c).split(" preemption").next().unwrap().to_owned();
    assert_eq!(why(&pod("p", cpu("3")), &three(json!({}))), "0/3 nodes are available: 3 Insufficient cpu.");
    let cordoned = three(json!({"spec": {"unschedulable": true}}));
    assert_eq!(why(&pod("p", json!({})), &cordoned), "0/3 nodes are available: 3 node(s) were unschedulable.");
    let tainted = three(json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}));
    assert_eq!(why(&pod("p", json!({})), &tainted), "0/3 nodes are available: 3 node(s) had untolerated taint(s).");
    assert_eq!(
        why(&pod("p", json!({"nodeSelector": {"disk": "ssd"}})), &three(json!({}))),
        "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    );
    let full = three(json!({"status": {"allocatable": {"pods": "0"}}}));
    assert_eq!(why(&pod("p", json!({})), &full), "0/3 nodes are available: 3 Too many pods.");
    assert_eq!(place(&pod("p", json!({})), &cluster(&[])), "no nodes available to schedule pods");
}

#[test]
fn several_shortages_of_one_node_are_all_told() {
    let c = cluster(&[node("a", json!({}))]);
    let p = pod(
        "p",
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "3", "memory": "8Gi", "x/gpu": "1"}}}]}),
    );
    assert_eq!(
        place(&p, &c),
        "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Insufficient x/gpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
}

#[test]
fn tolerations_selectors_and_affinity_let_a_pod_in() {
    let c = cluster(&[
        node("a", json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}})),
        node("b", json!({"metadata": {"labels": {"disk": "ssd", "size": "5"}}})),
    ]);
    let tolerant =
        json!({"tolerations": [{"key": "k", "operator": "Exists"}], "nodeSelector": {"kubernetes.io/hostname": "a"}});
    assert_eq!(place(&pod("p", tolerant), &c), "a");
    let affinity = |expr: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [expr]}]}}}})
    };
    assert_eq!(place(&pod("p", affinity(json!({"key": "disk", "operator": "In", "values": ["ssd"]}))), &c), "b");
    assert_eq!(place(&pod("p", affinity(json!({"key": "size", "operator": "Gt", "values": ["4"]}))), &c), "b");
    assert!(
        place(&pod("p", affinity(json!({"key": "size", "operator": "Gt", "values": ["5"]}))), &c).starts_with("0/2")
    );
}

#[test]
fn a_host_port_is_taken_once_per_node() {
    let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    let mut c = cluster(&[node("a", json!({})), node("b", json!({}))]);
    let mut on = Vec::new();
    for i in 0..2 {
        let p = pod(&format!("p{i}"), port.clone());
        let n = place(&p, &c);
        c.place(&p, &n, true);
        on.push(n);
    }
    on.sort();
    assert_eq!(on, ["a", "b"]);
    assert!(place(&pod("p3", port), &c).contains("2 node(s) didn't have free ports for the requested pod ports"));
}

#[test]
fn the_least_allocated_node_is_chosen_and_a_preference_outweighs_it() {
    let mut c = cluster(&[node("a", json!({})), node("b", json!({"metadata": {"labels": {"disk": "ssd"}}}))]);
    c.place(&pod("x", cpu("1")), "b", false);
    assert_eq!(place(&pod("p", cpu("100m")), &c), "a");
    let mut wish = cpu("100m");
    merge(
        &mut wish,
        &json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}}}),
    );
    assert_eq!(place(&pod("p", wish), &c), "b");
}

#[test]
fn a_node_with_a_preferred_taint_is_the_last_choice() {
    let c = cluster(&[
        node("a", json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}})),
        node("b", json!({})),
    ]);
    assert_eq!(place(&pod("p", json!({})), &c), "b");
}

#[test]
fn pods_spread_evenly_over_equal_nodes() {
    let mut c = cluster(&(0..5).map(|i| node(&format!("n{i}"), json!({}))).collect::<Vec<_>>());
    for i in 0..20 {
        let p = pod(&format!("p{i}"), json!({}));
        let n = place(&p, &c);
        c.place(&p, &n, true);
    }
    let counts: Vec<i64> = (0..5).map(|i| c.nth(i).pods).collect();
    assert_eq!(counts, [4; 5]);
}

#[test]
fn a_large_cluster_is_sampled_from_a_rotating_start() {
    assert_eq!(
        (feasible_enough(99), feasible_enough(100), feasible_enough(1000), feasible_enough(10_000)),
        (99, 100, 420, 500)
    );
    let c = cluster(&(0..300).map(|i| node(&format!("n{i:03}"), json!({}))).collect::<Vec<_>>());
    let choice = schedule(&pod("p", json!({})), &c, 290, 0).unwrap();
    assert_eq!(choice.examined, feasible_enough(300));
    assert_eq!(choice.node, "n290", "of equals the random number decides, here the first looked at");
}
