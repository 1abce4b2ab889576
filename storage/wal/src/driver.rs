//! Who writes: a thread of its own, or a task of the environment with a
//! simulated latency. Both drain everything queued, write once, sync once, and
//! then complete in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use triarch_env::{Env, Scope};
use triarch_mutants::mutant;

use crate::error::WalError;
use crate::metrics::ObserveFsync;
use crate::queue::{Job, Queue, Take};
use crate::wal::{Admitted, Wal};

/// What the next sync takes on a simulated disk.
pub type SyncLatency = Arc<dyn Fn() -> Duration + Send + Sync>;

pub(crate) struct Driver {
    pub wal: Wal,
    pub queue: Arc<Queue>,
    pub env: Env,
    pub observe: Option<ObserveFsync>,
    /// Tells [`crate::WalHandle::shutdown`] that the last byte is written.
    pub ended: oneshot::Sender<()>,
}

/// Ends the queue however the driver ends, also when its task is dropped.
struct EndQueue(Arc<Queue>);

impl Drop for EndQueue {
    fn drop(&mut self) {
        self.0.ended();
    }
}

fn complete(jobs: Vec<Job>, result: &Result<(), WalError>) {
    for done in jobs.into_iter().filter_map(|j| j.done) {
        done(result.as_ref().map_err(|e| io::Error::from(e.clone())).copied());
    }
}

impl Driver {
    fn write(&mut self, jobs: Vec<Job>) -> (Vec<Job>, Result<bool, WalError>) {
        let (admitted, done): (Vec<Admitted>, Vec<_>) = jobs.into_iter().map(|j| (j.admitted, j.done)).unzip();
        let result = self.wal.write(&admitted);
        (admitted.into_iter().zip(done).map(|(admitted, done)| Job { admitted, done }).collect(), result)
    }

    fn sync(&mut self) -> Result<(), WalError> {
        let start = self.env.mono();
        self.wal.sync()?;
        self.wal.metrics.synced(self.env.mono() - start, self.observe.as_ref());
        Ok(())
    }

    /// Completes a group; `false` when the log has failed.
    fn finish(&mut self, jobs: Vec<Job>, result: Result<(), WalError>) -> bool {
        if let Err(e) = &result {
            tracing::error!(error = %e, "the log failed");
            // Refuse newcomers first, so that nobody is told "ok" after this.
            let queued = self.queue.fail(e);
            complete(jobs, &result);
            complete(queued, &result);
            return false;
        }
        complete(jobs, &result);
        true
    }

    /// Starts the thread, which ends when the queue is closed and empty.
    pub(crate) fn spawn_thread(self) -> io::Result<()> {
        std::thread::Builder::new().name("wal".into()).spawn(move || self.run_thread()).map(drop)
    }

    fn run_thread(mut self) {
        let _end = EndQueue(self.queue.clone());
        loop {
            let jobs = match self.queue.try_take() {
                Take::Group(jobs) => jobs,
                Take::Closed | Take::Empty => {
                    if let Err(e) = self.wal.idle() {
                        self.finish(Vec::new(), Err(e));
                        break;
                    }
                    match self.queue.take_blocking() {
                        Some(jobs) => jobs,
                        None => break,
                    }
                }
            };
            let (jobs, written) = self.write(jobs);
            let result = match written {
                Ok(true) => self.sync(),
                Ok(false) => Ok(()),
                Err(e) => Err(e),
            };
            if !self.finish(jobs, result) {
                break;
            }
        }
        let _ = self.ended.send(()); // nobody may be waiting
    }

    /// The same as a task, dropped where it stands when `scope` ends: between
    /// write and sync, that is a process killed there.
    pub(crate) fn spawn_task(self, scope: &Scope, latency: SyncLatency) {
        self.env.clone().spawn_in(scope, "wal", self.run_task(latency));
    }

    async fn run_task(mut self, latency: SyncLatency) {
        let _end = EndQueue(self.queue.clone());
        loop {
            let jobs = match self.queue.try_take() {
                Take::Group(jobs) => jobs,
                Take::Closed | Take::Empty => {
                    if let Err(e) = self.wal.idle() {
                        self.finish(Vec::new(), Err(e));
                        break;
                    }
                    match self.queue.take_async().await {
                        Some(jobs) => jobs,
                        None => break,
                    }
                }
            };
            let (jobs, written) = self.write(jobs);
            if matches!(written, Ok(true)) && mutant("ack-before-fsync") {
                complete(jobs, &Ok(()));
                self.env.sleep(latency()).await;
                let _unasked = self.sync();
                continue;
            }
            let result = match written {
                Ok(true) => {
                    self.env.sleep(latency()).await;
                    match self.sync() {
                        Err(_) if mutant("fsync-error-ignored") => Ok(()),
                        other => other,
                    }
                }
                Ok(false) => Ok(()),
                Err(e) => Err(e),
            };
            if !self.finish(jobs, result) {
                break;
            }
        }
        let _ = self.ended.send(()); // nobody may be waiting
    }
}
