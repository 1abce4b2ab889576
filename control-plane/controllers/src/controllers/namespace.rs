//! Namespace deletion: pods first, then everything else, then the namespace's
//! own finalizer. Conditions tell what is left.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};

use crate::world::Change;
use crate::*;

/// Items of one resource that are looked at for finalizers.
const SAMPLE: usize = 500;
/// A look even when nothing was seen to change.
const SAFETY: Duration = Duration::from_secs(5);

pub struct Namespaces;

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn keys(&self, world: &World, change: &Change, out: &mut Vec<Key>) {
        if change.resource == resources::NAMESPACES {
            if change.new.is_some() {
                out.push(Key::new(resources::NAMESPACES, change.name.clone()));
            }
        } else if change.new.is_none() && !change.name.namespace.is_empty() {
            let namespace = Name::cluster(&change.name.namespace);
            if world.namespaces.get(&namespace).is_some_and(|n| deleting(&n.metadata)) {
                out.push(Key::new(resources::NAMESPACES, namespace));
            }
        }
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let Some(ns) = cx.world.namespaces.get(&key.name).filter(|n| deleting(&n.metadata)) else {
            return Plan::nothing();
        };
        let finalizers = ns.spec.as_ref().and_then(|s| s.finalizers.clone()).unwrap_or_default();
        if !finalizers.iter().any(|f| f == "kubernetes") {
            return Plan::nothing();
        }
        let namespace = &*key.name.name;
        let mut left: Vec<(&KindInfo, u64)> = Vec::new();
        let mut seen = "";
        for kind in cx.kinds.iter().filter(|k| k.namespaced) {
            // Two kinds may share one store.
            if std::mem::replace(&mut seen, kind.resource) == kind.resource {
                continue;
            }
            let n = cx.store.count(kind.resource, namespace);
            if n > 0 {
                left.push((kind, n));
            }
        }
        let mut plan = Plan::default();
        if left.is_empty() {
            let mut object = Namespace::clone(ns);
            object.status.get_or_insert_default().conditions = Some(conditions(cx, ns, &left, &BTreeMap::new()));
            object.spec.get_or_insert_default().finalizers =
                Some(finalizers.into_iter().filter(|f| f != "kubernetes").collect());
            let object = to_value(&object);
            plan.push(Op::UpdateSub { resource: resources::NAMESPACES, subresource: "finalize", object });
            return plan;
        }
        let pods = left.iter().any(|(k, _)| k.resource == resources::PODS);
        let mut finalizing: BTreeMap<String, u64> = BTreeMap::new();
        let mut deletes = Vec::new();
        for (kind, _) in &left {
            let items = cx.store.page(kind.resource, Some(namespace), None, SAMPLE);
            for item in items.iter().filter(|i| i.object.meta.has_finalizers) {
                for f in item.value()["metadata"]["finalizers"].as_array().into_iter().flatten() {
                    *finalizing.entry(f.as_str().unwrap_or_default().to_owned()).or_default() += 1;
                }
            }
            // Everything else waits for the last pod.
            let turn = !pods || kind.resource == resources::PODS;
            if turn && (items.len() == SAMPLE || items.iter().any(|i| !i.object.meta.deleting)) {
                deletes.push(Op::DeleteAll { resource: kind.resource, namespace: namespace.to_owned() }.into());
            }
        }
        if !deletes.is_empty() {
            plan.steps.push(Step::All(deletes));
        }
        let told = conditions(cx, ns, &left, &finalizing);
        if ns.status.as_ref().and_then(|s| s.conditions.as_ref()) != Some(&told) {
            let mut object = Namespace::clone(ns);
            object.status.get_or_insert_default().conditions = Some(told);
            let object = to_value(&object);
            plan.push(Op::UpdateSub { resource: resources::NAMESPACES, subresource: "status", object });
        }
        plan.after(key, SAFETY);
        plan
    }
}

/// The five deletion conditions; times move only with the status.
fn conditions(
    cx: &Context<'_>,
    ns: &Namespace,
    left: &[(&KindInfo, u64)],
    finalizing: &BTreeMap<String, u64>,
) -> Vec<NamespaceCondition> {
    let remaining: Vec<String> = left
        .iter()
        .map(|(k, n)| {
            let group = k.api_version.split_once('/').map(|(g, _)| g).unwrap_or_default();
            format!("{}.{group} has {n} resource instances", k.plural)
        })
        .collect();
    let finalizers: Vec<String> = finalizing.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
    let list = |ok: (&'static str, &str), bad: (&'static str, &str), items: &[String]| {
        if items.is_empty() {
            ("False", ok.0, ok.1.to_owned())
        } else {
            ("True", bad.0, format!("{}{}", bad.1, items.join(", ")))
        }
    };
    let told = [
        (
            "NamespaceDeletionDiscoveryFailure",
            ("False", "ResourcesDiscovered", "All resources successfully discovered".into()),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed".into()),
        ),
        (
            "NamespaceDeletionContentFailure",
            ("False", "ContentDeleted", "All content successfully deleted, may be waiting on finalization".into()),
        ),
        (
            "NamespaceContentRemaining",
            list(
                ("ContentRemoved", "All content successfully removed"),
                ("SomeResourcesRemain", "Some resources are remaining: "),
                &remaining,
            ),
        ),
        (
            "NamespaceFinalizersRemaining",
            list(
                ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
                ("SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "),
                &finalizers,
            ),
        ),
    ];
    let before = ns.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut out: Vec<NamespaceCondition> = told
        .into_iter()
        .map(|(kind, (status, reason, message))| {
            let old = before.iter().find(|c| c.type_ == kind && c.status == status);
            NamespaceCondition {
                type_: kind.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_transition_time: old.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(time(cx.now))),
            }
        })
        .collect();
    out.extend(before.into_iter().filter(|c| !told_types().contains(&c.type_.as_str())));
    out
}

fn told_types() -> [&'static str; 5] {
    [
        "NamespaceDeletionDiscoveryFailure",
        "NamespaceDeletionGroupVersionParsingFailure",
        "NamespaceDeletionContentFailure",
        "NamespaceContentRemaining",
        "NamespaceFinalizersRemaining",
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;
    use serde_json::json;

    fn key() -> Key {
        Key::new(resources::NAMESPACES, Name::cluster("a"))
    }

    fn dying() -> serde_json::Value {
        json!({"metadata": {"name": "a", "uid": "u", "deletionTimestamp": "2020-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"}})
    }

    #[test]
    fn pods_are_deleted_before_everything_else_and_the_rest_is_told() {
        let f = Fixture::new()
            .put(resources::NAMESPACES, dying())
            .put(
                resources::PODS,
                json!({"metadata": {"name": "p", "namespace": "a", "uid": "p", "finalizers": ["x/y"]}}),
            )
            .put(resources::CONFIG_MAPS, json!({"metadata": {"name": "c", "namespace": "a"}}));
        let plan = f.reconcile(&Namespaces, &key());
        let Step::All(deletes) = &plan.steps[0] else { panic!("{plan:?}") };
        assert_eq!(deletes.len(), 1);
        assert_eq!(deletes[0].op.resource(), resources::PODS);
        let Op::UpdateSub { object, .. } = &plan.writes().last().unwrap().op else { panic!() };
        let message = |kind: &str| {
            let c = object["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap();
            c["message"].as_str().unwrap().to_owned()
        };
        assert_eq!(
            message("NamespaceContentRemaining"),
            "Some resources are remaining: configmaps. has 1 resource instances, pods. has 1 resource instances"
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            "Some content in the namespace has finalizers remaining: x/y in 1 resource instances"
        );
    }

    #[test]
    fn an_empty_namespace_loses_its_finalizer() {
        let plan = Fixture::new().put(resources::NAMESPACES, dying()).reconcile(&Namespaces, &key());
        let Op::UpdateSub { subresource: "finalize", object, .. } = &plan.writes().next().unwrap().op else { panic!() };
        assert_eq!(object["spec"]["finalizers"], json!([]));
    }

    #[test]
    fn what_is_already_going_is_waited_for_not_deleted_again() {
        let pod = json!({"metadata": {"name": "p", "namespace": "a", "uid": "p", "deletionTimestamp": "2020-01-01T00:00:00Z"}});
        let mut f = Fixture::new().put(resources::NAMESPACES, dying()).put(resources::PODS, pod);
        let plan = f.reconcile(&Namespaces, &key());
        assert!(!plan.writes().any(|w| matches!(w.op, Op::DeleteAll { .. })));
        let change = f.remove(resources::PODS, Name::new("a", "p"));
        let mut keys = Vec::new();
        Namespaces.keys(&f.world, &change, &mut keys);
        assert_eq!(keys, [key()], "its going is seen at once");
    }
}
