//! The checkpoint's content in [`triarch_checkpoint`]'s terms.

use serde::{Deserialize, Serialize};
use triarch_checkpoint::{ADVISED_PAGE_BYTES, AppliedLog, CheckpointError, CheckpointStore, StoredObject};
use triarch_mvcc::{AppliedAt, Change, Header, Import, Limits, Pin, Stored};

use crate::codec::{self, StoredMembershipRec};
use crate::types::NodeId;

/// Objects read from a view at once.
const PAGE_ITEMS: usize = 4096;

/// Where checkpoints go; blocks on the disk.
pub(crate) trait CheckpointDisk: Send + Sync + 'static {
    /// Makes the changes and the header durable, together.
    fn advance(&self, changes: &[Change], header: &Header, membership: &StoredMembershipRec) -> Result<(), String>;
    /// Replaces everything by `pin`.
    fn replace(
        &self,
        pin: &Pin,
        page_bytes: usize,
        header: &Header,
        membership: &StoredMembershipRec,
    ) -> Result<(), String>;
    /// Bytes on the disk.
    fn size(&self) -> u64;
}

/// What the checkpoint's header keeps for us beside its own fields.
#[derive(Serialize, Deserialize)]
struct Extra {
    membership: StoredMembershipRec,
    chain: [u8; 32],
}

/// The checkpoint of one replica.
pub(crate) struct Disk {
    pub store: CheckpointStore,
    pub cluster_id: String,
    pub node_id: NodeId,
}

impl Disk {
    fn header(&self, header: &Header, membership: &StoredMembershipRec) -> triarch_checkpoint::Header {
        let extra = Extra { membership: membership.clone(), chain: header.chain };
        let AppliedAt { index, term, node } = header.applied;
        triarch_checkpoint::Header {
            cluster_id: self.cluster_id.clone(),
            node_id: self.node_id,
            revision: header.revision,
            compacted: header.floor,
            applied: Some(AppliedLog { index, term, node }),
            membership: codec::encode(&extra),
            dedup: header.dedup.clone(),
            // The level itself is an object; every format so far is level 0's.
            feature_level: 0,
            chain_hash: header.chain[..8].iter().fold(0, |n, b| n << 8 | u64::from(*b)),
        }
    }
}

impl CheckpointDisk for Disk {
    fn advance(&self, changes: &[Change], header: &Header, membership: &StoredMembershipRec) -> Result<(), String> {
        let changes = changes.iter().map(|c| triarch_checkpoint::Change {
            key: c.key.clone(),
            object: c.stored.as_ref().map(|s| (s.object.clone(), s.create_revision, s.mod_revision)),
        });
        self.store.advance(changes.collect(), self.header(header, membership)).map_err(|e| e.to_string())?;
        self.store.tidy().map_err(|e| e.to_string())
    }

    fn replace(
        &self,
        pin: &Pin,
        page_bytes: usize,
        header: &Header,
        membership: &StoredMembershipRec,
    ) -> Result<(), String> {
        let write = || {
            let mut new = self.store.replace()?;
            let mut after = None;
            loop {
                let page = pin.page(after.as_ref(), PAGE_ITEMS, page_bytes);
                let Some(last) = page.last() else { break };
                after = Some(last.key.clone());
                for s in &page {
                    new.push_object(&s.key, &s.object, s.create_revision, s.mod_revision)?;
                }
            }
            new.finish(self.header(header, membership))
        };
        write().map_err(|e: CheckpointError| e.to_string())
    }

    fn size(&self) -> u64 {
        self.store.size_on_disk()
    }
}

/// A checkpoint that was read back.
pub(crate) struct Loaded {
    pub header: Header,
    pub membership: StoredMembershipRec,
    pub import: Import,
}

/// Why a checkpoint was not read back.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// It has to come from a peer.
    Lost(String),
    /// It must not be used at all.
    Refused(String),
}

/// Reads a whole checkpoint into memory.
pub(crate) fn load(
    store: &CheckpointStore,
    found: &triarch_checkpoint::Header,
    limits: &Limits,
    (cluster_id, node_id): (&str, NodeId),
) -> Result<Loaded, LoadError> {
    let lost = |e: &dyn std::fmt::Display| LoadError::Lost(e.to_string());
    if found.cluster_id != cluster_id || found.node_id != node_id {
        return Err(LoadError::Refused(format!(
            "it is of replica {} of cluster {}, not of replica {node_id} of cluster {cluster_id}; move the directory \
             checkpoint/ away, and this replica fetches one from another",
            found.node_id, found.cluster_id
        )));
    }
    let extra: Extra = codec::decode("the checkpoint's header", &found.membership).map_err(|e| lost(&e))?;
    let at = found.applied.ok_or_else(|| lost(&"its header names no log entry"))?;
    let header = Header {
        applied: AppliedAt { index: at.index, term: at.term, node: at.node },
        revision: found.revision,
        floor: found.compacted,
        chain: extra.chain,
        dedup: found.dedup.clone(),
    };
    let mut import = Import::new(limits.clone(), &header).map_err(|e| lost(&e))?;
    let mut pages = store.pages().map_err(|e| lost(&e))?;
    loop {
        let page = match pages.next_page(ADVISED_PAGE_BYTES) {
            Ok(Some(page)) => page,
            Ok(None) => break,
            Err(e @ CheckpointError::Unsupported(_)) => return Err(LoadError::Refused(e.to_string())),
            Err(e) => return Err(lost(&e)),
        };
        for StoredObject { key, object, create_revision, mod_revision } in page {
            import.add(Stored { key, object, create_revision, mod_revision }).map_err(|e| lost(&e))?;
        }
    }
    Ok(Loaded { header, membership: extra.membership, import })
}
