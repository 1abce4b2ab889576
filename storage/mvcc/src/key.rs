//! Keys: `(resource, namespace, name)`, ordered in that order.

use std::borrow::Borrow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One object's key. The resource is `pods`, `deployments.apps`, …; names that
/// start with `~` are system state and are never served. A cluster-scoped
/// object has an empty namespace. On the wire and in order comparisons it is
/// `resource NUL namespace NUL name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(Bytes);

impl Key {
    /// # Panics
    /// In debug builds, when a part contains a NUL byte (validation refuses them before).
    pub fn new(resource: &str, namespace: &str, name: &str) -> Key {
        debug_assert!(![resource, namespace, name].iter().any(|p| p.contains('\0')));
        let mut b = Vec::with_capacity(resource.len() + namespace.len() + name.len() + 2);
        b.extend_from_slice(resource.as_bytes());
        b.push(0);
        b.extend_from_slice(namespace.as_bytes());
        b.push(0);
        b.extend_from_slice(name.as_bytes());
        Key(b.into())
    }

    /// The inverse of [`Key::as_bytes`]; `None` unless there are exactly two
    /// NULs and the text is UTF-8.
    pub fn from_bytes(bytes: Bytes) -> Option<Key> {
        let text = std::str::from_utf8(&bytes).ok()?;
        (text.bytes().filter(|b| *b == 0).count() == 2).then_some(())?;
        Some(Key(bytes))
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The part before the first NUL, as bytes: what tables are found by.
    pub(crate) fn resource_bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        &self.0[..end]
    }

    fn part(&self, i: usize) -> &str {
        let part = self.0.split(|b| *b == 0).nth(i).unwrap_or_default();
        std::str::from_utf8(part).unwrap_or_default()
    }

    pub fn resource(&self) -> &str {
        self.part(0)
    }

    pub fn namespace(&self) -> &str {
        self.part(1)
    }

    pub fn name(&self) -> &str {
        self.part(2)
    }

    /// System state: never listed or watched by an API client.
    pub fn is_system(&self) -> bool {
        self.0.first() == Some(&b'~')
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.resource(), self.namespace(), self.name())
    }
}

/// What a list or a watch covers: a resource, one namespace of it, or one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    pub resource: String,
    /// `None`: all namespaces. Cluster-scoped resources use `None`.
    pub namespace: Option<String>,
    /// `Some`: just this name (with `namespace`, or cluster-scoped).
    pub name: Option<String>,
}

impl Prefix {
    pub fn resource(resource: impl Into<String>) -> Prefix {
        Prefix { resource: resource.into(), namespace: None, name: None }
    }

    pub fn namespaced(resource: impl Into<String>, namespace: impl Into<String>) -> Prefix {
        Prefix { resource: resource.into(), namespace: Some(namespace.into()), name: None }
    }

    /// Every key of this prefix is at or after the first and before the second.
    pub(crate) fn bounds(&self) -> (Vec<u8>, Vec<u8>) {
        let mut low = self.resource.clone().into_bytes();
        low.push(0);
        if let Some(ns) = &self.namespace {
            low.extend_from_slice(ns.as_bytes());
            low.push(0);
            if let Some(name) = &self.name {
                low.extend_from_slice(name.as_bytes());
                let mut high = low.clone();
                high.push(0);
                return (low, high);
            }
        }
        let mut high = low.clone();
        *high.last_mut().expect("a NUL was pushed above") = 1;
        (low, high)
    }

    pub fn contains(&self, key: &Key) -> bool {
        key.resource() == self.resource
            && self.namespace.as_deref().is_none_or(|ns| key.namespace() == ns)
            && self.name.as_deref().is_none_or(|n| key.name() == n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_by_resource_then_namespace_then_name() {
        let mut keys = [
            Key::new("pods", "b", "a"),
            Key::new("pods", "a-b", "a"),
            Key::new("pods", "a", "z"),
            Key::new("nodes", "", "z"),
        ];
        keys.sort();
        let text: Vec<_> = keys.iter().map(|k| format!("{k:?}")).collect();
        assert_eq!(text, ["nodes//z", "pods/a/z", "pods/a-b/a", "pods/b/a"]);
        assert_eq!(Key::from_bytes(keys[1].as_bytes().clone()), Some(keys[1].clone()));
        assert_eq!(Key::from_bytes(Bytes::from_static(b"pods\0a")), None);
    }
}
