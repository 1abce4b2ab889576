//! What Raft holds: one handle, whichever driver writes.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use parking_lot::Mutex;
use triarch_env::{Env, Scope};

use crate::codec::LogId;
use crate::driver::{Driver, SyncLatency};
use crate::error::WalError;
use crate::index::{Entry, LogIndex};
use crate::metrics::{ObserveFsync, WalMetrics};
use crate::queue::Queue;
use crate::wal::{Command, Config, Log, Wal};

/// Called once on the driver when a command is durable, or never will be. It
/// must be quick and must not call the log.
pub type Callback = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What the log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub vote: Option<Bytes>,
    pub identity: Option<Bytes>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    /// The last entry, or the last purged one when there is none.
    pub last: Option<LogId>,
    /// Index of the first entry, or of the next one to come.
    pub first: u64,
    /// Entries held.
    pub entries: usize,
    /// Payload bytes in memory.
    pub tail_bytes: usize,
}

impl State {
    pub(crate) fn of(index: &LogIndex) -> State {
        let s = &index.small;
        State {
            vote: s.vote.clone(),
            identity: s.identity.clone(),
            committed: s.committed,
            purged: s.purged,
            last: index.last(),
            first: index.first(),
            entries: index.len(),
            tail_bytes: index.tail_bytes(),
        }
    }
}

/// A log in use; clones share it. When the last one is dropped the driver
/// writes what is queued and ends.
#[derive(Clone)]
pub struct WalHandle(Arc<Inside>);

struct Inside {
    log: Arc<Log>,
    queue: Arc<Queue>,
    metrics: Arc<WalMetrics>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl std::fmt::Debug for WalHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WalHandle")
    }
}

impl WalHandle {
    fn new(wal: Wal, config: &Config, env: Env, observe: Option<ObserveFsync>) -> (WalHandle, Driver) {
        let queue = Arc::new(Queue::new(config.queue_bytes, config.group_bytes));
        let (ended, on_end) = oneshot::channel();
        let (log, metrics) = (wal.log.clone(), wal.metrics.clone());
        let inside = Inside { log, queue: queue.clone(), metrics, ended: Mutex::new(Some(on_end)) };
        (WalHandle(Arc::new(inside)), Driver { wal, queue, env, observe, ended })
    }

    /// Group commit on a dedicated thread. `env` gives the clock only.
    pub fn start_thread(
        wal: Wal,
        config: &Config,
        env: Env,
        observe: Option<ObserveFsync>,
    ) -> Result<WalHandle, WalError> {
        let (handle, driver) = WalHandle::new(wal, config, env, observe);
        driver.spawn_thread().map_err(|e| WalError::io("start the thread of", "the log".as_ref(), e))?;
        Ok(handle)
    }

    /// Group commit in a task of `env`: no thread, and each sync takes `latency`.
    pub fn start_task(
        wal: Wal,
        config: &Config,
        env: Env,
        scope: &Scope,
        latency: Duration,
        observe: Option<ObserveFsync>,
    ) -> WalHandle {
        WalHandle::start_task_on(wal, config, env, scope, Arc::new(move || latency), observe)
    }

    /// As [`WalHandle::start_task`], on a disk whose syncs take what `latency` says.
    pub fn start_task_on(
        wal: Wal,
        config: &Config,
        env: Env,
        scope: &Scope,
        latency: SyncLatency,
        observe: Option<ObserveFsync>,
    ) -> WalHandle {
        let (handle, driver) = WalHandle::new(wal, config, env, observe);
        driver.spawn_task(scope, latency);
        handle
    }

    /// Adds entries behind the last one. They are readable when this returns
    /// and durable when `done` says so. Waits while the queue is full. `done`
    /// is dropped uncalled when this returns an error.
    pub async fn append(&self, entries: Vec<Entry>, done: Callback) -> Result<(), WalError> {
        self.0.queue.room().await?;
        self.0.queue.push(&self.0.log, Command::Append(entries), Some(done))
    }

    async fn durably(&self, command: Command) -> Result<(), WalError> {
        let (tx, rx) = oneshot::channel();
        let done: Callback = Box::new(move |result| drop(tx.send(result)));
        self.0.queue.push(&self.0.log, command, Some(done))?;
        match rx.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.0.queue.check().err().unwrap_or(WalError::Closed)),
        }
    }

    /// Replaces the vote; durable on return.
    pub async fn save_vote(&self, vote: Bytes) -> Result<(), WalError> {
        self.durably(Command::Vote(vote)).await
    }

    /// Replaces the identity of this log's owner; durable on return.
    pub async fn save_identity(&self, identity: Bytes) -> Result<(), WalError> {
        self.durably(Command::Identity(identity)).await
    }

    /// Notes what is committed. Written with the next group, or at the end: a
    /// crash may forget it.
    pub fn save_committed(&self, committed: Option<LogId>) -> Result<(), WalError> {
        self.0.queue.push(&self.0.log, Command::Committed(committed), None)
    }

    /// Drops the entries after `after` (all when `None`); durable on return.
    pub async fn truncate_after(&self, after: Option<u64>) -> Result<(), WalError> {
        self.durably(Command::Truncate(after)).await
    }

    /// Drops the entries up to `upto`, which may lie beyond the last. Not
    /// waited for: a crash may bring them back, and anything appended later
    /// makes it durable.
    pub async fn purge(&self, upto: LogId) -> Result<(), WalError> {
        self.0.queue.room().await?;
        self.0.queue.push(&self.0.log, Command::Purge(upto), None)
    }

    /// The entries of `range` that exist; an error when its beginning is purged.
    pub fn read(&self, range: Range<u64>) -> Result<Vec<Entry>, WalError> {
        self.read_limited(range, usize::MAX)
    }

    /// As [`WalHandle::read`], until the payloads pass `max_bytes`; at least one.
    pub fn read_limited(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, WalError> {
        self.0.log.read(range.start, range.end, max_bytes)
    }

    /// The id of the entry at `index`, from memory.
    pub fn id_at(&self, index: u64) -> Option<LogId> {
        self.0.log.index.lock().id_at(index)
    }

    pub fn state(&self) -> State {
        State::of(&self.0.log.index.lock())
    }

    pub fn metrics(&self) -> &Arc<WalMetrics> {
        &self.0.metrics
    }

    /// Resolves when the disk has failed: the process must stop. Resolves with
    /// [`WalError::Closed`] when the log ended without a failure.
    pub async fn failed(&self) -> WalError {
        self.0.queue.failure().await
    }

    /// Writes what is queued and ends the driver; later calls fail.
    pub async fn shutdown(&self) {
        self.0.queue.close();
        let wait = self.0.ended.lock().take();
        if let Some(wait) = wait {
            let _ = wait.await; // dropped: ended with a failure, or with its scope
        }
    }
}
