//! How long one scheduling cycle takes in a cluster of a thousand nodes.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use triarch_controllers::Name;
use triarch_scheduler::cache::Cache;
use triarch_scheduler::pod_info::PodInfo;
use triarch_scheduler::schedule::schedule;

fn pod(i: usize) -> PodInfo {
    let p = json!({"metadata": {"name": format!("p{i}"), "namespace": "d", "uid": format!("u{i}")}, "spec": {
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}]}});
    PodInfo::new(Name::new("d", format!("p{i}")), Arc::new(serde_json::from_value(p).expect("a pod")))
}

fn cycle(c: &mut Criterion) {
    let mut nodes = Cache::default();
    for i in 0..1000 {
        let n = json!({"metadata": {"name": format!("n{i:04}"), "labels": {"zone": "a"}},
            "status": {"allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110"}}});
        nodes.set_node(Arc::new(serde_json::from_value(n).expect("a node")));
    }
    let (mut i, mut start, mut random) = (0, 0, 1u64);
    c.bench_function("schedule and assume, 1000 nodes", |b| {
        b.iter(|| {
            let p = pod(i % 50_000);
            i += 1;
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let choice = schedule(&p, &nodes, start, random >> 33).expect("there is room");
            start = (start + choice.examined) % nodes.len();
            nodes.place(&p, &choice.node, true);
        });
    });
}

criterion_group!(benches, cycle);
criterion_main!(benches);
