//! A hash of the facade's keyspace at a revision, for comparing replicas.

use super::facade_lease;
use crate::domain::DomainId;
use crate::table::{self, Slots};
use crate::{FACADE_RESOURCE, Key, Mvcc, Prefix, ReadError, Revision, Stored};

/// A hash being made, from a view that holds up nobody. It covers what every
/// key holds at the revision (value, version, revisions, lease) and nothing of
/// how it came to be, so compactions do not change it.
#[derive(Debug)]
pub struct FacadeHash {
    slots: Slots,
    revision: Revision,
    after: Option<Key>,
    hash: u32,
}

impl FacadeHash {
    /// At one of the facade's revisions (`None`: the head).
    pub fn begin(mvcc: &Mvcc, at: Option<Revision>) -> Result<FacadeHash, ReadError> {
        let state = mvcc.state.read();
        let revision = state.domains[DomainId::Facade as usize].readable(at)?;
        let slots = state.table(FACADE_RESOURCE.as_bytes()).map(|t| t.slots.clone()).unwrap_or_default();
        Ok(FacadeHash { slots, revision, after: None, hash: 0 })
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Hashes up to `keys` further keys; the hash when that was all.
    pub fn step(&mut self, keys: usize) -> Option<u32> {
        let prefix = Prefix::resource(FACADE_RESOURCE);
        let (mut seen, mut last) = (0, None);
        for (key, slot) in table::range(&self.slots, &prefix, self.after.as_ref()).take(keys.max(1)) {
            if let Some(stored) = slot.at(key, self.revision) {
                self.hash = add(self.hash, &stored);
            }
            (seen, last) = (seen + 1, Some(key));
        }
        if seen < keys.max(1) {
            return Some(self.hash);
        }
        self.after = last.cloned();
        None
    }
}

fn add(hash: u32, s: &Stored) -> u32 {
    let (key, value) = (s.key.as_bytes(), &s.object.bytes);
    let numbers = [
        key.len() as u64,
        value.len() as u64,
        s.create_revision,
        s.mod_revision,
        s.object.meta.generation as u64,
        facade_lease(&s.object) as u64,
    ];
    let hash = numbers.iter().fold(hash, |hash, n| crc32c::crc32c_append(hash, &n.to_le_bytes()));
    crc32c::crc32c_append(crc32c::crc32c_append(hash, key), value)
}
