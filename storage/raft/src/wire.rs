//! The messages between replicas: one struct each, encoded by [`crate::codec`].
//! Log payloads travel beside the body, so that they are never copied into it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{LogRec, VoteRec};
use crate::types::NodeId;

/// Lanes [`Log`](crate::Lane::Log) and [`Heartbeat`](crate::Lane::Heartbeat),
/// leader to follower. `entries` name the log ids of the message's payloads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Append {
    /// A new number starts the exchange anew: what is left of the older one is void.
    pub session: u64,
    pub vote: VoteRec,
    pub prev: Option<LogRec>,
    pub commit: Option<LogRec>,
    pub entries: Vec<LogRec>,
    /// Nothing to answer unless something is wrong: the request only says what
    /// is committed, behind entries that the session has answered for or will.
    pub quiet: bool,
}

/// The answer to each [`Append`] of a session, in order, but for quiet ones that
/// match. The session is over after the first that is not `Matching`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Appended {
    pub session: u64,
    pub result: AppendResult,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum AppendResult {
    /// Durable on the follower up to here.
    Matching(Option<LogRec>),
    /// The follower does not have this entry.
    Conflict(LogRec),
    HigherVote(VoteRec),
    /// The follower is stopping.
    Failed(String),
}

/// A replica that has just started says so; see [`crate::starts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Introduction {
    /// The number of its start, and a random one that tells it from another of that number.
    pub start: u64,
    pub life: u64,
    /// The last entry of its log.
    pub last: Option<u64>,
    /// The highest feature level that it applies; 0: a release that does not say.
    pub supports: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Introduced {
    /// Noted.
    Welcome,
    /// This start or a later one of it is known.
    Known(u64),
    /// As the leader: it has acknowledged this entry.
    Acknowledged(u64),
    /// The cluster is at this feature level, which it does not support.
    TooOld(u64),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VoteCall {
    /// Only ask whether the vote would be given.
    pub pre: bool,
    pub transfer: bool,
    pub vote: VoteRec,
    pub last: Option<LogRec>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VoteReply {
    pub vote: VoteRec,
    pub granted: bool,
    pub last: Option<LogRec>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TransferCall {
    pub from: VoteRec,
    pub to: NodeId,
    pub last: Option<LogRec>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum TransferReply {
    Accepted,
    VoteChanged { expected: VoteRec, actual: VoteRec },
    LogNotFlushed { expected: Option<LogRec>, actual: Option<LogRec> },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ReadIndexReply {
    /// A read that has applied this index is linearizable.
    Index(u64),
    NotLeader,
    Failed(String),
}

/// Lane [`Forward`](crate::Lane::Forward): the payload is the message's only one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Forward {
    pub batch: u64,
}

/// The answer, unless the batch was committed: the follower sees that itself
/// when it applies it, and what it then wants to know is in its own store.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Forwarded {
    pub batch: u64,
    pub result: ForwardResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ForwardResult {
    /// Certainly not appended.
    NotLeader,
    /// Certainly not appended.
    Overloaded,
    Unknown(String),
}

/// What a replica that lost its stream from the leader tells the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Lost {
    /// The leadership that is believed to be gone.
    pub vote: VoteRec,
    pub last: Option<LogRec>,
    /// The sender has lost the leader itself.
    pub lost: bool,
}

/// Lane [`Snapshot`](crate::Lane::Snapshot).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Snap {
    /// Sender to receiver: this is what I have. `header` is the checkpoint's.
    Offer { vote: Option<VoteRec>, header: Bytes },
    /// Receiver to sender: send the pages after this key (none: from the start).
    Resume { after: Option<Bytes> },
    /// Receiver to a peer: send me what you have, when it reaches to this entry (a replica whose
    /// checkpoint was lost, and whose log begins there).
    Pull { from: u64 },
    /// The message's payloads are the page's records; `last` is its last key.
    Page { last: Bytes },
    /// Receiver to sender: the page is stored; the next may come.
    Next,
    /// Sender to receiver: all pages were sent.
    End,
    /// Receiver to sender: installed; the receiver's vote.
    Done { vote: VoteRec },
    /// Either way: given up, and why.
    Failed(String),
}

/// What a replica says of itself to the others.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PeerStatus {
    pub applied_index: u64,
    pub applied_revision: u64,
    pub term: u64,
    pub pid: u32,
    pub disk_bytes: u64,
    pub ready: bool,
    /// The highest feature level that it applies; 0: a release that does not say.
    pub supports: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn what_a_release_without_levels_says_is_read_as_saying_none_and_it_reads_what_is_said_now() {
        #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
        struct Older {
            start: u64,
            life: u64,
            last: Option<u64>,
        }
        let older = Older { start: 7, life: 1 << 60, last: Some(300) };
        let read: Introduction = codec::decode_grown("an introduction", &codec::encode(&older)).unwrap();
        assert_eq!(read, Introduction { start: 7, life: 1 << 60, last: Some(300), supports: 0 });
        let now = Introduction { supports: 300, ..read };
        assert_eq!(codec::decode_grown::<Introduction>("an introduction", &codec::encode(&now)).unwrap(), now);
        assert_eq!(codec::decode::<Older>("an introduction", &codec::encode(&now)).unwrap(), older);
        assert!(codec::decode_grown::<Introduction>("an introduction", &[7]).is_err(), "one number, and not more");
    }
}
