//! What clients did and what they were told.

/// What was asked of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets a value, whatever was there. Values are unique in a history.
    Write(u64),
    /// Sets a value when the key's revision is still the named one.
    Swap { from: u64, to: u64 },
    /// Makes a key that must be absent.
    Create(u64),
    /// Removes a key that must be present.
    Delete,
    /// Reads; the answer is in the outcome.
    Read,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged. `revision`: of the write, or of what was read; 0 when the
    /// answer named none. `value`: what was read, `None` for an absent key.
    Ok { revision: u64, value: Option<u64> },
    /// Refused: it has changed nothing.
    Refused,
    /// No answer: it may have been carried out, or may be later.
    Unknown,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub client: u32,
    pub key: String,
    pub action: Action,
    pub outcome: Outcome,
    /// When it was asked, nanoseconds.
    pub start: u64,
    /// When the answer was there. Without meaning for an unknown outcome.
    pub end: u64,
}

impl Operation {
    /// The value it sets, for those that set one.
    pub fn value_set(&self) -> Option<u64> {
        match self.action {
            Action::Write(v) | Action::Create(v) | Action::Swap { to: v, .. } => Some(v),
            Action::Delete | Action::Read => None,
        }
    }

    pub fn is_write(&self) -> bool {
        self.action != Action::Read
    }

    pub fn is_acked(&self) -> bool {
        matches!(self.outcome, Outcome::Ok { .. })
    }

    /// The revision that the answer named.
    pub fn revision(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Ok { revision, .. } if revision > 0 => Some(revision),
            _ => None,
        }
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("{key}: {later} was asked after {earlier} was answered, and comes before it")]
    Order { key: String, earlier: String, later: String },
    #[error("revision {revision} belongs to both {one} and {other}")]
    RevisionTwice { revision: u64, one: String, other: String },
    #[error("{key}: a read at revision {revision} found {found:?}; that revision wrote {wrote:?}")]
    WrongValue { key: String, revision: u64, found: Option<u64>, wrote: Option<u64> },
    #[error("{key}: found {value}, which nobody wrote there")]
    FromNowhere { key: String, value: u64 },
    #[error("{key}: no order of its operations explains their answers")]
    NotLinearizable { key: String },
    #[error("{key}: a compare-and-write from revision {from} succeeded at {revision}, over revision {found}")]
    LostUpdate { key: String, from: u64, revision: u64, found: u64 },
    #[error("{key}: {operation} was acknowledged and is lost: {found}")]
    Lost { key: String, operation: String, found: String },
    #[error("watch {watch}: revision {revision} after {previous}")]
    Disorder { watch: String, previous: u64, revision: u64 },
    #[error("watch {watch}: nothing of revision {revision} ({key})")]
    Gap { watch: String, revision: u64, key: String },
    #[error("watch {watch}: revision {revision} shows {shown}; it is {truth}")]
    Untrue { watch: String, revision: u64, shown: String, truth: String },
    #[error("watch {watch}: {what}")]
    Broken { watch: String, what: String },
    #[error("{key}: {value} was written at revision {one} and again at {other}")]
    AppliedTwice { key: String, value: u64, one: u64, other: u64 },
    #[error("revision {revision} is {happened}; asked was {asked}")]
    Partial { revision: u64, asked: String, happened: String },
    #[error("{key}: removed at revision {revision}, which nobody asked for")]
    Unasked { key: String, revision: u64 },
    #[error("nothing happened at revision {revision}, and later ones exist")]
    Unused { revision: u64 },
    #[error("{key}: refused at revision {revision}, where its last change is the {guard} that was asked for")]
    Refused { key: String, revision: u64, guard: u64 },
}
