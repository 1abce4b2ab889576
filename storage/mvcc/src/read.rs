//! Questions and answers of reads.

use crate::{Key, Object, Prefix, Revision};

/// An object as it is (or was) in the store. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub key: Key,
    pub object: Object,
    pub create_revision: Revision,
    pub mod_revision: Revision,
}

/// Why a read at a revision has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// History below `floor` is gone.
    #[error("required revision has been compacted (floor {floor})")]
    Compacted { floor: Revision },
    /// The revision has not happened here yet.
    #[error("required revision is a future revision (head {head})")]
    Future { head: Revision },
}

/// A page of a list: the first `limit` keys of `prefix` after `after`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRequest {
    pub prefix: Prefix,
    /// The last key of the page before.
    pub after: Option<Key>,
    /// 0: all.
    pub limit: usize,
    /// `None`: the present.
    pub at: Option<Revision>,
}

impl ListRequest {
    /// Everything under `prefix`, now.
    pub fn all(prefix: Prefix) -> ListRequest {
        ListRequest { prefix, after: None, limit: 0, at: None }
    }
}

/// A page, in key order, as of `revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListResult {
    pub revision: Revision,
    pub items: Vec<Stored>,
    /// There are keys after the last item.
    pub more: bool,
    /// How many.
    pub remaining: u64,
}
