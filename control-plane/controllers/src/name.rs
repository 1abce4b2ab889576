//! Names of objects and keys of work.

use std::fmt;
use std::sync::Arc;

/// Namespace and name; ordered in that order. A cluster-scoped object has an empty namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Name {
    pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Name {
        Name { namespace: namespace.as_ref().into(), name: name.as_ref().into() }
    }

    /// The name of a cluster-scoped object.
    pub fn cluster(name: impl AsRef<str>) -> Name {
        Name::new("", name)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// One unit of work of a controller: usually the object that it owns.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub resource: &'static str,
    pub name: Name,
}

impl Key {
    pub fn new(resource: &'static str, name: Name) -> Key {
        Key { resource, name }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", self.resource, self.name)
    }
}
