//! Objects that every cluster has: the system namespaces and a list given from
//! outside (RBAC's bootstrap roles and bindings). Missing ones are created;
//! present ones are left as they are.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::Change;
use crate::*;

pub const SYSTEM_NAMESPACES: &[&str] = &["kube-system", "kube-public", "kube-node-lease", "default"];
/// How often everything is looked at again.
const INTERVAL: Duration = Duration::from_secs(60);

pub struct Bootstrap {
    objects: Arc<Vec<Value>>,
}

impl Bootstrap {
    pub fn new(objects: Arc<Vec<Value>>) -> Bootstrap {
        Bootstrap { objects }
    }

    fn key() -> Key {
        Key::new("~bootstrap", Name::cluster(""))
    }
}

impl Controller for Bootstrap {
    fn name(&self) -> &'static str {
        "bootstrap"
    }

    fn keys(&self, _: &World, change: &Change, out: &mut Vec<Key>) {
        if change.resource == resources::NAMESPACES
            && change.new.is_none()
            && SYSTEM_NAMESPACES.contains(&&*change.name.name)
        {
            out.push(Bootstrap::key());
        }
    }

    fn first(&self) -> Vec<Key> {
        vec![Bootstrap::key()]
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let mut plan = Plan::default();
        let namespaces: Vec<Write> = SYSTEM_NAMESPACES
            .iter()
            .filter(|n| cx.world.namespaces.named(n).is_none())
            .map(|n| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}}))
            .map(|object| Op::Create { resource: resources::NAMESPACES, object }.into())
            .collect();
        let others: Vec<Write> = self
            .objects
            .iter()
            .filter_map(|o| {
                let text = |v: &'_ Value| v.as_str().unwrap_or_default().to_owned();
                let info = cx.kinds.find(&text(&o["apiVersion"]), &text(&o["kind"]))?;
                let (ns, name) = (text(&o["metadata"]["namespace"]), text(&o["metadata"]["name"]));
                let missing = cx.store.get(info.resource, &ns, &name).is_none();
                missing.then(|| Op::Create { resource: info.resource, object: o.clone() }.into())
            })
            .collect();
        // Namespaces first: the others may live in them.
        plan.steps.extend([namespaces, others].into_iter().filter(|w| !w.is_empty()).map(Step::All));
        plan.after(key, INTERVAL);
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[test]
    fn only_what_is_missing_is_created_namespaces_first() {
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "kube-public"}});
        let b = Bootstrap::new(Arc::new(vec![map.clone()]));
        let mut f = Fixture::new().put(resources::NAMESPACES, json!({"metadata": {"name": "default", "uid": "u"}}));
        let plan = f.reconcile(&b, &Bootstrap::key());
        let [Step::All(ns), Step::All(others)] = &plan.steps[..] else { panic!("{plan:?}") };
        assert_eq!((ns.len(), others.len()), (3, 1));
        f.set(resources::CONFIG_MAPS, map);
        assert_eq!(f.reconcile(&b, &Bootstrap::key()).writes().count(), 3);
    }
}
