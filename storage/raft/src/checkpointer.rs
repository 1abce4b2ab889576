//! The checkpoint on disk, following behind memory by the watch window.
//!
//! It never passes the replicated compaction floor, so that a restart rebuilds
//! from the log all history that clients may still ask for, and every replica
//! answers 410 to the same requests. It is openraft's snapshot: the log is
//! purged only behind what it holds durably.
//!
//! ```text
//!   purged ── checkpoint ──────── floor ─────────── head
//!             └ log: rebuilt on restart ────────────┘
//! ```
//!
//! Disk work runs on a thread of its own ([`Blocking`]); apply never waits for it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use triarch_env::Mono;
use triarch_mutants::mutant;
use triarch_mvcc::{ExportLost, Header, Pin};
use triarch_wal::WalHandle;

use crate::blocking::Blocking;
use crate::codec::{LogRec, StoredMembershipRec};
use crate::core::Core;
use crate::counters::add;
use crate::shared::Shared;
use crate::snapshot::{Pinned, Received, SnapshotData};
use crate::store::CheckpointDisk;
use crate::types::{LeaderId, LogId, NodeId, Replica, SnapshotMeta, StoredMembership};

type Snapshot = openraft::Snapshot<LeaderId, NodeId, Replica, SnapshotData>;

/// Changed objects in one atomic batch, roughly.
const STEP_EVENTS: usize = 2048;

pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    disk: Arc<dyn CheckpointDisk>,
    blocking: Blocking,
    /// For its size: the log and the size of each segment.
    log: (WalHandle, u64),
    state: Mutex<State>,
    /// Snapshot transfers to others under way.
    sending: AtomicUsize,
    /// What a broken-off transfer to this replica has brought so far.
    pub receiving: tokio::sync::Mutex<Option<Received>>,
    /// The last advance failed.
    broken: AtomicBool,
    /// One writer of the checkpoint at a time.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Memberships since the checkpoint, oldest first: which one was in force
    /// at a past entry is asked when the checkpoint gets there.
    memberships: VecDeque<StoredMembershipRec>,
    /// What is durable.
    durable: Option<LogRec>,
    /// The view that was given out last, kept while it may be asked for again.
    offered: Option<(Arc<Pinned>, Mono)>,
}

/// Counts a transfer as under way until it is dropped.
pub(crate) struct Sending(Arc<Checkpointer>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Ordering::Relaxed);
        self.0.touch_offered();
    }
}

impl Checkpointer {
    pub fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn CheckpointDisk>,
        blocking: Blocking,
        membership: StoredMembershipRec,
        durable: Option<LogRec>,
        log: (WalHandle, u64),
    ) -> Arc<Checkpointer> {
        let state = State { memberships: VecDeque::from([membership]), durable, offered: None };
        Arc::new(Checkpointer {
            shared,
            disk,
            blocking,
            log,
            state: Mutex::new(state),
            sending: AtomicUsize::new(0),
            receiving: tokio::sync::Mutex::new(None),
            broken: AtomicBool::new(false),
            writing: tokio::sync::Mutex::new(()),
        })
    }

    /// An entry is applied; `membership` is in force.
    pub fn applied(&self, membership: &StoredMembership) {
        let mut state = self.state.lock();
        let known = state.memberships.back().and_then(|m| m.at);
        if known != membership.log_id().map(LogRec::from) {
            state.memberships.push_back(membership.into());
        }
    }

    fn membership_at(&self, index: u64) -> StoredMembershipRec {
        let state = self.state.lock();
        let found = state.memberships.iter().rev().find(|m| m.at.is_none_or(|at| at.index <= index));
        found.cloned().unwrap_or_default()
    }

    /// The checkpoint is durable at `at`.
    fn advanced(&self, at: LogRec) {
        let mut state = self.state.lock();
        state.durable = Some(at);
        while state.memberships.get(1).is_some_and(|m| m.at.is_none_or(|m| m.index <= at.index)) {
            state.memberships.pop_front();
        }
        add(&self.shared.counters.checkpoints, 1);
    }

    /// What openraft may purge behind: the checkpoint as it is on disk.
    pub fn durable(&self) -> Option<SnapshotMeta> {
        let at = self.state.lock().durable?;
        let at = if mutant("log-purged-too-far") {
            let at = self.shared.mvcc.applied();
            LogRec { term: at.term, node: at.node, index: at.index }
        } else {
            at
        };
        let last_membership = self.membership_at(at.index).try_into().ok()?;
        Some(SnapshotMeta { last_log_id: Some(LogId::from(at)), last_membership })
    }

    /// The snapshot that another replica would get: a view of the checkpoint's
    /// own entry, or of the head when that is not in memory any more.
    pub fn current(&self) -> Option<Snapshot> {
        // A view from before the log's beginning brings nobody up.
        let pinned = self.view(self.log.0.state().purged.map_or(0, |p| p.index))?;
        let at = pinned.header.applied;
        let last = LogRec { term: at.term, node: at.node, index: at.index };
        let last_membership = pinned.membership.clone().try_into().ok()?;
        let meta = SnapshotMeta { last_log_id: Some(last.into()), last_membership };
        Some(Snapshot { meta, snapshot: SnapshotData::Pinned(pinned) })
    }

    /// The view that was offered last, so that a broken transfer can go on, when
    /// it reaches to entry `from`; otherwise a new one, as far as it reaches.
    pub fn view(&self, from: u64) -> Option<Arc<Pinned>> {
        self.state.lock().durable?;
        let now = self.shared.env.mono();
        let fresh = |state: &State| {
            let (pinned, used) = state.offered.as_ref()?;
            let keep =
                self.sending.load(Ordering::Relaxed) > 0 || now.since(*used) < self.shared.config.limits.transfer_grace;
            (keep && pinned.header.applied.index >= from).then(|| pinned.clone())
        };
        let kept = fresh(&self.state.lock());
        Some(kept.unwrap_or_else(|| {
            let pin: Pin = self.shared.mvcc.pin_exported().unwrap_or_else(|ExportLost| self.shared.mvcc.pin());
            let header = pin.header();
            let membership = self.membership_at(header.applied.index);
            Arc::new(Pinned { pin, header, membership })
        }))
    }

    /// `pinned` is being sent: the log behind it stays until it has arrived.
    pub fn send_begins(self: &Arc<Self>, pinned: &Arc<Pinned>) -> Sending {
        self.sending.fetch_add(1, Ordering::Relaxed);
        self.state.lock().offered = Some((pinned.clone(), self.shared.env.mono()));
        Sending(self.clone())
    }

    fn touch_offered(&self) {
        let now = self.shared.env.mono();
        if let Some((_, used)) = &mut self.state.lock().offered {
            *used = now;
        }
    }

    /// Whether a replica is being brought up, so that the log must stay.
    fn purge_held(&self) -> bool {
        let now = self.shared.env.mono();
        let mut state = self.state.lock();
        if self.sending.load(Ordering::Relaxed) > 0 {
            return true;
        }
        let held =
            state.offered.as_ref().is_some_and(|(_, used)| now.since(*used) < self.shared.config.limits.transfer_grace);
        if !held {
            state.offered = None;
        }
        held
    }

    /// Replaces memory and checkpoint with a received snapshot.
    pub async fn install(&self, snapshot: SnapshotData) -> io::Result<()> {
        let SnapshotData::Received(received) = snapshot else {
            return Err(io::Error::other("a snapshot of this replica's own cannot be installed"));
        };
        let received = *received;
        let _writing = self.writing.lock().await;
        let at = received.header.applied;
        self.state.lock().memberships = VecDeque::from([received.membership.clone()]);
        self.shared.mvcc.install(received.import);
        self.write_from_exported().await.map_err(io::Error::other)?;
        add(&self.shared.counters.snapshots_installed, 1);
        tracing::info!(index = at.index, term = at.term, revision = received.header.revision, "installed a snapshot");
        Ok(())
    }

    /// Writes a whole checkpoint of what memory was loaded from.
    pub async fn write_exported(&self) -> Result<(), String> {
        let _writing = self.writing.lock().await;
        self.write_from_exported().await
    }

    async fn write_from_exported(&self) -> Result<(), String> {
        // Of the same entry as the last one when history reaches back to it.
        let pin = self.shared.mvcc.pin_exported().unwrap_or_else(|ExportLost| self.shared.mvcc.begin_whole());
        self.write_whole(pin).await
    }

    async fn write_whole(&self, pin: Pin) -> Result<(), String> {
        let header = pin.header();
        let membership = self.membership_at(header.applied.index);
        let disk = self.disk.clone();
        let page_bytes = self.shared.config.limits.snapshot_page_bytes;
        let done = self.blocking.run(move || {
            let header = pin.header();
            disk.replace(&pin, page_bytes, &header, &membership)
        });
        done.await??;
        self.advanced(log_rec(&header));
        Ok(())
    }

    /// Brings the checkpoint as far as it may go. True when it moved.
    async fn advance(&self) -> Result<bool, String> {
        let _writing = self.writing.lock().await;
        let mvcc = &self.shared.mvcc;
        let mut moved = false;
        if self.broken.load(Ordering::Relaxed) {
            self.write_from_exported().await?;
            self.broken.store(false, Ordering::Relaxed);
            moved = true;
        }
        loop {
            match mvcc.export(mvcc.compacted(), STEP_EVENTS) {
                Ok(None) => return Ok(moved),
                Ok(Some(export)) => {
                    let (disk, membership) = (self.disk.clone(), self.membership_at(export.header.applied.index));
                    let (done, export) = self
                        .blocking
                        .run(move || {
                            let done = disk.advance(&export.changes, &export.header, &membership);
                            (done, export)
                        })
                        .await?;
                    if let Err(e) = done {
                        // What the disk holds now is not certain: a whole one is next.
                        self.broken.store(true, Ordering::Relaxed);
                        return Err(e);
                    }
                    mvcc.exported(&export);
                    self.advanced(log_rec(&export.header));
                }
                Err(ExportLost) => {
                    tracing::warn!("the checkpoint has fallen behind the window; writing a whole one");
                    self.write_whole(mvcc.begin_whole()).await?;
                }
            }
            moved = true;
        }
    }

    /// Follows the head for as long as the replica runs.
    pub async fn drive(self: Arc<Self>, core: Arc<dyn Core>) {
        // Advanced, but the log behind it is still there.
        let mut owed = false;
        loop {
            self.shared.env.sleep(self.shared.config.window.check).await;
            match self.advance().await {
                Ok(moved) => owed |= moved,
                Err(e) => {
                    // The log keeps everything since; a disk that stays broken fails the log as well.
                    tracing::error!(error = e, "the checkpoint was not written; trying again");
                    continue;
                }
            }
            if owed && !self.purge_held() {
                core.checkpoint_advanced().await;
                owed = false;
            }
            let log = self.log.0.metrics().segments.load(Ordering::Relaxed) * self.log.1;
            self.shared.disk_bytes.store(self.disk.size() + log, Ordering::Relaxed);
        }
    }
}

pub(crate) fn log_rec(header: &Header) -> LogRec {
    LogRec { term: header.applied.term, node: header.applied.node, index: header.applied.index }
}
