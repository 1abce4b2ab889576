//! The objects that the node was assigned besides its pods.
//!
//! Shared by pods (ConfigMaps, Secrets, Services) and by the node's network
//! (Services, EndpointSlices, Nodes), which is woken when its objects change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use triarch_kubelet::ports::Objects;
use triarch_proxy::{EndpointSlice, Service};

use crate::session::assignment::Key;

pub const SLICES: &str = "endpointslices.discovery.k8s.io";

#[derive(Default)]
pub struct Store {
    inner: Mutex<Inner>,
    /// Services, slices or nodes changed.
    pub network: Notify,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<Key, Arc<Value>>,
    slices: BTreeMap<Key, Arc<EndpointSlice>>,
    services: BTreeMap<Key, Arc<Service>>,
    /// Keys seen since a complete set began.
    fresh: Option<BTreeSet<Key>>,
}

impl Store {
    pub fn begin_complete(&self) {
        self.inner.lock().fresh = Some(BTreeSet::new());
    }

    /// Drops what the complete set did not name.
    pub fn end_complete(&self) {
        let mut inner = self.inner.lock();
        if let Some(fresh) = inner.fresh.take() {
            inner.objects.retain(|k, _| fresh.contains(k));
            inner.slices.retain(|k, _| fresh.contains(k));
            inner.services.retain(|k, _| fresh.contains(k));
        }
        drop(inner);
        self.network.notify_one();
    }

    /// Takes an object in; says whether it is new or different.
    pub fn put(&self, key: &Key, json: &[u8]) -> bool {
        let Ok(value) = serde_json::from_slice::<Value>(json) else {
            tracing::error!(resource = %key.resource, name = %key.name, "not an object");
            return false;
        };
        let mut inner = self.inner.lock();
        if let Some(fresh) = &mut inner.fresh {
            fresh.insert(key.clone());
        }
        match key.resource.as_str() {
            SLICES => {
                let slice = Arc::new(EndpointSlice::parse(&value));
                if inner.slices.get(key) == Some(&slice) {
                    return false;
                }
                inner.slices.insert(key.clone(), slice);
                drop(inner);
                self.network.notify_one();
                return true;
            }
            "services" => {
                inner.services.insert(key.clone(), Arc::new(Service::parse(&value)));
            }
            _ => {}
        }
        let changed = inner.objects.get(key).is_none_or(|old| **old != value);
        if changed {
            inner.objects.insert(key.clone(), Arc::new(value));
        }
        drop(inner);
        if changed && matches!(key.resource.as_str(), "services" | "nodes") {
            self.network.notify_one();
        }
        changed
    }

    pub fn remove(&self, key: &Key) {
        let mut inner = self.inner.lock();
        inner.objects.remove(key);
        inner.slices.remove(key);
        inner.services.remove(key);
        drop(inner);
        self.network.notify_one();
    }

    pub fn proxied(&self) -> (Vec<Arc<Service>>, Vec<Arc<EndpointSlice>>) {
        let inner = self.inner.lock();
        (inner.services.values().cloned().collect(), inner.slices.values().cloned().collect())
    }

    pub fn nodes(&self) -> Vec<Arc<Value>> {
        let inner = self.inner.lock();
        inner.objects.iter().filter(|(k, _)| k.resource == "nodes").map(|(_, v)| v.clone()).collect()
    }
}

impl Objects for Store {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = Key { resource: resource.into(), namespace: namespace.into(), name: name.into() };
        self.inner.lock().objects.get(&key).cloned()
    }

    fn services(&self, namespace: &str) -> Vec<Arc<Value>> {
        let first = Key { resource: "services".into(), namespace: namespace.into(), name: String::new() };
        let inner = self.inner.lock();
        let of_namespace = |k: &Key| k.resource == "services" && k.namespace == namespace;
        inner.objects.range(first..).take_while(|(k, _)| of_namespace(k)).map(|(_, v)| v.clone()).collect()
    }
}
