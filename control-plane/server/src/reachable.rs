//! Which replicas pods are sent to: those that answer, with some damping.
//!
//! A replica that restarts is back in a second, and every change of the
//! `kubernetes` Service's endpoints is programmed on every node: so one leaves
//! only after a while of silence, and returns only once it has been well for a
//! while. Owned by the leader; a new leader knows nothing and lists all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use triarch_env::{Env, Mono};
use triarch_raft::{NodeId, RaftDb};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// A silent replica is left out after this.
const GONE_AFTER: Duration = Duration::from_secs(8);
/// One that is back is well for this long before it is listed.
const BACK_AFTER: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
struct Seen {
    listed: bool,
    /// Since when it is as it is now: well or not.
    since: Mono,
    well: bool,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Reachable {
    replicas: Mutex<BTreeMap<NodeId, Seen>>,
}

impl Reachable {
    /// Whether pods are sent to this replica. One that was never looked at is.
    pub fn lists(&self, id: NodeId) -> bool {
        self.replicas.lock().get(&id).is_none_or(|s| s.listed)
    }

    /// Takes in who is well at `now`; says whether the list has changed.
    fn observe(&self, now: Mono, well: &[(NodeId, bool)]) -> bool {
        let mut replicas = self.replicas.lock();
        replicas.retain(|id, _| well.iter().any(|(w, _)| w == id));
        let mut changed = false;
        for (id, well) in well {
            let seen = replicas.entry(*id).or_insert(Seen { listed: true, since: now, well: *well });
            if seen.well != *well {
                (seen.well, seen.since) = (*well, now);
            }
            let limit = if seen.well { BACK_AFTER } else { GONE_AFTER };
            if seen.listed != seen.well && now - seen.since >= limit {
                seen.listed = seen.well;
                changed = true;
            }
        }
        // When nobody seems well the fault is more likely here: all are listed.
        if changed && replicas.values().all(|s| !s.listed) {
            replicas.values_mut().for_each(|s| s.listed = true);
        }
        changed
    }

    /// Looks until it is dropped; `changed` is called when the list has changed.
    pub async fn run(self: Arc<Self>, env: Env, db: Arc<RaftDb>, changed: impl Fn()) {
        loop {
            let status = db.status().await;
            let well: Vec<(NodeId, bool)> = status.replicas.iter().map(|r| (r.id, r.reachable && r.ready)).collect();
            if self.observe(env.mono(), &well) {
                let listed: Vec<NodeId> = well.iter().map(|w| w.0).filter(|id| self.lists(*id)).collect();
                tracing::info!(?listed, "the replicas that pods are sent to have changed");
                changed();
            }
            env.sleep(INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    #[test]
    fn a_replica_leaves_after_a_while_of_silence_and_returns_after_a_while_of_health() {
        let r = Reachable::default();
        let look = |seconds: u64, b: bool| (r.observe(at(seconds), &[(1, true), (2, b)]), r.lists(2));
        assert_eq!(look(0, true), (false, true));
        // A restart is nobody's business.
        assert_eq!((look(2, false), look(4, true)), ((false, true), (false, true)));
        assert_eq!((look(10, false), look(17, false)), ((false, true), (false, true)));
        assert_eq!(look(18, false), (true, false));
        assert_eq!((look(20, true), look(22, false), look(24, true)), ((false, false), (false, false), (false, false)));
        assert_eq!((look(26, true), look(27, true)), ((false, false), (true, true)));
        assert!(r.lists(1) && r.lists(9), "one that was never looked at is not judged");
    }

    #[test]
    fn who_sees_nobody_well_leaves_the_list_as_it_is() {
        let r = Reachable::default();
        for seconds in [0, 5, 10, 20] {
            r.observe(at(seconds), &[(1, false), (2, false)]);
            assert!(r.lists(1) && r.lists(2));
        }
    }
}
