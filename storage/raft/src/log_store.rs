//! openraft's log storage over [`triarch_wal`].
//!
//! Only `save_vote` and `truncate_after` wait for the disk in openraft's core
//! loop; `append` returns when the entries are readable and reports by callback
//! when they are durable; `save_committed` is a record that goes with the next ones.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use futures::Stream;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{AsyncRuntime, LogState, OptionalSend, RaftLogReader};
use triarch_mutants::mutant;
use triarch_wal::WalHandle;

use crate::codec::{self, VoteRec};
use crate::types::{Entry, LeaderId, LogId, TypeConfig, Vote};

/// Payload bytes read at once while a long range is applied.
const APPLY_READ_BYTES: usize = 4 * 1024 * 1024;

/// The log of one replica; clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    wal: WalHandle,
    append_bytes: usize,
}

impl LogStore {
    pub fn new(wal: WalHandle, append_bytes: usize) -> LogStore {
        LogStore { wal, append_bytes }
    }

    /// The last entry, durable or not.
    pub fn last(&self) -> Option<LogId> {
        self.wal.state().last.map(from_wal)
    }

    fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        self.wal.read_limited(start..end, max_bytes)?.into_iter().map(entry).collect()
    }

    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(n) => *n,
            Bound::Excluded(n) => n + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(n) => n + 1,
            Bound::Excluded(n) => *n,
            Bound::Unbounded => u64::MAX,
        };
        // What was purged is not contained in the log any more.
        (start.max(self.wal.state().first), end)
    }
}

pub(crate) fn from_wal(id: triarch_wal::LogId) -> LogId {
    LogId::new(LeaderId { term: id.term, node_id: id.node }, id.index)
}

pub(crate) fn to_wal(id: &LogId) -> triarch_wal::LogId {
    triarch_wal::LogId { index: id.index, term: id.leader_id.term, node: id.leader_id.node_id }
}

fn entry(e: triarch_wal::Entry) -> io::Result<Entry> {
    let payload = codec::decode_payload(e.payload)
        .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, format!("log entry {}: {err}", e.id.index)))?;
    Ok(Entry { log_id: from_wal(e.id), payload })
}

impl<R: AsyncRuntime> RaftLogReader<TypeConfig<R>> for LogStore {
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // In pieces, so that a long catch-up is never in memory at once.
        let this = self.clone();
        let (start, end) = self.bounds(&range);
        let pieces = futures::stream::unfold((this, start), move |(this, at)| async move {
            let piece = match this.read(at, end, APPLY_READ_BYTES) {
                Ok(piece) if piece.is_empty() => return None,
                Ok(piece) => piece,
                Err(e) => return Some((vec![Err(e)], (this, end))),
            };
            let next = at + piece.len() as u64;
            Some((piece.into_iter().map(Ok).collect(), (this, next)))
        });
        futures::StreamExt::flat_map(pieces, futures::stream::iter)
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = self.bounds(&range);
        self.read(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let Some(bytes) = self.wal.state().vote else { return Ok(None) };
        let rec: VoteRec = codec::decode("the vote", &bytes).map_err(invalid)?;
        Ok(Some(rec.into()))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, self.append_bytes)
    }
}

fn invalid(e: codec::CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

impl<R: AsyncRuntime> RaftLogStorage<TypeConfig<R>> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig<R>>> {
        let state = self.wal.state();
        Ok(LogState { last_purged_log_id: state.purged.map(from_wal), last_log_id: state.last.map(from_wal) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if mutant("vote-not-kept") {
            return Ok(());
        }
        Ok(self.wal.save_vote(codec::encode(&VoteRec::from(vote))).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        Ok(self.wal.save_committed(committed.as_ref().map(to_wal))?)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.wal.state().committed.map(from_wal))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig<R>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries
            .into_iter()
            .map(|e| triarch_wal::Entry { id: to_wal(&e.log_id), payload: codec::encode_payload(&e.payload) })
            .collect();
        Ok(self.wal.append(entries, Box::new(move |result| callback.io_completed(result))).await?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        Ok(self.wal.truncate_after(last_log_id.map(|id| id.index)).await?)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        Ok(self.wal.purge(to_wal(&log_id)).await?)
    }
}
