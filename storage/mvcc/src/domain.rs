//! A revision counter with its window of history.
//!
//! There are two: API objects and system state share the main one, and the
//! etcd facade has its own. Every table belongs to one of them.

use std::collections::VecDeque;

use crate::{ReadError, Revision};

/// Which counter a table's revisions are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DomainId {
    Main = 0,
    Facade = 1,
}

#[derive(Debug, Default)]
pub(crate) struct Domain {
    /// The head.
    pub revision: Revision,
    /// Replicated: states before it may go.
    pub floor: Revision,
    /// Every event at and below it is gone here.
    pub dropped: Revision,
    /// The window: the table of each event, oldest first.
    pub order: VecDeque<u32>,
    /// Bytes that the window keeps.
    pub bytes: usize,
    /// The events of the floor itself stay, so that a watch may begin with
    /// them: etcd's rule. Without it a watch begins after the floor.
    pub keeps_floor: bool,
}

impl Domain {
    /// The lowest revision that can be read.
    pub fn lowest(&self) -> Revision {
        self.floor.max(self.dropped)
    }

    /// Events at and below this revision may go.
    pub fn releasable(&self) -> Revision {
        self.floor - Revision::from(self.keeps_floor)
    }

    /// The lowest revision after which everything can be watched.
    pub fn watchable(&self) -> Revision {
        self.releasable().max(self.dropped)
    }

    /// The revision to read at: `at`, or the head.
    pub fn readable(&self, at: Option<Revision>) -> Result<Revision, ReadError> {
        match at {
            None => Ok(self.revision),
            Some(at) if at > self.revision => Err(ReadError::Future { head: self.revision }),
            Some(at) if at < self.lowest() => Err(ReadError::Compacted { floor: self.lowest() }),
            Some(at) => Ok(at),
        }
    }
}
