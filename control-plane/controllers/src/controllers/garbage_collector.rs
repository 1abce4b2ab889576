//! Garbage collection by owner references: dependents whose owners are all
//! gone, foreground deletion (owner last) and orphaning (owner lets go first).
//!
//! Reads the store itself, not the snapshot: an owner is gone only when it is
//! not in the store now, under its name, with its uid.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::Change;
use crate::*;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// How often an owner that waits for its dependents is looked at.
const WAIT: Duration = Duration::from_millis(250);
/// Key of an owner that is gone; its name is the uid.
const GONE: &str = "~owner";
/// Dependents that are handled in one pass.
const BATCH: usize = 500;

pub struct GarbageCollector;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    fn keys(&self, world: &World, change: &Change, out: &mut Vec<Key>) {
        match &change.new {
            None => {
                if !change.meta.uid.is_empty() {
                    out.push(Key::new(GONE, Name::cluster(&change.meta.uid)));
                }
            }
            Some(_) => {
                let dangling = change.meta.owners.iter().any(|o| !world.alive(&o.uid));
                if dangling || (change.meta.deleting && change.meta.has_finalizers) {
                    out.push(Key::new(change.resource, change.name.clone()));
                }
            }
        }
    }

    fn concurrency(&self) -> usize {
        20
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let mut plan = Plan::default();
        if key.resource == GONE {
            for d in cx.store.dependents(&key.name.name).iter().filter_map(|i| key_of(cx, i)) {
                plan.after(&d, Duration::ZERO);
            }
            return plan;
        }
        let Some(item) = cx.store.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        let value = item.value();
        let finalizers = strings(&value["metadata"]["finalizers"]);
        let has = |f: &str| finalizers.iter().any(|x| x == f);
        if item.object.meta.deleting {
            if has(ORPHAN) {
                orphan(cx, key, &item, &value, &mut plan);
            } else if has(FOREGROUND) {
                foreground(cx, key, &item, &value, &mut plan);
            }
            return plan;
        }
        attempt(cx, key, &value, &mut plan);
        plan
    }
}

/// Deletes an object whose owners are all gone, or takes the gone ones off it.
fn attempt(cx: &Context<'_>, key: &Key, value: &Value, plan: &mut Plan) {
    let refs = value["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    if refs.is_empty() {
        return;
    }
    let (mut solid, mut waiting, mut dangling) = (0, 0, 0);
    let mut keep = Vec::new();
    for r in refs {
        match owner(cx, key, &r) {
            Owner::Solid => {
                solid += 1;
                keep.push(r);
            }
            Owner::Waiting => waiting += 1,
            Owner::Gone => dangling += 1,
        }
    }
    let uid = value["metadata"]["uid"].as_str().map(str::to_owned);
    if solid > 0 {
        if waiting + dangling > 0 {
            plan.push(owners_patch(key, value, keep));
        }
        return;
    }
    let finalizers = strings(&value["metadata"]["finalizers"]);
    let propagation = if waiting > 0 || finalizers.iter().any(|f| f == FOREGROUND) {
        "Foreground"
    } else if finalizers.iter().any(|f| f == ORPHAN) {
        "Orphan"
    } else {
        "Background"
    };
    // The resourceVersion makes it a decision about exactly these owners.
    let options = DeleteOptions {
        uid,
        resource_version: value["metadata"]["resourceVersion"].as_str().map(|v| v.trim().to_owned()),
        propagation: Some(propagation),
        grace_period_seconds: None,
    };
    plan.push(Op::Delete { resource: key.resource, name: key.name.clone(), options });
}

/// Deletes the dependents that block, then lets the owner go.
fn foreground(cx: &Context<'_>, key: &Key, item: &Item, value: &Value, plan: &mut Plan) {
    let uid = &item.object.meta.uid;
    let dependents = cx.store.dependents(uid);
    let blocking = |i: &&Item| i.object.meta.owners.iter().any(|o| o.uid == *uid && o.block_deletion);
    if !dependents.iter().any(|i| blocking(&i)) {
        plan.push(without_finalizer(key, value, FOREGROUND));
        return;
    }
    for d in dependents.iter().filter(|i| !i.object.meta.deleting).take(BATCH) {
        if let Some(k) = key_of(cx, d) {
            plan.after(&k, Duration::ZERO);
        }
    }
    plan.after(key, WAIT);
}

/// Takes the owner off its dependents, then lets it go.
fn orphan(cx: &Context<'_>, key: &Key, item: &Item, value: &Value, plan: &mut Plan) {
    let uid = &*item.object.meta.uid;
    let dependents = cx.store.dependents(uid);
    if dependents.is_empty() {
        plan.push(without_finalizer(key, value, ORPHAN));
        return;
    }
    let mut patches = Vec::new();
    for d in dependents.iter().take(BATCH) {
        let Some(k) = key_of(cx, d) else { continue };
        let v = d.value();
        let refs = v["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let keep: Vec<Value> = refs.into_iter().filter(|r| r["uid"] != *uid).collect();
        patches.push(owners_patch(&k, &v, keep).into());
    }
    plan.steps.push(Step::All(patches));
    plan.after(key, WAIT);
}

enum Owner {
    Solid,
    /// Being deleted in the foreground: it waits for this dependent.
    Waiting,
    Gone,
}

fn owner(cx: &Context<'_>, dependent: &Key, r: &Value) -> Owner {
    let text = |f: &str| r[f].as_str().unwrap_or_default();
    // An owner of a kind that is not known, or in a namespace while its
    // dependent is in none, cannot be looked up and is not taken for gone.
    let Some(kind) = cx.kinds.find(text("apiVersion"), text("kind")) else { return Owner::Solid };
    if kind.namespaced && dependent.name.namespace.is_empty() {
        return Owner::Solid;
    }
    let namespace = if kind.namespaced { &*dependent.name.namespace } else { "" };
    match cx.store.get(kind.resource, namespace, text("name")) {
        Some(o) if &*o.object.meta.uid == text("uid") => {
            let blocks = r["blockOwnerDeletion"] == true;
            let foreground =
                o.object.meta.deleting && strings(&o.value()["metadata"]["finalizers"]).iter().any(|f| f == FOREGROUND);
            if foreground && blocks { Owner::Waiting } else { Owner::Solid }
        }
        _ => Owner::Gone,
    }
}

fn key_of(cx: &Context<'_>, item: &Item) -> Option<Key> {
    let kind = cx.kinds.by_resource(item.key.resource())?;
    Some(Key::new(kind.resource, Name::new(item.key.namespace(), item.key.name())))
}

fn strings(v: &Value) -> Vec<String> {
    v.as_array().into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect()
}

fn owners_patch(key: &Key, value: &Value, keep: Vec<Value>) -> Op {
    let owners = if keep.is_empty() { Value::Null } else { Value::Array(keep) };
    let patch = json!({"metadata": {"ownerReferences": owners, "uid": value["metadata"]["uid"],
        "resourceVersion": value["metadata"]["resourceVersion"]}});
    Op::Patch { resource: key.resource, name: key.name.clone(), subresource: None, patch }
}

fn without_finalizer(key: &Key, value: &Value, finalizer: &str) -> Op {
    let keep: Vec<String> = strings(&value["metadata"]["finalizers"]).into_iter().filter(|f| f != finalizer).collect();
    let list = if keep.is_empty() { Value::Null } else { json!(keep) };
    let patch = json!({"metadata": {"finalizers": list, "uid": value["metadata"]["uid"],
        "resourceVersion": value["metadata"]["resourceVersion"]}});
    Op::Patch { resource: key.resource, name: key.name.clone(), subresource: None, patch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    fn pod(owners: &[(&str, bool)]) -> Value {
        let refs: Vec<Value> = owners
            .iter()
            .map(|(u, block)| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": u, "uid": u, "blockOwnerDeletion": block}))
            .collect();
        json!({"metadata": {"name": "p", "namespace": "d", "uid": "p", "ownerReferences": refs}})
    }

    fn set(name: &str, extra: Value) -> Value {
        let mut v = json!({"metadata": {"name": name, "namespace": "d", "uid": name}, "spec": {"selector": {}}});
        crate::testing::merge(&mut v, &extra);
        v
    }

    fn key() -> Key {
        Key::new(resources::PODS, Name::new("d", "p"))
    }

    fn op(plan: &Plan) -> Op {
        plan.writes().next().unwrap_or_else(|| panic!("{plan:?}")).op.clone()
    }

    #[test]
    fn a_dependent_goes_only_when_every_owner_is_gone() {
        let mut f = Fixture::new()
            .put(resources::REPLICA_SETS, set("a", json!({})))
            .put(resources::PODS, pod(&[("a", false), ("b", false)]));
        let Op::Patch { patch, .. } = op(&f.reconcile(&GarbageCollector, &key())) else { panic!() };
        assert_eq!(patch["metadata"]["ownerReferences"].as_array().unwrap().len(), 1, "the gone one is taken off");
        let change = f.remove(resources::REPLICA_SETS, Name::new("d", "a"));
        let mut keys = Vec::new();
        GarbageCollector.keys(&f.world, &change, &mut keys);
        assert_eq!(f.reconcile(&GarbageCollector, &keys[0]).requeue, [(key(), Duration::ZERO)]);
        let Op::Delete { options, .. } = op(&f.reconcile(&GarbageCollector, &key())) else { panic!() };
        assert_eq!((options.propagation, options.uid.as_deref()), (Some("Background"), Some("p")));
    }

    #[test]
    fn an_owner_created_again_under_its_name_is_another_one() {
        let f = Fixture::new()
            .put(resources::REPLICA_SETS, set("a", json!({"metadata": {"uid": "a2"}})))
            .put(resources::PODS, pod(&[("a", false)]));
        assert!(matches!(op(&f.reconcile(&GarbageCollector, &key())), Op::Delete { .. }));
    }

    #[test]
    fn an_owner_deleted_in_the_foreground_waits_for_those_that_block() {
        let dying = json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z", "finalizers": [FOREGROUND]}});
        let owner = Key::new(resources::REPLICA_SETS, Name::new("d", "a"));
        let mut f =
            Fixture::new().put(resources::REPLICA_SETS, set("a", dying)).put(resources::PODS, pod(&[("a", true)]));
        let plan = f.reconcile(&GarbageCollector, &owner);
        assert_eq!(plan.requeue, [(key(), Duration::ZERO), (owner.clone(), WAIT)]);
        let Op::Delete { options, .. } = op(&f.reconcile(&GarbageCollector, &key())) else { panic!() };
        assert_eq!(options.propagation, Some("Foreground"));
        f.remove(resources::PODS, Name::new("d", "p"));
        let Op::Patch { patch, .. } = op(&f.reconcile(&GarbageCollector, &owner)) else { panic!() };
        assert_eq!(patch["metadata"]["finalizers"], Value::Null);
    }

    #[test]
    fn an_orphaning_owner_is_taken_off_its_dependents_and_then_goes() {
        let dying = json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z", "finalizers": [ORPHAN]}});
        let owner = Key::new(resources::REPLICA_SETS, Name::new("d", "a"));
        let mut f =
            Fixture::new().put(resources::REPLICA_SETS, set("a", dying)).put(resources::PODS, pod(&[("a", true)]));
        let Op::Patch { patch, name, .. } = op(&f.reconcile(&GarbageCollector, &owner)) else { panic!() };
        assert_eq!((&*name.name, &patch["metadata"]["ownerReferences"]), ("p", &Value::Null));
        f.set(resources::PODS, pod(&[]));
        let Op::Patch { patch, name, .. } = op(&f.reconcile(&GarbageCollector, &owner)) else { panic!() };
        assert_eq!((&*name.name, &patch["metadata"]["finalizers"]), ("a", &Value::Null));
    }

    #[test]
    fn an_owner_of_an_unknown_kind_is_never_taken_for_gone() {
        let mut p = pod(&[("a", false)]);
        p["metadata"]["ownerReferences"][0]["kind"] = json!("Widget");
        assert!(Fixture::new().put(resources::PODS, p).reconcile(&GarbageCollector, &key()).is_empty());
    }
}
