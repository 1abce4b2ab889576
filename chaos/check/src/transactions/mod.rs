//! Histories of a store with transactions and one revision counter: what
//! etcd's API promises, and Triarch behind it.
//!
//! ```text
//!   requests ─┬─► timeline ─┬─► replay   each answer against the state that its revision names
//!   watches ──┘             ├─► watch    ordered, gapless, true, honest progress
//!                           └─► finals   every member holds the end of it
//!   requests ───► project ──► search     the same by key, without trusting revisions
//! ```
//! Every effective transaction has a revision of its own and the counter has no
//! holes, so the order is given: the timeline replays it from nothing and is
//! then the truth for all answers. Values are unique in a history.

pub mod finals;
pub mod project;
pub mod replay;
pub mod timeline;
pub mod watch;

use std::sync::Arc;

pub use finals::{Member, check_members};
pub use project::operations;
pub use replay::check_requests;
pub use timeline::{Step, Timeline};
pub use watch::{Event, Seen, WatchLog, check_log};

pub type Key = Arc<str>;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub value: u64,
    /// Revision that made the key.
    pub created: u64,
    /// Revision of its last change.
    pub modified: u64,
    /// Changes since it was made, the making included.
    pub version: u64,
}

/// One request of one client, which asks one thing at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub client: u32,
    /// When it was asked, nanoseconds.
    pub start: u64,
    /// When its answer was there. Without meaning for an unknown one.
    pub end: u64,
    /// Nothing is written unless the key's last change is this revision (0: it is absent).
    pub guard: Option<(Key, u64)>,
    /// Values set, and keys removed (`None`), in one step.
    pub writes: Vec<(Key, Option<u64>)>,
    pub answer: Answer,
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No answer: it may have been carried out, or may be later.
    Unknown,
    /// Everything was written, at this revision.
    Wrote { revision: u64 },
    /// Nothing was changed. At `revision` these keys held this.
    Saw { revision: u64, found: Vec<(Key, Option<Kept>)> },
}

impl Request {
    /// The revision of its answer.
    pub fn revision(&self) -> Option<u64> {
        match self.answer {
            Answer::Unknown => None,
            Answer::Wrote { revision } | Answer::Saw { revision, .. } => Some(revision),
        }
    }

    pub(crate) fn describe(&self) -> String {
        let guard = self.guard.as_ref().map(|(key, revision)| format!(" if {key}@{revision}")).unwrap_or_default();
        let (client, writes, answer) = (self.client, &self.writes, &self.answer);
        format!("client {client} {writes:?}{guard} [{}..{}] {answer:?}", self.start, self.end)
    }
}

#[cfg(test)]
pub(crate) mod examples {
    use super::*;

    pub fn kept(value: u64, created: u64, modified: u64, version: u64) -> Kept {
        Kept { value, created, modified, version }
    }

    pub fn put(key: &str, value: u64, revision: u64, start: u64) -> Request {
        write(&[(key, Some(value))], revision, start)
    }

    pub fn write(writes: &[(&str, Option<u64>)], revision: u64, start: u64) -> Request {
        let writes = writes.iter().map(|(k, v)| (Key::from(*k), *v)).collect();
        let answer = Answer::Wrote { revision };
        Request { client: 1, start, end: start + 1, guard: None, writes, answer }
    }

    pub fn read(key: &str, found: Option<Kept>, revision: u64, start: u64) -> Request {
        let answer = Answer::Saw { revision, found: vec![(key.into(), found)] };
        Request { client: 2, start, end: start + 1, guard: None, writes: Vec::new(), answer }
    }

    /// Two puts, a transaction over two keys, a delete.
    pub fn history() -> Vec<Request> {
        vec![
            put("a", 1, 2, 0),
            put("a", 2, 3, 10),
            write(&[("a", Some(3)), ("b", Some(4))], 4, 20),
            write(&[("b", None)], 5, 30),
        ]
    }

    pub fn event(revision: u64, key: &str, after: Option<Kept>, before: Option<Kept>) -> Seen {
        Seen::Event(Event { revision, key: key.into(), after, before })
    }

    /// What a watcher of everything sees of it.
    pub fn log() -> WatchLog {
        let seen = vec![
            Seen::Resumed,
            event(2, "a", Some(kept(1, 2, 2, 1)), None),
            event(3, "a", Some(kept(2, 2, 3, 2)), Some(kept(1, 2, 2, 1))),
            Seen::Progress(3),
            event(4, "a", Some(kept(3, 2, 4, 3)), Some(kept(2, 2, 3, 2))),
            event(4, "b", Some(kept(4, 4, 4, 1)), None),
            event(5, "b", None, Some(kept(4, 4, 4, 1))),
        ];
        WatchLog { name: "w".into(), start: 1, end: 5, seen }
    }

    pub fn timeline(requests: &[Request], logs: &[WatchLog]) -> Timeline {
        let (timeline, found) = Timeline::collect(1, requests, logs);
        assert_eq!(found, []);
        timeline
    }
}
