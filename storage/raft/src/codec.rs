//! Every byte that this crate writes to the log or sends to a peer: bincode of
//! our own types, never of openraft's, so that its releases cannot change ours.
//!
//! A log payload starts with one tag byte. The WAL's envelope around it carries
//! the format number and the checksum.
//!
//! Invariant: whatever was encoded here decodes to the same value, and unknown
//! tags are refused by name.

use std::collections::{BTreeMap, BTreeSet};

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use triarch_mvcc::{ProposalId, Txn};

use crate::types::{EntryPayload, LeaderId, LogId, Membership, NodeId, Payload, Replica, StoredMembership, Vote};

/// Nothing that is decoded may allocate more than this.
pub const MAX_DECODED: usize = 256 * 1024 * 1024;

const TAG_BLANK: u8 = 0;
const TAG_BATCH: u8 = 1;
const TAG_MEMBERSHIP: u8 = 2;

const CONFIG: Configuration<LittleEndian, Varint, Limit<MAX_DECODED>> =
    bincode::config::standard().with_limit::<MAX_DECODED>();

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("cannot decode {what}: {source}")]
    Decode { what: &'static str, source: bincode::error::DecodeError },
    #[error("log payload of unknown kind {0}; it was written by a newer release")]
    UnknownTag(u8),
    #[error("empty log payload")]
    Empty,
    #[error("not a membership: {0}")]
    Membership(String),
}

/// Encodes a batch of transactions with their names.
pub(crate) fn encode_batch(batch: &[(ProposalId, &Txn)], size_hint: usize) -> Payload {
    let mut out = Vec::with_capacity(size_hint + batch.len() * 32 + 16);
    out.push(TAG_BATCH);
    bincode::serde::encode_into_std_write(batch, &mut out, CONFIG).expect("encoding into memory cannot fail");
    Payload(out.into())
}

/// The transactions of a batch payload.
pub(crate) fn decode_batch(payload: &Payload) -> Result<Vec<(ProposalId, Txn)>, CodecError> {
    match payload.0.first() {
        Some(&TAG_BATCH) => decode("a batch", &payload.0[1..]),
        Some(&tag) => Err(CodecError::UnknownTag(tag)),
        None => Err(CodecError::Empty),
    }
}

/// Whether bytes from a peer look like a batch; its content is checked where it is applied.
pub(crate) fn is_batch(bytes: &[u8]) -> bool {
    bytes.first() == Some(&TAG_BATCH)
}

/// The bytes that the log keeps for an entry. No copy is made of a batch.
pub(crate) fn encode_payload(payload: &EntryPayload) -> Bytes {
    match payload {
        EntryPayload::Blank => Bytes::from_static(&[TAG_BLANK]),
        EntryPayload::Normal(p) => p.0.clone(),
        EntryPayload::Membership(m) => {
            let mut out = vec![TAG_MEMBERSHIP];
            bincode::serde::encode_into_std_write(MembershipRec::from(m), &mut out, CONFIG)
                .expect("encoding into memory cannot fail");
            out.into()
        }
    }
}

/// The inverse of [`encode_payload`].
pub(crate) fn decode_payload(bytes: Bytes) -> Result<EntryPayload, CodecError> {
    match bytes.first() {
        Some(&TAG_BLANK) => Ok(EntryPayload::Blank),
        Some(&TAG_BATCH) => Ok(EntryPayload::Normal(Payload(bytes))),
        Some(&TAG_MEMBERSHIP) => {
            let rec: MembershipRec = decode("a membership", &bytes[1..])?;
            Ok(EntryPayload::Membership(rec.try_into()?))
        }
        Some(&tag) => Err(CodecError::UnknownTag(tag)),
        None => Err(CodecError::Empty),
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    bincode::serde::encode_to_vec(value, CONFIG).expect("encoding into memory cannot fail").into()
}

pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    bincode::serde::decode_from_slice(bytes, CONFIG)
        .map(|(value, _)| value)
        .map_err(|source| CodecError::Decode { what, source })
}

/// As [`decode`], of a message whose last number an older release does not send: it is 0.
pub(crate) fn decode_grown<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    decode(what, &[bytes, &[0]].concat())
}

/// A log id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LogRec {
    pub term: u64,
    pub node: NodeId,
    pub index: u64,
}

impl From<LogId> for LogRec {
    fn from(id: LogId) -> LogRec {
        LogRec { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl From<LogRec> for LogId {
    fn from(r: LogRec) -> LogId {
        LogId::new(LeaderId { term: r.term, node_id: r.node }, r.index)
    }
}

/// A vote, or a leadership when `committed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRec {
    pub term: u64,
    pub node: NodeId,
    pub committed: bool,
}

impl From<&Vote> for VoteRec {
    fn from(v: &Vote) -> VoteRec {
        VoteRec { term: v.leader_id.term, node: v.leader_id.node_id, committed: v.committed }
    }
}

impl From<VoteRec> for Vote {
    fn from(r: VoteRec) -> Vote {
        if r.committed { Vote::new_committed(r.term, r.node) } else { Vote::new(r.term, r.node) }
    }
}

/// A membership configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipRec {
    pub configs: Vec<BTreeSet<NodeId>>,
    pub nodes: BTreeMap<NodeId, Replica>,
}

impl From<&Membership> for MembershipRec {
    fn from(m: &Membership) -> MembershipRec {
        MembershipRec {
            configs: m.get_joint_config().clone(),
            nodes: m.nodes().map(|(id, n)| (*id, n.clone())).collect(),
        }
    }
}

impl TryFrom<MembershipRec> for Membership {
    type Error = CodecError;

    fn try_from(r: MembershipRec) -> Result<Membership, CodecError> {
        Membership::new(r.configs, r.nodes).map_err(|e| CodecError::Membership(e.to_string()))
    }
}

/// A membership and the entry that set it, as the checkpoint keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMembershipRec {
    pub at: Option<LogRec>,
    pub membership: MembershipRec,
}

impl From<&StoredMembership> for StoredMembershipRec {
    fn from(m: &StoredMembership) -> StoredMembershipRec {
        StoredMembershipRec { at: m.log_id().map(LogRec::from), membership: m.membership().into() }
    }
}

impl TryFrom<StoredMembershipRec> for StoredMembership {
    type Error = CodecError;

    fn try_from(r: StoredMembershipRec) -> Result<StoredMembership, CodecError> {
        Ok(StoredMembership::new(r.at.map(LogId::from), r.membership.try_into()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use triarch_mvcc::{Key, Object, Op};

    fn replica(n: u64) -> Replica {
        Replica {
            name: format!("r{n}"),
            peer_address: format!("127.0.0.1:{n}"),
            client_address: String::new(),
            incarnation: n * 7,
        }
    }

    #[test]
    fn payloads_come_back_as_they_were_encoded() {
        let txn = Txn {
            ops: vec![Op::Put(Key::new("configmaps", "default", "a"), Object::plain("value"))],
            ..Txn::default()
        };
        let id = |sequence| ProposalId { incarnation: 7, sequence };
        let batch = encode_batch(&[(id(1), &txn), (id(2), &Txn::default())], 64);
        let entry = EntryPayload::Normal(batch.clone());
        assert_eq!(decode_payload(encode_payload(&entry)).unwrap(), entry);
        assert_eq!(decode_batch(&batch).unwrap(), vec![(id(1), txn), (id(2), Txn::default())]);

        let m =
            Membership::new(vec![BTreeSet::from([1, 2])], BTreeMap::from([1, 2, 3].map(|n| (n, replica(n))))).unwrap();
        let entry = EntryPayload::Membership(m);
        assert_eq!(decode_payload(encode_payload(&entry)).unwrap(), entry);
        assert_eq!(decode_payload(encode_payload(&EntryPayload::Blank)).unwrap(), EntryPayload::Blank);
    }

    #[test]
    fn a_transactions_weight_covers_its_encoding_whatever_it_holds() {
        use triarch_mvcc::{
            FacadeCompare, FacadeEnd, FacadeOp, FacadePut, FacadeRange, FacadeResult, FacadeTarget, FacadeTxn, Guard,
            facade_key,
        };
        let (key, big) = (Key::new("configmaps", "default", "a"), Bytes::from(vec![b'v'; 100_000]));
        let op = |op| Txn { ops: vec![op], ..Txn::default() };
        let range = FacadeRange { start: facade_key(b"a"), end: FacadeEnd::Before(facade_key(&[b'z'; 900])) };
        let compare = FacadeCompare {
            range: range.clone(),
            target: FacadeTarget::Value(big.clone()),
            result: FacadeResult::NotEqual,
        };
        let put = FacadeTxn::put(facade_key(&[b'k'; 500]), big.clone());
        let nested = FacadeTxn {
            compare: vec![compare; 3],
            success: vec![FacadeOp::Txn(put.clone().into()), FacadeOp::Delete(range)],
            failure: vec![FacadeOp::Put(facade_key(b"b"), None)],
        };
        let leased = vec![
            FacadeOp::PutLeased(Box::new(FacadePut {
                key: facade_key(&[b'l'; 300]),
                value: Some(big.clone()),
                lease: Some(i64::MIN),
            })),
            FacadeOp::Revoke(i64::MIN),
            FacadeOp::At(i64::MIN),
        ];
        let txns = [
            op(Op::Put(key.clone(), Object::plain(big))),
            op(Op::Delete(key.clone())),
            op(Op::Compact(u64::MAX)),
            op(Op::CompactFacade(u64::MAX)),
            op(Op::Facade(put)),
            op(Op::Facade(nested)),
            op(Op::Facade(FacadeTxn { success: leased, ..FacadeTxn::default() })),
            Txn { guards: vec![Guard::Absent(key.clone()), Guard::ModRevision(key, 7)], ..Txn::default() },
        ];
        for txn in txns {
            let bare = encode_batch(&[(ProposalId { incarnation: u64::MAX, sequence: u64::MAX }, &Txn::default())], 0);
            let full = encode_batch(&[(ProposalId { incarnation: u64::MAX, sequence: u64::MAX }, &txn)], 0);
            let (took, weight) = (full.0.len() - bare.0.len(), txn.weight());
            assert!(took <= weight && weight <= took + 600, "{took} bytes, weight {weight}: {txn:?}");
        }
    }

    #[test]
    fn an_unknown_payload_is_refused_by_its_number() {
        let err = decode_payload(Bytes::from_static(&[9, 1, 2])).unwrap_err();
        assert_eq!(err.to_string(), "log payload of unknown kind 9; it was written by a newer release");
        assert!(matches!(decode_payload(Bytes::new()), Err(CodecError::Empty)));
        assert!(matches!(
            decode_batch(&Payload(Bytes::from_static(&[TAG_BATCH, 0xff]))),
            Err(CodecError::Decode { .. })
        ));
    }
}
