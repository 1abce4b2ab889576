//! For tests: a snapshot from JSON with one reconcile over it, and a small API
//! server over one memory ([`FakeApi`]) for the driver and the scheduler.

mod fake_api;

pub use fake_api::FakeApi;

use std::sync::Arc;

use serde_json::Value;
use triarch_env::Wall;
use triarch_mvcc::{Meta, Object, OwnerRef};

use crate::resources::Kinds;
use crate::world::{Any, World};
use crate::{Context, Controller, Item, Key, Lookup, Name, Plan, WriteError};

/// Objects by resource; also answers lookups.
pub struct Fixture {
    pub world: World,
    pub kinds: Kinds,
    pub now: Wall,
    items: Vec<Item>,
}

impl Default for Fixture {
    fn default() -> Self {
        Fixture::new()
    }
}

impl Fixture {
    pub fn new() -> Fixture {
        Fixture {
            world: World::default(),
            kinds: crate::resources::known(),
            now: Wall::from_secs(1_000_000),
            items: Vec::new(),
        }
    }

    pub fn at(mut self, secs: i64) -> Fixture {
        self.now = Wall::from_secs(secs);
        self
    }

    /// Adds an object (without kind and apiVersion) at the next revision.
    pub fn put(mut self, resource: &'static str, object: Value) -> Fixture {
        self.set(resource, object);
        self
    }

    pub fn set(&mut self, resource: &'static str, mut value: Value) -> crate::Change {
        self.world.revision += 1;
        value["metadata"]["resourceVersion"] = self.world.revision.to_string().into();
        let object = stored(&value);
        let text = |p: &str| value["metadata"][p].as_str().unwrap_or_default().to_owned();
        let name = Name::new(text("namespace"), text("name"));
        let key = triarch_mvcc::Key::new(resource, &name.namespace, &name.name);
        self.items.retain(|i| i.key != key);
        self.items.push(Item { key, revision: self.world.revision, object: object.clone() });
        self.items.sort_by(|a, b| a.key.cmp(&b.key));
        let any = Any::decode(resource, &object, self.world.revision).expect("a test's object decodes");
        self.world.apply(resource, name, Some(any), object.meta)
    }

    pub fn remove(&mut self, resource: &'static str, name: Name) -> crate::Change {
        self.world.revision += 1;
        let key = triarch_mvcc::Key::new(resource, &name.namespace, &name.name);
        let gone = self.items.iter().position(|i| i.key == key).map(|i| self.items.remove(i));
        let meta = gone.map(|i| i.object.meta).unwrap_or_default();
        self.world.apply(resource, name, None, meta)
    }

    pub fn reconcile(&self, controller: &dyn Controller, key: &Key) -> Plan {
        self.run(controller, key, None)
    }

    pub fn reconcile_after(&self, controller: &dyn Controller, key: &Key, error: WriteError) -> Plan {
        self.run(controller, key, Some(&error))
    }

    fn run(&self, controller: &dyn Controller, key: &Key, failure: Option<&WriteError>) -> Plan {
        let cx = Context { world: &self.world, store: self, kinds: &self.kinds, now: self.now, failure };
        let plan = controller.reconcile(&cx, key);
        assert_eq!(controller.reconcile(&cx, key), plan, "a reconciler is a function of what it is given");
        plan
    }
}

/// An object as the store would hold it.
pub fn stored(value: &Value) -> Object {
    let m = &value["metadata"];
    let pairs = |v: &Value| -> Box<[(Box<str>, Box<str>)]> {
        v.as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into()))
            .collect()
    };
    let owners = m["ownerReferences"].as_array().into_iter().flatten().map(|r| OwnerRef {
        uid: r["uid"].as_str().unwrap_or_default().into(),
        controller: r["controller"].as_bool().unwrap_or(false),
        block_deletion: r["blockOwnerDeletion"].as_bool().unwrap_or(false),
    });
    let meta = Meta {
        uid: m["uid"].as_str().unwrap_or_default().into(),
        labels: pairs(&m["labels"]),
        owners: owners.collect(),
        fields: Box::default(),
        deleting: m.get("deletionTimestamp").is_some_and(|t| !t.is_null()),
        has_finalizers: m["finalizers"].as_array().is_some_and(|f| !f.is_empty()),
        generation: m["generation"].as_i64().unwrap_or(0),
    };
    let text = serde_json::to_string(value).expect("JSON");
    Object { bytes: text[1..].to_owned().into(), slot: None, meta: Arc::new(meta) }
}

/// Deep merge, for variations of an object.
pub fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(a), Value::Object(b)) => {
            b.iter().for_each(|(k, v)| merge(a.entry(k.clone()).or_insert(Value::Null), v))
        }
        (a, b) => *a = b.clone(),
    }
}

impl Lookup for Fixture {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Item> {
        let key = triarch_mvcc::Key::new(resource, namespace, name);
        self.items.iter().find(|i| i.key == key).cloned()
    }

    fn page(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<triarch_mvcc::Key>,
        limit: usize,
    ) -> Vec<Item> {
        self.items
            .iter()
            .filter(|i| i.key.resource() == resource && namespace.is_none_or(|n| i.key.namespace() == n))
            .filter(|i| after.as_ref().is_none_or(|a| i.key > *a))
            .take(if limit == 0 { usize::MAX } else { limit })
            .cloned()
            .collect()
    }

    fn count(&self, resource: &str, namespace: &str) -> u64 {
        self.page(resource, Some(namespace), None, 0).len() as u64
    }

    fn dependents(&self, owner_uid: &str) -> Vec<Item> {
        self.items.iter().filter(|i| i.object.meta.owners.iter().any(|o| &*o.uid == owner_uid)).cloned().collect()
    }
}
