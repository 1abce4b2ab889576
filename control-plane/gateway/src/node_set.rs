//! What one node is to have: a pure function of the store and what was sent.
//!
//! Invariant: after [`NodeSet::full`] and the deltas that follow, the agent
//! holds exactly the wanted objects at the revision named last.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use triarch_mvcc::{Key, ListRequest, Meta, Mvcc, Prefix, Revision, Stored};
use triarch_rpc::node::{Item, ItemKey};

use crate::refs;

pub const PODS: &str = "pods";
/// Resources that every node gets whole, with the header that stands before
/// their stored bytes.
pub const SHARED: [&str; 3] = ["nodes", "services", "endpointslices.discovery.k8s.io"];

/// The set of one node, as its session last sent it.
#[derive(Debug)]
pub struct NodeSet {
    node: String,
    /// Resources of [`SHARED`] that the agent has no use for.
    without: BTreeSet<String>,
    /// Pods of this node and what they refer to.
    pods: BTreeMap<Key, Pod>,
    /// How many pods refer to a ConfigMap or Secret.
    refs: BTreeMap<Key, usize>,
    sent: BTreeMap<Key, Revision>,
}

/// A pod of the node.
#[derive(Debug)]
struct Pod {
    /// Its uid and generation.
    version: (Box<str>, i64),
    refs: BTreeSet<Key>,
}

fn version(meta: &Meta) -> (Box<str>, i64) {
    (meta.uid.clone(), meta.generation)
}

/// What to tell the agent.
#[derive(Debug, Default)]
pub struct Change {
    pub upserts: Vec<Item>,
    pub removals: Vec<ItemKey>,
}

impl NodeSet {
    pub fn new(node: &str, without: impl IntoIterator<Item = String>) -> NodeSet {
        NodeSet {
            node: node.to_owned(),
            without: without.into_iter().collect(),
            pods: BTreeMap::new(),
            refs: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    pub fn wants(&self, resource: &str) -> bool {
        SHARED.contains(&resource) && !self.without.contains(resource)
    }

    /// ConfigMaps and Secrets that this node's pods refer to now.
    pub fn references(&self) -> impl Iterator<Item = &Key> {
        self.refs.keys()
    }

    /// The complete set. `pods`: keys of the pods that may be this node's.
    pub fn full(&mut self, store: &Mvcc, pods: &BTreeSet<Key>) -> Vec<Item> {
        self.pods.clear();
        self.refs.clear();
        self.sent.clear();
        let mut change = Change::default();
        for resource in SHARED {
            if self.without.contains(resource) {
                continue;
            }
            let all = ListRequest { prefix: Prefix::resource(resource), after: None, limit: 0, at: None };
            // A list of current state cannot fail: it names no revision.
            for stored in store.list(&all).map(|l| l.items).unwrap_or_default() {
                self.send(&stored, &mut change);
            }
        }
        self.update(store, pods, &mut change);
        change.upserts
    }

    /// What has changed among `dirty` keys.
    pub fn delta(&mut self, store: &Mvcc, dirty: &BTreeSet<Key>) -> Change {
        let mut change = Change::default();
        self.update(store, dirty, &mut change);
        change
    }

    fn update(&mut self, store: &Mvcc, keys: &BTreeSet<Key>, change: &mut Change) {
        // References first, so that a pod never arrives before what it needs.
        let mut pods = Vec::new();
        for key in keys.iter().filter(|k| k.resource() == PODS) {
            let current = store.get(key);
            // What a pod refers to is in its spec, and a changed spec is another generation.
            let unchanged = |s: &Stored| {
                let meta = &s.object.meta;
                self.pods.get(key).is_some_and(|p| meta.generation > 0 && p.version == version(meta))
            };
            if let Some(s) = current.as_ref().filter(|s| unchanged(s)) {
                self.send(s, change);
                continue;
            }
            let current = current.map(|s| (value(&s), s));
            let mine = current.filter(|(v, _)| v.pointer("/spec/nodeName").and_then(Value::as_str) == Some(&self.node));
            let (refs, stored) = match mine {
                Some((v, s)) => (refs::of_pod(&v), Some(s)),
                None => (BTreeSet::new(), None),
            };
            let version = stored.as_ref().map(|s| version(&s.object.meta));
            self.refer(store, key, refs, version, change);
            pods.push((key, stored));
        }
        for (key, stored) in pods {
            match stored {
                Some(s) => self.send(&s, change),
                None => self.withdraw(key, change),
            }
        }
        for key in keys.iter().filter(|k| k.resource() != PODS) {
            if !self.wants(key.resource()) && !self.refs.contains_key(key) {
                continue;
            }
            match store.get(key) {
                Some(s) => self.send(&s, change),
                None => self.withdraw(key, change),
            }
        }
    }

    /// Notes what `pod` refers to now, sends what is new, withdraws what
    /// nobody needs any more.
    fn refer(
        &mut self,
        store: &Mvcc,
        pod: &Key,
        refs: BTreeSet<Key>,
        version: Option<(Box<str>, i64)>,
        change: &mut Change,
    ) {
        for r in &refs {
            *self.refs.entry(r.clone()).or_default() += 1;
            if let Some(s) = store.get(r) {
                self.send(&s, change);
            }
        }
        let old = match version {
            Some(version) => self.pods.insert(pod.clone(), Pod { version, refs }),
            None => self.pods.remove(pod),
        };
        for r in old.into_iter().flat_map(|p| p.refs) {
            let gone = self.refs.get_mut(&r).is_some_and(|n| {
                *n -= 1;
                *n == 0
            });
            if gone {
                self.refs.remove(&r);
                self.withdraw(&r, change);
            }
        }
    }

    fn send(&mut self, stored: &Stored, change: &mut Change) {
        if self.sent.insert(stored.key.clone(), stored.mod_revision) == Some(stored.mod_revision) {
            return;
        }
        change.upserts.push(Item {
            key: Some(item_key(&stored.key)),
            revision: stored.mod_revision,
            json: served(stored),
        });
    }

    fn withdraw(&mut self, key: &Key, change: &mut Change) {
        if self.sent.remove(key).is_some() {
            change.removals.push(item_key(key));
        }
    }
}

fn item_key(key: &Key) -> ItemKey {
    ItemKey { resource: key.resource().into(), namespace: key.namespace().into(), name: key.name().into() }
}

/// The header that a served object of this resource starts with.
fn header(resource: &str) -> &'static str {
    match resource {
        PODS => r#"{"kind":"Pod","apiVersion":"v1","#,
        "configmaps" => r#"{"kind":"ConfigMap","apiVersion":"v1","#,
        "secrets" => r#"{"kind":"Secret","apiVersion":"v1","#,
        "services" => r#"{"kind":"Service","apiVersion":"v1","#,
        "nodes" => r#"{"kind":"Node","apiVersion":"v1","#,
        "endpointslices.discovery.k8s.io" => r#"{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","#,
        _ => "{",
    }
}

fn served(stored: &Stored) -> Bytes {
    let head = header(stored.key.resource());
    let mut out = BytesMut::with_capacity(head.len() + stored.object.bytes.len());
    out.extend_from_slice(head.as_bytes());
    stored.object.write_to(&mut out, stored.mod_revision);
    out.freeze()
}

/// The object as a JSON value, with kind and apiVersion.
pub fn value(stored: &Stored) -> Value {
    serde_json::from_slice(&served(stored)).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use triarch_mvcc::{Db, LocalDb, Object, Op, Txn};

    use super::*;

    async fn put(db: &Arc<LocalDb>, key: &Key, body: Value) {
        let text = body.to_string();
        let object = Object::plain(text[1..].to_owned().into_bytes());
        db.commit(Txn { ops: vec![Op::Put(key.clone(), object)], ..Txn::default() }).await.unwrap();
    }

    fn pod(node: &str, config: &str) -> Value {
        json!({"metadata": {"namespace": "a"}, "spec": {"nodeName": node, "volumes": [{"configMap": {"name": config}}]}})
    }

    fn names(change: &Change) -> (Vec<String>, Vec<String>) {
        let name = |k: &ItemKey| format!("{}/{}", k.resource, k.name);
        (
            change.upserts.iter().map(|i| name(i.key.as_ref().unwrap())).collect(),
            change.removals.iter().map(name).collect(),
        )
    }

    #[tokio::test]
    async fn a_node_gets_its_pods_after_what_they_refer_to_and_loses_both_with_the_pod() {
        let db = LocalDb::new(triarch_mvcc::Limits::default());
        let (p, other) = (Key::new(PODS, "a", "p"), Key::new(PODS, "a", "other"));
        let (c, unused) = (Key::new("configmaps", "a", "c"), Key::new("configmaps", "a", "unused"));
        put(&db, &c, json!({"data": {}})).await;
        put(&db, &unused, json!({"data": {}})).await;
        put(&db, &p, pod("n1", "c")).await;
        put(&db, &other, pod("n2", "unused")).await;

        let mut set = NodeSet::new("n1", []);
        let items = set.full(db.mvcc(), &[p.clone(), other.clone()].into());
        let got = names(&Change { upserts: items, removals: vec![] }).0;
        assert_eq!(got, ["configmaps/c", "pods/p"]);

        // What others refer to is never sent, even when it changes.
        let dirty: BTreeSet<Key> = [unused.clone(), other.clone()].into();
        assert_eq!(names(&set.delta(db.mvcc(), &dirty)), (vec![], vec![]));

        put(&db, &p, pod("n1", "unused")).await;
        let change = set.delta(db.mvcc(), &[p.clone()].into());
        assert_eq!(names(&change), (vec!["configmaps/unused".into(), "pods/p".into()], vec!["configmaps/c".into()]));

        db.commit(Txn { ops: vec![Op::Delete(p.clone())], ..Txn::default() }).await.unwrap();
        let change = set.delta(db.mvcc(), &[p].into());
        assert_eq!(names(&change), (vec![], vec!["configmaps/unused".into(), "pods/p".into()]));
    }

    #[tokio::test]
    async fn an_unchanged_object_is_not_sent_again() {
        let db = LocalDb::new(triarch_mvcc::Limits::default());
        let s = Key::new("services", "a", "s");
        put(&db, &s, json!({"spec": {}})).await;
        let mut set = NodeSet::new("n1", []);
        assert_eq!(set.full(db.mvcc(), &BTreeSet::new()).len(), 1);
        assert!(set.delta(db.mvcc(), &[s.clone()].into()).upserts.is_empty());
        let mut hollow = NodeSet::new("n2", ["services".to_owned()]);
        assert!(hollow.full(db.mvcc(), &BTreeSet::new()).is_empty());
    }
}
