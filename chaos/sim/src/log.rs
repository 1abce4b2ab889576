//! What happened in the store, as all replicas together have shown it: one
//! entry for each revision, and the state at any of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use triarch_mvcc::{Event, Key, Object, Prefix, Revision};

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    /// `None`: a delete.
    pub value: Option<Bytes>,
    /// Where an API object's revision stands in `value`.
    pub slot: Option<u32>,
    pub prev: Option<Bytes>,
    pub prev_revision: Revision,
    pub create_revision: Revision,
}

impl Entry {
    pub fn of(event: &Event) -> Entry {
        Entry {
            key: event.key.clone(),
            value: event.object.as_ref().map(|o| o.bytes.clone()),
            slot: event.object.as_ref().and_then(|o| o.slot),
            prev: event.prev.as_ref().map(|o| o.bytes.clone()),
            prev_revision: event.prev_revision,
            create_revision: event.create_revision,
        }
    }

    /// An API object that was written at `revision`, as it is served.
    pub fn json(&self, revision: Revision) -> Option<Value> {
        let (bytes, slot) = (self.value.clone()?, self.slot);
        Some(json(&Object { bytes, slot, meta: Arc::default() }, revision))
    }
}

/// An API object of `revision` as it is served.
pub fn json(object: &Object, revision: Revision) -> Value {
    let text = [b"{", &object.served(revision)[..]].concat();
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("an object in the store is no JSON: {e}: {object:?}"))
}

/// A key's state: value, create and mod revision.
pub type Cell = (Bytes, Revision, Revision);

/// The log of a run.
#[derive(Debug, Default)]
pub struct Log {
    pub entries: BTreeMap<Revision, Entry>,
    /// Per key, its writes in order; built by [`Log::index`].
    by_key: BTreeMap<Key, Vec<Revision>>,
}

/// A digest of a whole state.
pub type Digest32 = [u8; 32];

pub fn digest<'a>(cells: impl Iterator<Item = (&'a Key, &'a Cell)>) -> Digest32 {
    let mut sha = Sha256::new();
    for (key, (value, create, modified)) in cells {
        sha.update((key.as_bytes().len() as u64).to_le_bytes());
        sha.update(key.as_bytes());
        sha.update((value.len() as u64).to_le_bytes());
        sha.update(value);
        sha.update(create.to_le_bytes());
        sha.update(modified.to_le_bytes());
    }
    sha.finalize().into()
}

impl Log {
    /// Notes what a replica shows at a revision; `Err` with what another showed.
    /// `Ok(true)`: another replica, or an earlier process, had shown the same.
    pub fn note(&mut self, event: &Event) -> Result<bool, Entry> {
        let entry = Entry::of(event);
        match self.entries.get(&event.revision) {
            Some(known) if *known == entry => Ok(true),
            Some(known) => Err(known.clone()),
            None => {
                self.entries.insert(event.revision, entry);
                Ok(false)
            }
        }
    }

    /// Prepares the look-ups by key; to be called once the log is complete.
    pub fn index(&mut self) {
        self.by_key.clear();
        for (revision, entry) in &self.entries {
            self.by_key.entry(entry.key.clone()).or_default().push(*revision);
        }
    }

    /// The last write of `key` at or before `at`, when it left something there.
    pub fn at(&self, key: &Key, at: Revision) -> Option<(Revision, &Bytes)> {
        let all = self.by_key.get(key)?;
        let last = all[..all.partition_point(|r| *r <= at)].last()?;
        self.entries[last].value.as_ref().map(|v| (*last, v))
    }

    /// The writes of a key.
    pub fn of(&self, key: &Key) -> &[Revision] {
        self.by_key.get(key).map_or(&[], Vec::as_slice)
    }

    /// The writes under a prefix in `(after, upto]`.
    pub fn under(&self, prefix: &Prefix, after: Revision, upto: Revision) -> impl Iterator<Item = (Revision, &Entry)> {
        let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Included(upto.max(after)));
        let empty = after >= upto;
        let found = self.entries.range(range).filter(move |_| !empty).map(|(r, e)| (*r, e));
        found.filter(|(_, e)| prefix.contains(&e.key))
    }

    pub fn head(&self) -> Revision {
        self.entries.last_key_value().map_or(0, |(r, _)| *r)
    }
}
