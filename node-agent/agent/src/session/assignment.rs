//! What the control plane has assigned to the node: a pure state machine.
//!
//! A complete set replaces everything; deltas follow in revision order. An
//! older term, or an older revision of the same or an older term, is refused.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use triarch_rpc::node::{Assign, Delta, Item, ItemKey};

/// Most objects that a node takes; a larger assignment is refused by name.
pub const MAX_ITEMS: usize = 400_000;

/// Resource, namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

impl From<ItemKey> for Key {
    fn from(k: ItemKey) -> Key {
        Key { resource: k.resource, namespace: k.namespace, name: k.name }
    }
}

impl From<&Key> for ItemKey {
    fn from(k: &Key) -> ItemKey {
        ItemKey { resource: k.resource.clone(), namespace: k.namespace.clone(), name: k.name.clone() }
    }
}

/// What a message changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// The set is complete: what it does not name is gone.
    pub complete: bool,
    pub upserts: Vec<(Key, Bytes)>,
    pub removals: Vec<Key>,
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "the replica is behind: it assigns revision {revision} of term {term}, the node has revision {have_revision} of term {have_term}"
    )]
    Older { term: u64, revision: u64, have_term: u64, have_revision: u64 },
    #[error("a delta came before the complete set")]
    NoCompleteSet,
    #[error("the assignment has more than {MAX_ITEMS} objects")]
    TooLarge,
}

/// The assignment in force. With `keep` it also holds the objects' bytes, for
/// the ledger.
#[derive(Debug, Default)]
pub struct Assignment {
    pub term: u64,
    pub revision: u64,
    items: BTreeMap<Key, Bytes>,
    keep: bool,
    /// Parts of a complete set that has not ended yet.
    partial: Option<(u64, u64, Vec<Item>)>,
    /// A complete set came in this session.
    complete: bool,
}

impl Assignment {
    pub fn new(keep: bool) -> Assignment {
        Assignment { keep, ..Default::default() }
    }

    /// A new session: deltas count only after its own complete set.
    pub fn session_started(&mut self) {
        self.complete = false;
        self.partial = None;
    }

    pub fn items(&self) -> impl Iterator<Item = (&Key, &Bytes)> {
        self.items.iter()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn check(&self, term: u64, revision: u64) -> Result<(), Refused> {
        let (have_term, have_revision) = (self.term, self.revision);
        if term < have_term || revision < have_revision {
            return Err(Refused::Older { term, revision, have_term, have_revision });
        }
        Ok(())
    }

    fn put(&mut self, item: Item) -> Option<(Key, Bytes)> {
        let key = Key::from(item.key?);
        // A copy: the message's buffer is larger than what is kept of it.
        let bytes = Bytes::copy_from_slice(&item.json);
        self.items.insert(key.clone(), if self.keep { bytes.clone() } else { Bytes::new() });
        Some((key, bytes))
    }

    /// A part of a complete set; `None` until its last part.
    pub fn assign(&mut self, part: Assign) -> Result<Option<Change>, Refused> {
        self.check(part.term, part.revision)?;
        let same = matches!(&self.partial, Some((t, r, _)) if (*t, *r) == (part.term, part.revision));
        if !same {
            self.partial = Some((part.term, part.revision, Vec::new()));
        }
        let Some((_, _, items)) = &mut self.partial else { return Ok(None) };
        if items.len() + part.items.len() > MAX_ITEMS {
            self.partial = None;
            return Err(Refused::TooLarge);
        }
        items.extend(part.items);
        if !part.last {
            return Ok(None);
        }
        let (term, revision, items) = self.partial.take().unwrap_or_default();
        let named: BTreeSet<Key> = items.iter().filter_map(|i| i.key.clone()).map(Key::from).collect();
        let removals: Vec<Key> = self.items.keys().filter(|k| !named.contains(k)).cloned().collect();
        for key in &removals {
            self.items.remove(key);
        }
        let upserts = items.into_iter().filter_map(|i| self.put(i)).collect();
        (self.term, self.revision, self.complete) = (term, revision, true);
        Ok(Some(Change { complete: true, upserts, removals }))
    }

    /// A delta; one that says nothing new at the revision in force is empty.
    pub fn delta(&mut self, delta: Delta) -> Result<Change, Refused> {
        if !self.complete {
            return Err(Refused::NoCompleteSet);
        }
        self.check(delta.term, delta.revision)?;
        if self.items.len() + delta.upserts.len() > MAX_ITEMS {
            return Err(Refused::TooLarge);
        }
        let removals: Vec<Key> = delta.removals.into_iter().map(Key::from).collect();
        for key in &removals {
            self.items.remove(key);
        }
        let upserts = delta.upserts.into_iter().filter_map(|i| self.put(i)).collect();
        (self.term, self.revision) = (delta.term, delta.revision);
        Ok(Change { complete: false, upserts, removals })
    }

    /// What the ledger held, at start.
    pub fn restore(&mut self, term: u64, revision: u64, items: Vec<(Key, Bytes)>) {
        (self.term, self.revision) = (term, revision);
        self.items = items.into_iter().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, json: &str) -> Item {
        let key = ItemKey { resource: "pods".into(), namespace: "d".into(), name: name.into() };
        Item { key: Some(key), revision: 1, json: Bytes::copy_from_slice(json.as_bytes()) }
    }

    fn assign(term: u64, revision: u64, names: &[&str], last: bool) -> Assign {
        Assign { term, revision, items: names.iter().map(|n| item(n, "{}")).collect(), last }
    }

    fn names(keys: &[Key]) -> Vec<&str> {
        keys.iter().map(|k| k.name.as_str()).collect()
    }

    #[test]
    fn a_complete_set_in_parts_takes_effect_with_its_last_part_and_absence_removes() {
        let mut a = Assignment::new(true);
        assert!(a.assign(assign(1, 5, &["a", "b"], true)).expect("taken").is_some());
        assert_eq!(a.assign(assign(1, 6, &["b"], false)).expect("taken"), None);
        assert_eq!(a.revision, 5);
        let change = a.assign(assign(1, 6, &["c"], true)).expect("taken").expect("complete");
        assert_eq!(names(&change.removals), ["a"]);
        assert_eq!((a.len(), a.revision), (2, 6));
    }

    #[test]
    fn older_terms_and_revisions_are_refused() {
        let mut a = Assignment::new(true);
        a.assign(assign(2, 10, &["a"], true)).expect("taken");
        assert!(matches!(a.assign(assign(1, 11, &[], true)), Err(Refused::Older { .. })));
        assert!(matches!(a.assign(assign(2, 9, &[], true)), Err(Refused::Older { .. })));
        let delta = Delta { term: 2, revision: 9, ..Default::default() };
        assert!(matches!(a.delta(delta), Err(Refused::Older { .. })));
        assert_eq!(a.len(), 1);
        assert!(a.assign(assign(3, 10, &["a"], true)).expect("taken").is_some());
    }

    #[test]
    fn deltas_wait_for_the_sessions_complete_set() {
        let mut a = Assignment::new(true);
        a.assign(assign(1, 5, &["a"], true)).expect("taken");
        a.session_started();
        let delta = Delta { term: 1, revision: 6, upserts: vec![item("b", "{}")], ..Default::default() };
        assert_eq!(a.delta(delta.clone()), Err(Refused::NoCompleteSet));
        a.assign(assign(1, 5, &["a"], true)).expect("the same revision again is fine");
        let change = a.delta(delta).expect("taken");
        assert_eq!((change.upserts.len(), a.len(), a.revision), (1, 2, 6));
    }
}
