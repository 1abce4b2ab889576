//! Whether this replica can reach a quorum: a read point now and then, because
//! a replica that has lost its peers hears nothing that would tell it so.
//!
//! `/readyz`, the shared port and `triarch status` go by it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use triarch_env::{Env, Mono, Scope};
use triarch_mvcc::Db;
use triarch_raft::RaftDb;

/// Between two read points.
const EVERY: Duration = Duration::from_secs(1);
/// A read point that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(2);
/// Without a read point for this long, the quorum counts as lost.
const STALE: Duration = Duration::from_secs(3);

/// See the module's text; cheap to clone.
#[derive(Clone)]
pub struct Quorum {
    db: Arc<RaftDb>,
    env: Env,
    last: Arc<Mutex<Mono>>,
}

impl Quorum {
    /// Starts looking; until the first answer is due the quorum counts as there.
    pub fn start(db: &Arc<RaftDb>, env: &Env, scope: &Scope) -> Quorum {
        let quorum = Quorum { db: db.clone(), env: env.clone(), last: Arc::new(Mutex::new(env.mono())) };
        let this = quorum.clone();
        env.spawn_in(scope, "quorum", async move {
            loop {
                let asked = this.env.mono();
                if let Ok(Ok(_)) = this.env.timeout(LIMIT, this.db.read_barrier()).await {
                    *this.last.lock() = asked;
                }
                this.env.sleep(EVERY).await;
            }
        });
        quorum
    }

    /// Resolves once the quorum is not reachable.
    pub async fn lost(&self) {
        loop {
            let fresh_until = *self.last.lock() + STALE;
            if self.env.mono() >= fresh_until {
                return;
            }
            self.env.sleep_until(fresh_until).await;
        }
    }

    /// A read point was had within the last seconds.
    pub fn reachable(&self) -> bool {
        self.env.mono() - *self.last.lock() < STALE
    }

    /// Caught up since the start, with a leader and a quorum behind it.
    pub fn ready(&self) -> bool {
        self.db.is_ready() && self.reachable()
    }
}
