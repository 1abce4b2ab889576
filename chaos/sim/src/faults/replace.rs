//! A replica is taken out for good and another joins in its place, in either
//! order, while everything else goes on, and with a fault in between.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use triarch_raft::{MembershipError, NodeId, RaftDb};

use super::{back_whole, between, kill, leader_transfer};
use crate::run::Run;

/// One answer of a leader.
const ANSWER: Duration = Duration::from_secs(10);
/// A change that is not made by then, with leaders asked again and again, is given up.
const LIMIT: Duration = Duration::from_secs(120);

/// Asks whoever leads until the change is made.
async fn until_done<T, Fut>(run: &Arc<Run>, what: &str, ask: impl Fn(Arc<RaftDb>) -> Fut + Clone + Send) -> Option<T>
where
    T: Send + 'static,
    Fut: Future<Output = Result<T, MembershipError>> + Send + 'static,
{
    let end = run.env.mono() + LIMIT;
    while run.env.mono() < end {
        if let Some(up) = run.leader().and_then(|leader| run.up(leader)) {
            let (tx, rx) = tokio::sync::oneshot::channel();
            let asked = ask(up.db.clone());
            up.process.spawn(async move {
                let _ = tx.send(asked.await);
            });
            drop(up);
            match run.env.timeout(ANSWER, rx).await {
                Ok(Ok(Ok(done))) => return Some(done),
                Ok(Ok(Err(e))) => run.trace.line(|| format!("{what}: {e}")),
                Ok(Err(_)) | Err(_) => run.trace.line(|| format!("{what}: no answer")),
            }
        }
        run.env.sleep(between(run, 20, 200)).await;
    }
    run.tally.violation("settles", format!("{what}: not done after {LIMIT:?}"));
    None
}

/// Takes `id` out of the cluster; its machine is gone.
pub async fn remove(run: &Arc<Run>, id: NodeId) {
    let removed = until_done(run, "removal", move |db| async move {
        match db.remove_replica(id).await {
            // An earlier attempt whose answer was lost.
            Err(MembershipError::Unknown(_)) => Ok(()),
            other => other,
        }
    });
    if removed.await.is_some() {
        run.trace.line(|| format!("r{id} is removed"));
        run.retire(id);
    }
}

/// A new replica on a new machine.
pub async fn join(run: &Arc<Run>) {
    let machine = run.new_machine();
    let (replica, supports) = (machine.replica.clone(), machine.supports);
    let ask = move |db: Arc<RaftDb>| {
        let replica = replica.clone();
        async move { db.add_replica(replica, supports).await }
    };
    let Some(id) = until_done(run, "join", ask).await else { return };
    run.trace.line(|| format!("{} joins as r{id}", machine.replica.name));
    run.machines.lock().insert(id, machine);
    run.restart(id).await;
    disturb(run).await;
    until_done(run, "promotion", move |db| async move { db.promote(id).await }).await;
}

/// Something else that goes wrong meanwhile.
async fn disturb(run: &Arc<Run>) {
    match run.env.random_below(4) {
        0 => leader_transfer::inject(run.clone()).await,
        1 => kill::leader(run.clone()).await,
        2 => kill::any(run.clone()).await,
        _ => {}
    }
}

pub async fn inject(run: Arc<Run>) {
    let old = run.any();
    run.tally.fault("replica-replaced");
    // The last one can only go when another is there.
    if run.alone() || run.env.random_below(2) == 0 {
        join(&run).await;
        disturb(&run).await;
        remove(&run, old).await;
    } else {
        remove(&run, old).await;
        disturb(&run).await;
        join(&run).await;
    }
    for id in run.ids() {
        if run.up(id).is_none() {
            back_whole(&run, id).await;
        }
    }
}
