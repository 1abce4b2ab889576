//! Who leads, as far as this replica knows, and whether it may act as leader.
//!
//! openraft keeps an isolated leader in the leader state. Therefore a replica
//! counts as leading only while its own blank entry of the term is applied here
//! and a quorum's last ack is fresh. Leader-only writes are fenced by the log
//! besides; this gate only keeps an isolated leader from busying itself.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use triarch_env::{Env, Scope};
use triarch_mutants::mutant;
use triarch_mvcc::Epoch;

use crate::types::NodeId;

/// What a replica knows of leadership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderView {
    pub term: u64,
    /// The leader of `term`, when there is one.
    pub leader: Option<NodeId>,
    /// This replica's own leadership, while it may act on it.
    pub leading: Option<Epoch>,
}

#[derive(Debug, Default)]
struct State {
    view: LeaderView,
    /// The leadership whose own blank entry was applied last.
    established: Option<Epoch>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

/// A handle on the leadership as this replica sees it; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LeaderWatch(Arc<Inner>);

impl LeaderWatch {
    pub fn view(&self) -> LeaderView {
        self.0.state.lock().view
    }

    /// This replica's own leadership, while it may act on it.
    pub fn leadership(&self) -> Option<Epoch> {
        self.view().leading
    }

    /// Resolves once [`LeaderWatch::leadership`] is not `seen` any more.
    pub async fn await_leadership_change(&self, seen: Option<Epoch>) -> Option<Epoch> {
        self.until(|v| (v.leading != seen).then_some(v.leading)).await
    }

    /// Resolves once term or leader differ from `seen`.
    pub(crate) async fn await_leader_change(&self, seen: LeaderView) -> LeaderView {
        self.until(|v| ((v.term, v.leader) != (seen.term, seen.leader)).then_some(*v)).await
    }

    /// Resolves once `pick` gives something.
    pub(crate) async fn until<T>(&self, pick: impl Fn(&LeaderView) -> Option<T>) -> T {
        loop {
            let notified = self.0.changed.notified();
            let mut notified = std::pin::pin!(notified);
            // Registered before the look, so that no change falls in between.
            notified.as_mut().enable();
            if let Some(found) = pick(&self.view()) {
                return found;
            }
            notified.await;
        }
    }

    /// The blank entry of `epoch` is applied here.
    pub(crate) fn established(&self, epoch: Epoch) {
        self.0.state.lock().established = Some(epoch);
        self.0.changed.notify_waiters();
    }

    pub(crate) fn last_established(&self) -> Option<Epoch> {
        self.0.state.lock().established
    }

    pub(crate) fn publish(&self, view: LeaderView) {
        {
            let mut state = self.0.state.lock();
            if state.view == view {
                return;
            }
            state.view = view;
        }
        self.0.changed.notify_waiters();
    }

    /// Runs `work` once per leadership of this replica, in a scope of its own
    /// that ends with the leadership (or with `parent`). `work` is given the
    /// scope to hang its tasks on; it should return once they are started.
    pub async fn run_as_leader<F, Fut>(&self, env: &Env, parent: &Scope, mut work: F)
    where
        F: FnMut(Epoch, Scope) -> Fut + Send,
        Fut: Future<Output = ()> + Send + 'static,
    {
        parent
            .run(async {
                loop {
                    let epoch = self.until(|v| v.leading).await;
                    let scope = parent.child();
                    tracing::info!(term = epoch.term, node = epoch.node, "leadership begins");
                    env.spawn_in(&scope, "leader", work(epoch, scope.clone()));
                    self.await_leadership_change(Some(epoch)).await;
                    if !mutant("scope-outlives-its-epoch") {
                        scope.cancel();
                    }
                    tracing::info!(term = epoch.term, node = epoch.node, "leadership ended");
                }
            })
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use triarch_env::TokioRuntime;

    #[tokio::test]
    async fn a_leaders_scope_ends_with_its_epoch_and_the_next_one_is_new() {
        let env = Env::new(TokioRuntime::current());
        let (watch, root) = (LeaderWatch::default(), Scope::new());
        let (running, started) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (w, r, e, s) = (watch.clone(), root.clone(), env.clone(), started.clone());
        let count = running.clone();
        env.spawn("leader loop", async move {
            w.run_as_leader(&e.clone(), &r, move |_, scope| {
                let (count, s) = (count.clone(), s.clone());
                async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    s.notify_one();
                    scope.cancelled().await;
                }
            })
            .await;
        });
        for term in 1..=3 {
            let leading = Some(Epoch { term, node: 1 });
            watch.publish(LeaderView { term, leader: Some(1), leading });
            started.notified().await;
            assert_eq!(running.load(Ordering::SeqCst) as u64, term);
            watch.publish(LeaderView { term, leader: None, leading: None });
            tokio::task::yield_now().await;
        }
        root.cancel();
    }
}
