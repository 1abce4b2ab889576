//! What a watcher is shown: one effective write of one key.

use crate::{Key, Object, Revision};

/// Whether the key holds something after the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One write. History and watchers share the same event, and an event shares
/// its objects' bytes with its neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub revision: Revision,
    pub key: Key,
    pub kind: EventKind,
    /// `None` for a delete.
    pub object: Option<Object>,
    /// What the key held before; `None`: the key was created.
    pub prev: Option<Object>,
    /// The revision of `prev`; 0 without one.
    pub prev_revision: Revision,
    /// When the key's present life began; for a delete, the life that ended.
    pub create_revision: Revision,
}

impl Event {
    /// What the event costs the window: the bytes that would go with it, and
    /// its own size with what points to it.
    pub(crate) fn weight(&self) -> usize {
        const OWN: usize = size_of::<Event>() + 16 + 8 + 8 + 4;
        OWN + self.object.as_ref().map_or(0, |o| o.bytes.len())
    }
}
