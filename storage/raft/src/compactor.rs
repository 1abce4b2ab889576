//! The leader's raising of the compaction floor: history older than the watch
//! window may go, on every replica at the same revision.
//!
//! The store has no clock, so the leader remembers where the heads were; a new
//! leader remembers nothing and therefore keeps history a little longer.
//! Every proposal names the leader's epoch.

use std::collections::VecDeque;
use std::sync::Arc;

use triarch_env::Mono;
use triarch_mvcc::{Db, Epoch, Revision, Txn};

use crate::db::RaftDb;

/// Heads that are remembered for one window.
const SAMPLES: usize = 64;

/// Runs until its leader scope ends.
pub(crate) async fn run(db: Arc<RaftDb>, epoch: Epoch) {
    let (env, window) = (db.env().clone(), db.config().window.clone());
    let every = window.check.max(window.age / SAMPLES as u32);
    let mut heads: VecDeque<(Mono, (Revision, Revision))> = VecDeque::new();
    let mut expired = (0, 0);
    let mut sampled = env.mono();
    loop {
        let now = env.mono();
        let stats = db.mvcc().window();
        if heads.is_empty() || now.since(sampled) >= every {
            heads.push_back((now, (stats.main.revision, stats.facade.revision)));
            sampled = now;
        }
        while heads.len() > SAMPLES || heads.front().is_some_and(|(at, _)| now.since(*at) >= window.age) {
            expired = heads.pop_front().map_or(expired, |(_, head)| head);
        }
        let bytes = usize::try_from(window.bytes).unwrap_or(usize::MAX);
        for op in stats.compactions(window.events, bytes, expired) {
            let txn = Txn { guards: Vec::new(), ops: vec![op], epoch: Some(epoch) };
            if let Err(e) = db.commit(txn).await {
                tracing::debug!(error = %e, "the compaction floor was not raised; trying again later");
                break;
            }
        }
        env.sleep(window.check).await;
    }
}
