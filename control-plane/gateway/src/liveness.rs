//! Which nodes gave a sign of life, and when: kept in memory, never written.
//!
//! A session notes its agent's heartbeats here. On the leader, node lifecycle
//! reads it; a follower hands what it heard to the leader in batches
//! ([`Liveness::take_heard`]). A new leader starts with an empty table and
//! gives every node a full grace period.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;
use triarch_env::{Env, Mono};

/// Nodes in one report to the leader, at most; the rest go with the next.
pub const MAX_REPORT: usize = 10_000;

/// See the module's text.
pub struct Liveness {
    env: Env,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    last: BTreeMap<String, Mono>,
    /// Heard here since the last report.
    heard: BTreeMap<String, Mono>,
}

impl Liveness {
    pub fn new(env: Env) -> Liveness {
        Liveness { env, state: Mutex::default(), news: Notify::new() }
    }

    /// A sign of life heard by this replica.
    pub fn heard(&self, node: &str) {
        let now = self.env.mono();
        let mut state = self.state.lock();
        state.last.insert(node.to_owned(), now);
        state.heard.insert(node.to_owned(), now);
        drop(state);
        self.news.notify_one();
    }

    /// Signs of life that another replica heard: name, milliseconds ago.
    pub fn reported(&self, nodes: impl IntoIterator<Item = (String, u64)>) {
        let now = self.env.mono();
        let mut state = self.state.lock();
        for (name, ago) in nodes {
            let at = Mono(now.0.saturating_sub(std::time::Duration::from_millis(ago)));
            let last = state.last.entry(name).or_default();
            *last = at.max(*last);
        }
    }

    /// When the node last gave a sign of life, on this process's clock.
    pub fn last(&self, node: &str) -> Option<Mono> {
        self.state.lock().last.get(node).copied()
    }

    /// All nodes with their last sign of life.
    pub fn all(&self) -> BTreeMap<String, Mono> {
        self.state.lock().last.clone()
    }

    /// Waits for a sign of life heard here, then takes what is to be reported
    /// (name, milliseconds ago).
    pub async fn take_heard(&self) -> Vec<(String, u64)> {
        loop {
            {
                let now = self.env.mono();
                let mut state = self.state.lock();
                if !state.heard.is_empty() {
                    let names: Vec<String> = state.heard.keys().take(MAX_REPORT).cloned().collect();
                    let ago = |at: Mono| (now - at).as_millis() as u64;
                    return names.into_iter().filter_map(|n| state.heard.remove(&n).map(|at| (n, ago(at)))).collect();
                }
            }
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use triarch_env::TokioRuntime;

    use super::*;

    #[tokio::test]
    async fn what_a_follower_heard_is_reported_once_and_an_older_report_does_not_win() {
        let live = Liveness::new(Env::new(TokioRuntime::current()));
        live.heard("n1");
        assert_eq!(live.take_heard().await.len(), 1);
        let at = live.last("n1").unwrap();
        live.reported([("n1".to_owned(), 60_000), ("n2".to_owned(), 0)]);
        assert_eq!(live.last("n1"), Some(at));
        assert!(live.last("n2").is_some());
    }
}
