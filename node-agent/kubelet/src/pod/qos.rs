//! Quality of service class and what follows from it for control groups.

use crate::model::{Pod, Resources};
use crate::quantity;
use crate::runtime::LinuxResources;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

fn nonzero(map: &std::collections::BTreeMap<String, String>, key: &str) -> Option<i64> {
    map.get(key).and_then(|q| quantity::milli(q)).filter(|n| *n > 0)
}

/// The class by upstream's rule: cpu and memory only.
pub fn class(pod: &Pod) -> Qos {
    let mut any = false;
    let mut guaranteed = true;
    for (c, _) in pod.all_containers() {
        for key in ["cpu", "memory"] {
            let (request, limit) = (nonzero(&c.resources.requests, key), nonzero(&c.resources.limits, key));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// `ROOT/kubepods/burstable/podUID`, `ROOT/kubepods/podUID` when Guaranteed.
pub fn cgroup_parent(root: &str, pod: &Pod) -> String {
    let uid = &pod.metadata.uid;
    let root = root.trim_end_matches('/');
    match class(pod) {
        Qos::Guaranteed => format!("{root}/kubepods/pod{uid}"),
        Qos::Burstable => format!("{root}/kubepods/burstable/pod{uid}"),
        Qos::BestEffort => format!("{root}/kubepods/besteffort/pod{uid}"),
    }
}

const PERIOD: i64 = 100_000;

/// A container's share of cpu, its quota and its memory, with the likelihood
/// of being chosen when memory runs out.
pub fn linux_resources(pod: &Pod, resources: &Resources, node_memory: i64) -> LinuxResources {
    let limit = nonzero(&resources.limits, "cpu");
    let request = resources.requests.get("cpu").and_then(|q| quantity::milli(q)).or(limit).unwrap_or(0);
    let cpu_shares = if request <= 0 { 2 } else { (request * 1024 / 1000).clamp(2, 262_144) };
    let cpu_quota = limit.map_or(0, |m| (m * PERIOD / 1000).max(1000));
    let bytes = |map: &std::collections::BTreeMap<String, String>| map.get("memory").and_then(|q| quantity::whole(q));
    let memory_limit = bytes(&resources.limits).unwrap_or(0).max(0);
    let oom_score_adj = match class(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = bytes(&resources.requests).or(bytes(&resources.limits)).unwrap_or(0);
            let adj = if node_memory > 0 {
                1000 - (1000 * i128::from(request) / i128::from(node_memory)) as i64
            } else {
                999
            };
            adj.clamp(3, 999)
        }
    };
    let cpu_period = if cpu_quota > 0 { PERIOD } else { 0 };
    LinuxResources { cpu_shares, cpu_quota, cpu_period, memory_limit, oom_score_adj }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: &str) -> Pod {
        let text =
            format!(r#"{{"metadata":{{"uid":"u"}},"spec":{{"containers":[{{"name":"c","resources":{resources}}}]}}}}"#);
        serde_json::from_str(&text).expect("a pod")
    }

    #[test]
    fn the_class_follows_requests_and_limits() {
        assert_eq!(class(&pod("{}")), Qos::BestEffort);
        assert_eq!(class(&pod(r#"{"requests":{"cpu":"1"}}"#)), Qos::Burstable);
        let equal = r#"{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"1000m","memory":"1Gi"}}"#;
        assert_eq!(class(&pod(equal)), Qos::Guaranteed);
        assert_eq!(class(&pod(r#"{"limits":{"cpu":"1","memory":"1Gi"}}"#)), Qos::Guaranteed);
        assert_eq!(class(&pod(r#"{"limits":{"cpu":"1"}}"#)), Qos::Burstable);
    }

    #[test]
    fn control_groups_nest_by_class_under_the_nodes_own_root() {
        assert_eq!(cgroup_parent("/triarch-n1", &pod("{}")), "/triarch-n1/kubepods/besteffort/podu");
    }

    #[test]
    fn cpu_and_memory_become_shares_quota_and_bytes() {
        let p = pod(r#"{"limits":{"cpu":"500m","memory":"64Mi"},"requests":{"cpu":"250m","memory":"32Mi"}}"#);
        let r = linux_resources(&p, &p.spec.containers[0].resources, 1 << 30);
        assert_eq!((r.cpu_shares, r.cpu_quota, r.cpu_period, r.memory_limit), (256, 50_000, 100_000, 64 << 20));
        assert_eq!(r.oom_score_adj, 1000 - 31);
        let none = pod("{}");
        assert_eq!(linux_resources(&none, &none.spec.containers[0].resources, 1 << 30).cpu_shares, 2);
    }
}
