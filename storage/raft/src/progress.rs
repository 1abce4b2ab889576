//! What this replica has applied, and who waits for it.
//!
//! Invariant: a waiter is woken only after memory holds what it waited for, and
//! an abandoned waiter leaves nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use triarch_mvcc::Revision;

/// Applied index and revision with waiters on either.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    index: u64,
    revision: Revision,
    next: u64,
    by_index: BTreeMap<(u64, u64), oneshot::Sender<()>>,
    by_revision: BTreeMap<(Revision, u64), oneshot::Sender<()>>,
}

impl Progress {
    pub fn index(&self) -> u64 {
        self.0.lock().index
    }

    pub fn revision(&self) -> Revision {
        self.0.lock().revision
    }

    /// Memory has applied up to `index`, where the head is `revision`.
    pub fn advance(&self, index: u64, revision: Revision) {
        let mut ready = Vec::new();
        {
            let mut inner = self.0.lock();
            let inner = &mut *inner;
            inner.index = inner.index.max(index);
            inner.revision = inner.revision.max(revision);
            take_until(&mut inner.by_index, inner.index, &mut ready);
            take_until(&mut inner.by_revision, inner.revision, &mut ready);
        }
        for tx in ready {
            let _ = tx.send(());
        }
    }

    /// Resolves once `index` is applied.
    pub async fn wait_index(&self, index: u64) {
        let Some((rx, _guard)) = self.register(index, true) else { return };
        let _ = rx.await;
    }

    /// Resolves once `revision` is applied.
    pub async fn wait_revision(&self, revision: Revision) {
        let Some((rx, _guard)) = self.register(revision, false) else { return };
        let _ = rx.await;
    }

    fn register(&self, at: u64, index: bool) -> Option<(oneshot::Receiver<()>, Abandon)> {
        let mut inner = self.0.lock();
        let now = if index { inner.index } else { inner.revision };
        if now >= at {
            return None;
        }
        let (tx, rx) = oneshot::channel();
        let key = (at, inner.next);
        inner.next += 1;
        if index {
            inner.by_index.insert(key, tx)
        } else {
            inner.by_revision.insert(key, tx)
        };
        Some((rx, Abandon { progress: self.clone(), key, index }))
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        let inner = self.0.lock();
        inner.by_index.len() + inner.by_revision.len()
    }
}

fn take_until(map: &mut BTreeMap<(u64, u64), oneshot::Sender<()>>, at: u64, out: &mut Vec<oneshot::Sender<()>>) {
    while let Some(first) = map.first_entry() {
        if first.key().0 > at {
            break;
        }
        out.push(first.remove());
    }
}

/// Takes a waiter out of the map when its future is dropped.
struct Abandon {
    progress: Progress,
    key: (u64, u64),
    index: bool,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        let mut inner = self.progress.0.lock();
        if self.index {
            inner.by_index.remove(&self.key)
        } else {
            inner.by_revision.remove(&self.key)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn waiters_wake_at_their_point_and_abandoned_ones_are_forgotten() {
        let p = Progress::default();
        let mut a = Box::pin(p.wait_index(5));
        let mut b = Box::pin(p.wait_revision(9));
        assert!((&mut a).now_or_never().is_none());
        assert!((&mut b).now_or_never().is_none());
        assert_eq!(p.waiting(), 2);
        p.advance(5, 8);
        assert!((&mut a).now_or_never().is_some());
        assert!((&mut b).now_or_never().is_none());
        drop(b);
        assert_eq!(p.waiting(), 0);
        assert!(p.wait_revision(8).now_or_never().is_some());
    }
}
