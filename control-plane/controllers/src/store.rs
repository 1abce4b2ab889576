//! Looks into the store for what the snapshot does not hold: dependents,
//! objects of kinds that are not decoded, and how many there are.

use std::sync::Arc;

use serde_json::Value;
use triarch_mvcc::{Key, ListRequest, Mvcc, Prefix, Revision, Stored};

/// A stored object of any kind.
#[derive(Clone, Debug)]
pub struct Item {
    pub key: Key,
    pub revision: Revision,
    pub object: triarch_mvcc::Object,
}

impl Item {
    /// The object without apiVersion and kind; `Null` when the bytes are not JSON.
    pub fn value(&self) -> Value {
        crate::world::parse(&self.object, self.revision).unwrap_or(Value::Null)
    }
}

impl From<Stored> for Item {
    fn from(s: Stored) -> Item {
        Item { key: s.key, revision: s.mod_revision, object: s.object }
    }
}

/// Reads of the store's memory, never older than the snapshot that they go with.
pub trait Lookup: Send + Sync {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Item>;
    /// At most `limit` objects of a resource (in one namespace), after a key.
    fn page(&self, resource: &str, namespace: Option<&str>, after: Option<Key>, limit: usize) -> Vec<Item>;
    fn count(&self, resource: &str, namespace: &str) -> u64;
    fn dependents(&self, owner_uid: &str) -> Vec<Item>;
}

impl Lookup for Arc<Mvcc> {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Item> {
        Mvcc::get(self, &Key::new(resource, namespace, name)).map(Item::from)
    }

    fn page(&self, resource: &str, namespace: Option<&str>, after: Option<Key>, limit: usize) -> Vec<Item> {
        let prefix = match namespace {
            Some(ns) => Prefix::namespaced(resource, ns),
            None => Prefix::resource(resource),
        };
        match Mvcc::list(self, &ListRequest { prefix, after, limit, at: None }) {
            Ok(l) => l.items.into_iter().map(Item::from).collect(),
            Err(_) => Vec::new(),
        }
    }

    fn count(&self, resource: &str, namespace: &str) -> u64 {
        Mvcc::count(self, &Prefix::namespaced(resource, namespace))
    }

    fn dependents(&self, owner_uid: &str) -> Vec<Item> {
        Mvcc::dependents(self, owner_uid).into_iter().map(Item::from).collect()
    }
}
