//! The chain hash: equal on replicas that applied the same, and (but for a
//! checksum's collision) on no others. Each entry hashes the hash before it,
//! its index and what it wrote.

use sha2::{Digest, Sha256};

use crate::domain::DomainId;
use crate::{Event, facade_lease};

#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    pub hash: [u8; 32],
    /// What the entry being applied has written so far.
    pending: Vec<u8>,
}

impl Chain {
    pub fn new(hash: [u8; 32]) -> Chain {
        Chain { hash, pending: Vec::new() }
    }

    /// Values enter by length and CRC32C, so that hashing costs nothing that
    /// grows with what a cryptographic hash would: the chain is for finding
    /// diverged replicas, not for adversaries.
    pub fn write(&mut self, domain: DomainId, event: &Event) {
        let key = event.key.as_bytes();
        self.pending.push(domain as u8);
        self.pending.extend_from_slice(&event.revision.to_le_bytes());
        self.pending.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.pending.extend_from_slice(key);
        let (len, crc) =
            event.object.as_ref().map_or((u64::MAX, 0), |o| (o.bytes.len() as u64, crc32c::crc32c(&o.bytes)));
        self.pending.extend_from_slice(&len.to_le_bytes());
        self.pending.extend_from_slice(&crc.to_le_bytes());
        // Most of the facade's keys have no lease, and then none is hashed.
        let lease = event.object.as_ref().filter(|_| domain == DomainId::Facade).map_or(0, facade_lease);
        if lease != 0 {
            self.pending.extend_from_slice(&lease.to_le_bytes());
        }
    }

    /// The entry is done.
    pub fn close(&mut self, index: u64, floors: [u64; 2]) {
        let mut sha = Sha256::new();
        sha.update(self.hash);
        sha.update(index.to_le_bytes());
        floors.iter().for_each(|f| sha.update(f.to_le_bytes()));
        sha.update(&self.pending);
        self.hash = sha.finalize().into();
        self.pending.clear();
        self.pending.shrink_to(1 << 16);
    }
}
