//! Amounts of resources: what nodes have and what pods ask for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use triarch_api::quantity::Quantity;

/// Counted for a container that asks for no CPU, when nodes are compared.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// Counted for a container that asks for no memory, in bytes.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// CPU in thousandths, the rest in their units; anything that is not one of the
/// three common resources is in `scalar`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub pods: i64,
    pub scalar: Vec<(Box<str>, i64)>,
}

type List = BTreeMap<String, Text>;

impl Resources {
    /// A quantity that cannot be read counts as 0: validation has refused it before.
    pub fn of(list: &List) -> Resources {
        let mut r = Resources::default();
        for (name, text) in list {
            let Ok(q) = Quantity::parse(&text.0) else { continue };
            match name.as_str() {
                "cpu" => r.milli_cpu = q.milli_value(),
                "memory" => r.memory = q.value(),
                "ephemeral-storage" => r.ephemeral_storage = q.value(),
                "pods" => r.pods = q.value(),
                other => r.set(other, q.value()),
            }
        }
        r
    }

    pub fn scalar(&self, name: &str) -> i64 {
        self.scalar.iter().find(|(n, _)| &**n == name).map_or(0, |(_, v)| *v)
    }

    fn set(&mut self, name: &str, value: i64) {
        match self.scalar.iter_mut().find(|(n, _)| &**n == name) {
            Some((_, v)) => *v = value,
            None => self.scalar.push((name.into(), value)),
        }
    }

    pub fn add(&mut self, other: &Resources) {
        self.each(other, |a, b| a.saturating_add(b));
    }

    pub fn sub(&mut self, other: &Resources) {
        self.each(other, |a, b| a.saturating_sub(b));
    }

    fn max(&mut self, other: &Resources) {
        self.each(other, i64::max);
    }

    fn each(&mut self, o: &Resources, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, o.milli_cpu);
        self.memory = f(self.memory, o.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, o.ephemeral_storage);
        for (name, v) in &o.scalar {
            let sum = f(self.scalar(name), *v);
            self.set(name, sum);
        }
    }
}

/// What a pod asks for: its containers together, or its largest init container
/// beside the sidecars started before it, whichever is more, and its overhead.
/// `nonzero`: containers that ask for nothing count as the defaults.
pub fn requests(pod: &Pod, nonzero: bool) -> Resources {
    let Some(spec) = pod.spec.as_ref() else { return Resources::default() };
    let of = |c: &Container| {
        let list = c.resources.as_ref().and_then(|r| r.requests.as_ref());
        let mut r = list.map(Resources::of).unwrap_or_default();
        if nonzero {
            let asks = |n: &str| list.is_some_and(|l| l.contains_key(n));
            if !asks("cpu") {
                r.milli_cpu = DEFAULT_MILLI_CPU;
            }
            if !asks("memory") {
                r.memory = DEFAULT_MEMORY;
            }
        }
        r
    };
    let mut total = Resources::default();
    spec.containers.iter().for_each(|c| total.add(&of(c)));
    let (mut sidecars, mut init) = (Resources::default(), Resources::default());
    for c in spec.init_containers.iter().flatten() {
        if c.restart_policy.as_deref() == Some("Always") {
            let r = of(c);
            total.add(&r);
            sidecars.add(&r);
            init.max(&sidecars);
        } else {
            let mut r = of(c);
            r.add(&sidecars);
            init.max(&r);
        }
    }
    total.max(&init);
    if let Some(r) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let pod_level = Resources::of(r);
        if r.contains_key("cpu") {
            total.milli_cpu = pod_level.milli_cpu;
        }
        if r.contains_key("memory") {
            total.memory = pod_level.memory;
        }
    }
    if let Some(o) = &spec.overhead {
        total.add(&Resources::of(o));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_asks_for_its_containers_or_its_largest_init_container() {
        let c = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}});
        let mut sidecar = c("200m");
        sidecar["restartPolicy"] = json!("Always");
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [c("100m"), c("0.5")],
            "initContainers": [sidecar, c("1")], "overhead": {"cpu": "10m"}}}))
        .unwrap();
        let r = requests(&pod, false);
        assert_eq!((r.milli_cpu, r.memory), (1200 + 10, 3 << 30));
    }

    #[test]
    fn containers_that_ask_for_nothing_are_counted_when_nodes_are_compared() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}})).unwrap();
        assert_eq!(requests(&pod, false), Resources::default());
        assert_eq!(requests(&pod, true).milli_cpu, 200);
    }
}
