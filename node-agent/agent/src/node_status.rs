//! How the node is: looked at now and then, told when it has changed.
//!
//! A runtime that cannot run pods yet is asked again soon, so that a node is
//! ready as soon as its network is; once it is ready, and while nothing
//! happens, a look every ten seconds is enough. A wake-up ([`Node::look`]) brings
//! one forward.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use serde_json::Value;
use triarch_kubelet::runtime::Runtime;

use crate::facts::{self, Machine, NodeIdentity, Readings};
use crate::node::Node;
use crate::thresholds::Thresholds;

const PERIOD: Duration = Duration::from_secs(10);
/// First wait after a look that found the node not ready; doubled each time.
const SOON: Duration = Duration::from_millis(50);
const SOON_MAX: Duration = Duration::from_secs(1);
/// An unchanged status is repeated after this many looks in the period.
const REPEAT: u32 = 30;

/// When to look next.
#[derive(Debug, Default)]
struct Cadence {
    wait: Option<Duration>,
}

impl Cadence {
    fn next(&mut self, ready: bool) -> Duration {
        let wait = match self.wait {
            _ if ready => PERIOD,
            None => SOON,
            Some(last) => (last * 2).min(SOON_MAX),
        };
        self.wait = (!ready).then_some(wait);
        wait
    }

    /// Something happened that may change the answer.
    fn woken(&mut self) {
        self.wait = None;
    }
}

/// What a look needs.
pub struct Watcher {
    pub runtime: Arc<dyn Runtime>,
    /// The data directory, whose disk is watched.
    pub dir: PathBuf,
    pub id: NodeIdentity,
    pub machine: Machine,
    pub thresholds: Thresholds,
}

impl Watcher {
    async fn look(&self) -> Readings {
        let mut readings = Readings::read(&self.dir);
        readings.not_ready = self.runtime.ready().await.err().map(|e| e.to_string());
        readings.images = self.runtime.images().await.unwrap_or_default();
        readings
    }

    fn status(&self, node: &Node, readings: &Readings, before: Option<&Value>) -> Value {
        let status = facts::status(&self.id, &self.machine, readings, &self.thresholds, before, node.env().wall());
        let object = facts::node(&self.id, &self.machine, &status);
        node.set_node_json(serde_json::to_vec(&object).expect("plain data").into());
        status
    }

    /// The first look: what the node registers with.
    pub async fn first(&self, node: &Node) -> (bool, Value) {
        let readings = self.look().await;
        (readings.not_ready.is_none(), self.status(node, &readings, None))
    }

    /// Looks until dropped.
    pub async fn keep(self, node: Arc<Node>, first: (bool, Value)) {
        let (mut ready, mut last) = first;
        let (mut cadence, mut turn) = (Cadence::default(), 0u32);
        loop {
            let sleep = node.env().sleep(cadence.next(ready));
            let woken = std::pin::pin!(node.look.notified());
            let in_period = match select(woken, sleep).await {
                Either::Left(_) => {
                    cadence.woken();
                    false
                }
                Either::Right(_) => ready,
            };
            let readings = self.look().await;
            let was = std::mem::replace(&mut ready, readings.not_ready.is_none());
            let now = self.status(&node, &readings, Some(&last));
            turn = turn.wrapping_add(u32::from(in_period));
            if facts::differs(&now, &last) || (in_period && turn.is_multiple_of(REPEAT)) {
                node.outbox().node(serde_json::to_vec(&now).expect("plain data").into());
                last = now;
            }
            match &readings.not_ready {
                None if !was => tracing::info!(node = node.name(), "the node is ready"),
                Some(why) if was => tracing::warn!(node = node.name(), reason = %why, "the node is not ready"),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_not_ready_is_looked_at_soon_and_then_less_often_and_a_ready_one_in_its_period() {
        let mut c = Cadence::default();
        let waits: Vec<u128> = (0..7).map(|_| c.next(false).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        c.woken();
        assert_eq!(c.next(false), SOON);
        assert_eq!((c.next(true), c.next(true)), (PERIOD, PERIOD));
        assert_eq!(c.next(false), SOON, "it has just stopped being ready");
    }
}
