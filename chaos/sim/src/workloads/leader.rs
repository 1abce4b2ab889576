//! What a leader does: a beat that names its epoch, written as leader-only
//! writes are. When the leadership is over, somebody who has not noticed goes
//! on writing for a while.

use std::sync::Arc;
use std::time::Duration;

use triarch_mvcc::{CommitError, Db, Epoch, Object, Op, Txn, TxnOutcome};
use triarch_raft::NodeId;

use super::key;
use crate::history::Acting;
use crate::machine::Up;
use crate::run::Run;

pub const RESOURCE: &str = "leader";
const EVERY: Duration = Duration::from_millis(100);
/// Writes of somebody who still believes in an epoch that is over.
const LATE: u64 = 3;

/// Notes the end of a leadership's scope, however it ends.
struct Until(Arc<Run>, usize);

impl Drop for Until {
    fn drop(&mut self) {
        let now = self.0.env.mono();
        self.0.history.lock().acting[self.1].until = Some(now);
    }
}

fn beat(epoch: Epoch, n: u64) -> Txn {
    let text = format!("{}.{}.{n}", epoch.term, epoch.node);
    Txn { ops: vec![Op::Put(key(RESOURCE, "beat"), Object::plain(text))], guards: Vec::new(), epoch: Some(epoch) }
}

/// The epoch that a beat names.
pub fn epoch_of(value: &[u8]) -> Option<Epoch> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split('.').map(str::parse);
    Some(Epoch { term: parts.next()?.ok()?, node: parts.next()?.ok()? })
}

pub fn on_start(run: &Arc<Run>, id: NodeId, up: &Up) {
    let (run, up2) = (run.clone(), up.clone());
    up.process.spawn(async move {
        let Up { env, db, life, .. } = up2;
        let watch = db.leader_watch().clone();
        let scope = triarch_env::Scope::new();
        let db = Arc::downgrade(&db);
        let work = |epoch: Epoch, _| {
            let (run, db, env) = (run.clone(), db.clone(), env.clone());
            run.trace.line(|| format!("r{id} acts as leader of {epoch:?}"));
            let at = {
                let mut history = run.history.lock();
                history.acting.push(Acting { replica: id, life, epoch, from: run.env.mono(), until: None });
                history.acting.len() - 1
            };
            let until = Until(run.clone(), at);
            async move {
                let _until = until;
                late(&run, epoch);
                let mut n = 0;
                while let Some(db) = db.upgrade() {
                    n += 1;
                    match db.commit(beat(epoch, n)).await {
                        Ok(done) if done.outcome == TxnOutcome::Fenced => run.tally.checked("epoch-fence", 1),
                        Err(CommitError::Fenced(_)) => run.tally.checked("epoch-fence", 1),
                        _ => {}
                    }
                    drop(db);
                    env.sleep(EVERY).await;
                }
            }
        };
        watch.run_as_leader(&env.clone(), &scope, work).await;
    });
}

/// Writes of the leadership before this one, through any replica: they must be fenced.
fn late(run: &Arc<Run>, now: Epoch) {
    let before = run.history.lock().acting.iter().map(|a| a.epoch).filter(|e| *e < now).max();
    let Some(before) = before else { return };
    let r = run.clone();
    run.client(async move {
        for n in 0..LATE {
            let via = r.any();
            let answer = r.call(via, move |db| async move { db.commit(beat(before, 1_000_000 + n)).await }).await;
            r.tally.checked("epoch-fence", 1);
            if let Ok(Ok(done)) = answer
                && done.outcome != TxnOutcome::Fenced
            {
                r.tally.violation("epoch-fence", format!("a write of {before:?} was made under {now:?}: {done:?}"));
            }
            r.env.sleep(EVERY).await;
        }
    });
}
