//! What clients asked and what they were answered, with the times of both.

use bytes::Bytes;
use triarch_env::Mono;
use triarch_mvcc::{Epoch, Key, Revision};

/// One write request.
#[derive(Clone, Debug)]
pub struct WriteOp {
    pub client: String,
    pub invoked: Mono,
    pub returned: Option<Mono>,
    /// Each written key with its value; `None` deletes it. Values are unique in
    /// a run, deletes are not.
    pub keys: Vec<(Key, Option<Bytes>)>,
    pub answer: Answer,
}

/// What a write was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet, or nothing that says what became of it.
    Unknown,
    /// Done, at these revisions; for a delete of nothing, 0.
    Done(Vec<Revision>),
    /// The guard of a key did not hold: it was last written at `found`. `head`
    /// is the head of the entry that said so.
    Guard { key: Key, found: Option<Revision>, head: Revision },
    /// Certainly not made.
    Refused,
}

/// One linearizable read.
#[derive(Clone, Debug)]
pub struct ReadOp {
    pub client: String,
    pub invoked: Mono,
    pub returned: Mono,
    /// The revision that the answer is of.
    pub at: Revision,
    /// Each key that was read, with its mod revision and value.
    pub found: Vec<(Key, Option<(Revision, Bytes)>)>,
}

/// One span of a watch on one replica.
#[derive(Clone, Debug)]
pub struct WatchSpan {
    pub watcher: String,
    pub prefix: triarch_mvcc::Prefix,
    pub after: Revision,
    pub seen: Vec<(Revision, crate::log::Entry)>,
    /// Everything up to here was delivered, the watch said.
    pub progress: Revision,
}

/// A time during which a replica acted as leader.
#[derive(Clone, Debug)]
pub struct Acting {
    pub replica: u64,
    pub life: u64,
    pub epoch: Epoch,
    pub from: Mono,
    pub until: Option<Mono>,
}

/// A digest of a replica's whole state at a revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub replica: u64,
    /// Right after a restart, before anything came from others.
    pub fresh: bool,
    pub revision: Revision,
    pub digest: crate::log::Digest32,
}

/// The history of a run.
#[derive(Debug, Default)]
pub struct History {
    pub writes: Vec<WriteOp>,
    pub reads: Vec<ReadOp>,
    pub watches: Vec<WatchSpan>,
    pub acting: Vec<Acting>,
    /// `(process, from, until)`.
    pub pauses: Vec<(u64, Mono, Option<Mono>)>,
    pub snapshots: Vec<Snapshot>,
}
