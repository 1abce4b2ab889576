//! Persistent maps of typed objects and the indexes over them. Clones are O(1).

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::Name;

/// Objects of one kind by namespace and name.
#[derive(Debug)]
pub struct Store<T>(OrdMap<Name, Arc<T>>);

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Store(self.0.clone())
    }
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Store(OrdMap::new())
    }
}

impl<T> Store<T> {
    pub fn get(&self, name: &Name) -> Option<&Arc<T>> {
        self.0.get(name)
    }

    /// A cluster-scoped object.
    pub fn named(&self, name: &str) -> Option<&Arc<T>> {
        self.0.get(&Name::cluster(name))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Arc<T>)> {
        self.0.iter()
    }

    pub fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.values()
    }

    /// One namespace, in name order.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a Name, &'a Arc<T>)> {
        self.0.range(Name::new(namespace, "")..).take_while(move |(n, _)| &*n.namespace == namespace)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, name: Name, object: Arc<T>) -> Option<Arc<T>> {
        self.0.insert(name, object)
    }

    pub(crate) fn remove(&mut self, name: &Name) -> Option<Arc<T>> {
        self.0.remove(name)
    }
}

/// Names by some property of their objects (node, owner's uid, service).
#[derive(Clone, Debug, Default)]
pub struct Index(OrdSet<(Arc<str>, Name)>);

impl Index {
    /// The names under `value`, in order.
    pub fn get<'a>(&'a self, value: &'a str) -> impl Iterator<Item = &'a Name> {
        let from: (Arc<str>, Name) = (value.into(), Name::new("", ""));
        self.0.range((Bound::Included(from), Bound::Unbounded)).take_while(move |(v, _)| &**v == value).map(|(_, n)| n)
    }

    pub fn count(&self, value: &str) -> usize {
        self.get(value).count()
    }

    pub(crate) fn replace(&mut self, name: &Name, old: Option<&str>, new: Option<&str>) {
        if old == new {
            return;
        }
        if let Some(v) = old {
            self.0.remove(&(v.into(), name.clone()));
        }
        if let Some(v) = new {
            self.0.insert((v.into(), name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_range_holds_only_that_namespace() {
        let mut s = Store::default();
        for (ns, n) in [("a", "1"), ("a-b", "1"), ("b", "2"), ("b", "1")] {
            s.insert(Name::new(ns, n), Arc::new(format!("{ns}{n}")));
        }
        let got: Vec<_> = s.in_namespace("b").map(|(_, o)| o.as_str()).collect();
        assert_eq!(got, ["b1", "b2"]);
        assert_eq!(s.in_namespace("a").count(), 1);
    }

    #[test]
    fn an_index_follows_a_changed_value_and_a_clone_keeps_the_old_one() {
        let mut i = Index::default();
        let n = Name::new("a", "x");
        i.replace(&n, None, Some("n1"));
        let before = i.clone();
        i.replace(&n, Some("n1"), Some("n2"));
        assert_eq!((i.count("n1"), i.count("n2"), before.count("n1")), (0, 1, 1));
        i.replace(&n, Some("n2"), None);
        assert_eq!(i.count("n2"), 0);
    }
}
