//! One key: what it holds now, and its events inside the window.
//!
//! The state at a past revision is what the first later event found (`prev`),
//! so the window needs no copy of any value.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Event, Key, Object, Revision, Stored};

#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// `None`: a tombstone, here only as long as an event of the key is.
    pub object: Option<Object>,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// Events in the window, oldest first. Boxed: most keys have none.
    #[allow(clippy::box_collection)]
    history: Option<Box<VecDeque<Arc<Event>>>>,
}

impl Slot {
    pub fn new(object: Option<Object>, create_revision: Revision, mod_revision: Revision) -> Slot {
        Slot { object, create_revision, mod_revision, history: None }
    }

    pub fn now(&self, key: &Key) -> Option<Stored> {
        let object = self.object.clone()?;
        let (create_revision, mod_revision) = (self.create_revision, self.mod_revision);
        Some(Stored { key: key.clone(), object, create_revision, mod_revision })
    }

    /// Whether the key held something at `at`, which the window covers.
    pub fn alive_at(&self, at: Revision) -> bool {
        if self.mod_revision <= at {
            self.object.is_some()
        } else {
            self.first_after(at).is_some_and(|e| e.prev.is_some())
        }
    }

    /// What the key held at `at`, which the window covers.
    pub fn at(&self, key: &Key, at: Revision) -> Option<Stored> {
        if self.mod_revision <= at {
            return self.now(key);
        }
        let event = self.first_after(at)?;
        let object = event.prev.clone()?;
        let (create_revision, mod_revision) = (event.create_revision, event.prev_revision);
        Some(Stored { key: key.clone(), object, create_revision, mod_revision })
    }

    fn first_after(&self, at: Revision) -> Option<&Arc<Event>> {
        let history = self.history.as_ref()?;
        history.get(history.partition_point(|e| e.revision <= at))
    }

    pub fn push(&mut self, event: Arc<Event>) {
        self.history.get_or_insert_with(|| Box::new(VecDeque::with_capacity(1))).push_back(event);
    }

    /// The oldest event leaves the window. `true`: nothing is left of the key.
    pub fn pop(&mut self) -> bool {
        if let Some(history) = &mut self.history {
            history.pop_front();
            if history.is_empty() {
                self.history = None;
            } else if history.capacity() > 32 && history.len() * 4 < history.capacity() {
                history.shrink_to(history.len() * 2);
            }
        }
        self.object.is_none() && self.history.is_none()
    }
}
