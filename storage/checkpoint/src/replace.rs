//! A new content written beside the old one, as one run: snapshot install and
//! whole checkpoints.

use std::sync::Arc;

use triarch_mvcc::{Key, Object, Revision};

use crate::codec::{Header, StoredObject};
use crate::error::CheckpointError;
use crate::run::Writer;
use crate::store::Inner;

/// A content being written. Dropped unfinished, it is removed and the
/// checkpoint stays what it was.
pub struct Replacement {
    inner: Arc<Inner>,
    writer: Writer,
}

impl Replacement {
    pub(crate) fn new(inner: Arc<Inner>, writer: Writer) -> Replacement {
        Replacement { inner, writer }
    }

    /// Adds objects, in the order of their keys.
    ///
    /// # Errors
    /// The disk's, and objects in another order.
    pub fn push(&mut self, page: &[StoredObject]) -> Result<(), CheckpointError> {
        page.iter().try_for_each(|o| self.push_object(&o.key, &o.object, o.create_revision, o.mod_revision))
    }

    /// [`Replacement::push`] of one.
    ///
    /// # Errors
    /// The same.
    pub fn push_object(
        &mut self,
        key: &Key,
        object: &Object,
        create: Revision,
        modified: Revision,
    ) -> Result<(), CheckpointError> {
        self.writer.put(key.as_bytes(), Some(&(create, modified, object)))
    }

    /// Makes this the checkpoint: durable on return. Until then, and after an
    /// error, the old one is.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(self, header: Header) -> Result<(), CheckpointError> {
        let run = self.writer.finish(header, 0)?;
        self.inner.replaced(run);
        Ok(())
    }
}
