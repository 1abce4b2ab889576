//! What waits to be written: bounded by bytes, drained whole by the driver.
//!
//! Admission to the index and to the queue is one step under one lock, so that
//! records are written in the order in which readers saw them.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use futures::channel::oneshot;
use parking_lot::{Condvar, Mutex};

use crate::error::WalError;
use crate::handle::Callback;
use crate::wal::{Admitted, Command, Log};

pub(crate) struct Job {
    pub admitted: Admitted,
    pub done: Option<Callback>,
}

#[derive(Default)]
struct Inside {
    jobs: VecDeque<Job>,
    /// The latest of the commands that need not be durable soon, or ever: it
    /// goes with the next group and wakes nobody.
    note: Option<Job>,
    bytes: usize,
    closed: bool,
    /// The driver is gone.
    over: bool,
    failed: Option<WalError>,
    /// Callers waiting for room, in order.
    room: VecDeque<oneshot::Sender<()>>,
    on_failure: Vec<oneshot::Sender<WalError>>,
    driver: Option<Waker>,
}

pub(crate) struct Queue {
    inside: Mutex<Inside>,
    work: Condvar,
    limit: usize,
    group: usize,
}

/// What the driver got.
pub(crate) enum Take {
    Group(Vec<Job>),
    Empty,
    Closed,
}

impl Queue {
    pub(crate) fn new(limit: usize, group: usize) -> Queue {
        Queue { inside: Mutex::default(), work: Condvar::new(), limit, group }
    }

    /// Admits a command and queues it. Never waits; see [`Queue::room`].
    pub(crate) fn push(&self, log: &Log, command: Command, done: Option<Callback>) -> Result<(), WalError> {
        let waker = {
            let mut q = self.inside.lock();
            q.usable()?;
            let note = matches!(command, Command::Committed(_)) && done.is_none();
            let admitted = log.admit(command)?;
            if note {
                q.note = Some(Job { admitted, done });
                return Ok(());
            }
            q.bytes += admitted.bytes();
            q.jobs.push_back(Job { admitted, done });
            q.driver.take()
        };
        self.work.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Waits until the queue is below its limit.
    pub(crate) async fn room(&self) -> Result<(), WalError> {
        loop {
            let wait = {
                let mut q = self.inside.lock();
                q.usable()?;
                if q.bytes < self.limit {
                    return Ok(());
                }
                let (tx, rx) = oneshot::channel();
                q.room.push_back(tx);
                rx
            };
            // An error means that the driver ended; `usable` knows why.
            let _ = wait.await;
        }
    }

    pub(crate) fn check(&self) -> Result<(), WalError> {
        self.inside.lock().usable()
    }

    pub(crate) fn try_take(&self) -> Take {
        let mut q = self.inside.lock();
        self.take(&mut q)
    }

    fn take(&self, q: &mut Inside) -> Take {
        if q.jobs.is_empty() {
            return match (q.closed, q.note.take()) {
                (true, Some(note)) => Take::Group(vec![note]),
                (true, None) => Take::Closed,
                (false, note) => {
                    q.note = note;
                    Take::Empty
                }
            };
        }
        let (mut group, mut bytes) = (Vec::with_capacity(q.jobs.len()), 0);
        while let Some(job) = q.jobs.front() {
            let size = job.admitted.bytes();
            if bytes > 0 && bytes + size > self.group {
                break;
            }
            bytes += size;
            group.extend(q.jobs.pop_front());
        }
        if q.jobs.is_empty() {
            // Behind everything that was admitted before it.
            group.extend(q.note.take());
        }
        q.bytes -= bytes;
        if q.bytes < self.limit {
            for waiter in q.room.drain(..) {
                let _ = waiter.send(()); // a caller that went away needs no room
            }
        }
        Take::Group(group)
    }

    /// For the thread: sleeps until there is work; `None` when closed and empty.
    pub(crate) fn take_blocking(&self) -> Option<Vec<Job>> {
        let mut q = self.inside.lock();
        loop {
            match self.take(&mut q) {
                Take::Group(group) => return Some(group),
                Take::Closed => return None,
                Take::Empty => self.work.wait(&mut q),
            }
        }
    }

    /// For the task.
    pub(crate) async fn take_async(&self) -> Option<Vec<Job>> {
        std::future::poll_fn(|cx| {
            let mut q = self.inside.lock();
            match self.take(&mut q) {
                Take::Group(group) => Poll::Ready(Some(group)),
                Take::Closed => Poll::Ready(None),
                Take::Empty => {
                    q.driver = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// No more commands; what is queued is still written.
    pub(crate) fn close(&self) {
        let waker = {
            let mut q = self.inside.lock();
            q.closed = true;
            q.driver.take()
        };
        self.work.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The disk failed: everything queued fails, and everything after it.
    pub(crate) fn fail(&self, error: &WalError) -> Vec<Job> {
        let mut q = self.inside.lock();
        q.failed.get_or_insert_with(|| error.clone());
        q.bytes = 0;
        q.note = None;
        q.room.clear();
        for waiter in q.on_failure.drain(..) {
            let _ = waiter.send(error.clone());
        }
        q.jobs.drain(..).collect()
    }

    /// Resolves when the log fails; with [`WalError::Closed`] when it ends well.
    pub(crate) async fn failure(&self) -> WalError {
        let wait = {
            let mut q = self.inside.lock();
            match &q.failed {
                Some(e) => return e.clone(),
                None if q.over => return WalError::Closed,
                None => {
                    let (tx, rx) = oneshot::channel();
                    q.on_failure.push(tx);
                    rx
                }
            }
        };
        wait.await.unwrap_or(WalError::Closed)
    }

    /// The driver is gone.
    pub(crate) fn ended(&self) {
        let mut q = self.inside.lock();
        (q.closed, q.over) = (true, true);
        // Dropped unrun: a task that ends with its scope acknowledges nothing.
        let jobs = std::mem::take(&mut q.jobs);
        q.note = None;
        q.room.clear();
        q.on_failure.clear();
        drop(q);
        drop(jobs);
    }
}

impl Inside {
    fn usable(&self) -> Result<(), WalError> {
        match &self.failed {
            Some(e) => Err(e.clone()),
            None if self.closed => Err(WalError::Closed),
            None => Ok(()),
        }
    }
}
