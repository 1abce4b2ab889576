//! A new content written beside the old one: snapshot install and rotation.

use std::sync::Arc;

use triarch_mutants::mutant;
use triarch_mvcc::{Key, Object, Revision};

use crate::codec::{self, Header, Root, StoredObject, Totals};
use crate::error::CheckpointError;
use crate::kv::{Batch, Kv};
use crate::store::{ADVISED_BATCH_BYTES, Inner, write_record, write_root};

/// A generation being written. Dropped unfinished, it is removed and the
/// checkpoint stays what it was.
pub struct Replacement {
    inner: Arc<Inner>,
    generation: u64,
    kv: Option<Arc<dyn Kv>>,
    batch: Batch,
    totals: Totals,
}

impl Replacement {
    pub(crate) fn new(inner: Arc<Inner>, generation: u64, kv: Arc<dyn Kv>) -> Replacement {
        Replacement { inner, generation, kv: Some(kv), batch: Batch::default(), totals: Totals::default() }
    }

    fn kv(&self) -> &Arc<dyn Kv> {
        self.kv.as_ref().expect("taken only by finish and drop")
    }

    /// Adds objects; each key once.
    pub fn push(&mut self, page: &[StoredObject]) -> Result<(), CheckpointError> {
        page.iter().try_for_each(|o| self.push_object(&o.key, &o.object, o.create_revision, o.mod_revision))
    }

    pub fn push_object(
        &mut self,
        key: &Key,
        object: &Object,
        create: Revision,
        modified: Revision,
    ) -> Result<(), CheckpointError> {
        let prefix = codec::object_prefix(key);
        let record = codec::encode_object(&prefix, create, modified, object)?;
        codec::weight(&prefix, &record).into_iter().for_each(|w| self.totals.add(w));
        write_record(&mut self.batch, &prefix, None, Some(&record));
        if self.batch.bytes() >= ADVISED_BATCH_BYTES {
            let batch = std::mem::take(&mut self.batch);
            self.kv().apply(batch).map_err(CheckpointError::io("write a page"))?;
            // Nothing depends on this sync; it keeps what waits in memory small.
            self.kv().sync().map_err(CheckpointError::io("sync a page"))?;
        }
        Ok(())
    }

    /// Makes this the checkpoint: durable on return. Until then, and after an
    /// error, the old one is.
    pub fn finish(mut self, header: Header) -> Result<(), CheckpointError> {
        let root = Root { header, totals: self.totals };
        let mut batch = std::mem::take(&mut self.batch);
        write_root(&mut batch, None, &root)?;
        self.kv().apply(batch).map_err(CheckpointError::io("write a page"))?;
        if !mutant("generation-not-synced") {
            self.kv().sync().map_err(CheckpointError::io("sync a page"))?;
        }
        self.inner.switch(self.generation, self.kv().clone(), root)?;
        self.kv = None;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.kv.take().is_some() {
            self.inner.discard(self.generation);
        }
    }
}
