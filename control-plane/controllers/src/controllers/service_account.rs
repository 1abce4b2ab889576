//! A `default` ServiceAccount in every namespace that is not being deleted.

use serde_json::json;

use crate::world::Change;
use crate::*;

pub struct ServiceAccounts;

impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "serviceaccount"
    }

    fn keys(&self, _: &World, change: &Change, out: &mut Vec<Key>) {
        match change.resource {
            resources::NAMESPACES if change.new.is_some() => {
                out.push(Key::new(resources::NAMESPACES, change.name.clone()));
            }
            resources::SERVICE_ACCOUNTS if change.new.is_none() && &*change.name.name == "default" => {
                out.push(Key::new(resources::NAMESPACES, Name::cluster(&change.name.namespace)));
            }
            _ => {}
        }
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let Some(ns) = cx.world.namespaces.get(&key.name).filter(|n| !deleting(&n.metadata)) else {
            return Plan::nothing();
        };
        let name = ns.metadata.name.as_deref().unwrap_or_default();
        if cx.world.service_accounts.get(&Name::new(name, "default")).is_some() {
            return Plan::nothing();
        }
        let object =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}});
        Plan::one(Op::Create { resource: resources::SERVICE_ACCOUNTS, object })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[test]
    fn each_living_namespace_gets_one_default_account() {
        let key = Key::new(resources::NAMESPACES, Name::cluster("a"));
        let f = Fixture::new().put(resources::NAMESPACES, json!({"metadata": {"name": "a", "uid": "u"}}));
        let plan = f.reconcile(&ServiceAccounts, &key);
        let Op::Create { object, .. } = &plan.writes().next().unwrap().op else { panic!() };
        assert_eq!(object["metadata"], json!({"name": "default", "namespace": "a"}));
        let f =
            f.put(resources::SERVICE_ACCOUNTS, json!({"metadata": {"name": "default", "namespace": "a", "uid": "s"}}));
        assert!(f.reconcile(&ServiceAccounts, &key).is_empty());
        let dying = json!({"metadata": {"name": "a", "uid": "u", "deletionTimestamp": "2020-01-01T00:00:00Z"}});
        assert!(Fixture::new().put(resources::NAMESPACES, dying).reconcile(&ServiceAccounts, &key).is_empty());
    }
}
