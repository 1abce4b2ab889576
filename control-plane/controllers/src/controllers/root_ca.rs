//! The ConfigMap `kube-root-ca.crt` in every namespace.

use serde_json::json;

use crate::world::Change;
use crate::*;

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub struct RootCa {
    pem: String,
}

impl RootCa {
    pub fn new(pem: String) -> RootCa {
        RootCa { pem }
    }
}

impl Controller for RootCa {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher"
    }

    fn keys(&self, _: &World, change: &Change, out: &mut Vec<Key>) {
        match change.resource {
            resources::NAMESPACES if change.new.is_some() => {
                out.push(Key::new(resources::NAMESPACES, change.name.clone()));
            }
            resources::CONFIG_MAPS if &*change.name.name == NAME => {
                out.push(Key::new(resources::NAMESPACES, Name::cluster(&change.name.namespace)));
            }
            _ => {}
        }
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let alive = cx.world.namespaces.get(&key.name).is_some_and(|n| !deleting(&n.metadata));
        if !alive {
            return Plan::nothing();
        }
        let namespace = &*key.name.name;
        let annotations = json!({"kubernetes.io/description": DESCRIPTION});
        let data = json!({"ca.crt": self.pem});
        match cx.store.get(resources::CONFIG_MAPS, namespace, NAME).map(|i| i.value()) {
            None => Plan::one(Op::Create {
                resource: resources::CONFIG_MAPS,
                object: json!({"apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": NAME, "namespace": namespace, "annotations": annotations}, "data": data}),
            }),
            Some(have) if have["data"] != data || have["metadata"]["annotations"] != annotations => {
                let mut object = have;
                object["apiVersion"] = "v1".into();
                object["kind"] = "ConfigMap".into();
                object["data"] = data;
                object["metadata"]["annotations"] = annotations;
                Plan::one(Op::Update { resource: resources::CONFIG_MAPS, object })
            }
            Some(_) => Plan::nothing(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[test]
    fn the_bundle_is_published_and_repaired() {
        let c = RootCa::new("PEM".into());
        let key = Key::new(resources::NAMESPACES, Name::cluster("a"));
        let f = Fixture::new().put(resources::NAMESPACES, json!({"metadata": {"name": "a", "uid": "u"}}));
        let plan = f.reconcile(&c, &key);
        let Op::Create { object, .. } = plan.writes().next().unwrap().op.clone() else { panic!() };
        let mut f = f.put(resources::CONFIG_MAPS, object.clone());
        assert!(f.reconcile(&c, &key).is_empty());
        let mut changed = object;
        changed["data"]["ca.crt"] = "other".into();
        f.set(resources::CONFIG_MAPS, changed);
        let Op::Update { object, .. } = &f.reconcile(&c, &key).writes().next().unwrap().op.clone() else { panic!() };
        assert_eq!(object["data"]["ca.crt"], "PEM");
    }
}
