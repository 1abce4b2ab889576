//! What clients do, one file each.
//!
//! Clients are outside the replicas: they send a request to one, wait for its
//! answer or for the news that it is gone, and note both. Each ends by itself
//! once [`Run::load`] has ended.

mod accounts;
pub mod deployment;
mod facade;
pub mod leader;
mod leases;
mod registers;
mod unique;
mod watchers;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use triarch_env::Mono;
use triarch_mvcc::{CommitError, Committed, Db, Key, Op, Revision, Txn, TxnOutcome};
use triarch_raft::NodeId;

use crate::history::{Answer, WriteOp};
use crate::machine::Up;
use crate::run::{Gone, Run};
use crate::settings::Stack;

/// What faults write when the log has to move on.
pub const BURST: &str = "burst";

/// Every resource that is written in a run.
pub static RESOURCES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let own = [registers::RESOURCE, unique::RESOURCE, accounts::RESOURCE, leader::RESOURCE, leases::RESOURCE, BURST];
    let system = ["~system", "~config", "~alloc.clusterip", "~alloc.nodeport"];
    let kinds = triarch_kinds::KINDS.iter().filter(|k| k.stored).map(|k| k.resource);
    let all: BTreeSet<&str> = own.into_iter().chain(system).chain(kinds).collect();
    all.into_iter().collect()
});

pub fn key(resource: &str, name: &str) -> Key {
    Key::new(resource, "d", name)
}

/// Starts all clients.
pub fn start(run: &Arc<Run>) {
    registers::start(run);
    unique::start(run);
    accounts::start(run);
    facade::start(run);
    leases::start(run);
    watchers::start(run);
    if run.settings.stack == Stack::Whole {
        deployment::start(run);
    }
}

/// What goes on in a replica's own process.
pub fn on_start(run: &Arc<Run>, id: NodeId, up: &Up) {
    leader::on_start(run, id, up);
}

/// What must come to its end after the faults.
pub async fn finish(run: &Arc<Run>) {
    if run.settings.stack == Stack::Whole {
        deployment::finish(run).await;
    }
}

/// Sends a write to replica `via` and notes it. The answer as well.
pub async fn write(run: &Run, client: &str, via: NodeId, txn: Txn) -> Result<Committed, CommitError> {
    let guards: Vec<Key> = txn.guards.iter().map(|g| g.key().clone()).collect();
    let keys = txn.ops.iter().filter_map(|op| match op {
        Op::Put(k, o) => Some((k.clone(), Some(o.bytes.clone()))),
        Op::Delete(k) => Some((k.clone(), None)),
        _ => None,
    });
    let op = WriteOp {
        client: client.to_owned(),
        invoked: run.env.mono(),
        returned: None,
        keys: keys.collect(),
        answer: Answer::Unknown,
    };
    run.trace.line(|| format!("{client} r{via} write {txn:?}"));
    let at = {
        let mut history = run.history.lock();
        history.writes.push(op);
        history.writes.len() - 1
    };
    run.tally.with(|c| c.writes += 1);
    let answer = run.call(via, |db| async move { db.commit(txn).await }).await;
    let answer = answer.unwrap_or_else(|Gone| Err(CommitError::Unknown("the connection was lost".into())));
    run.trace.line(|| format!("{client} r{via} answer {answer:?}"));
    let mut history = run.history.lock();
    let noted = &mut history.writes[at];
    noted.returned = Some(run.env.mono());
    noted.answer = match &answer {
        Ok(Committed { outcome: TxnOutcome::Committed { revisions }, .. }) => {
            run.tally.with(|c| c.acked += 1);
            Answer::Done(revisions.clone())
        }
        Ok(Committed { outcome: TxnOutcome::GuardFailed { index, found }, revision }) => {
            Answer::Guard { key: guards[*index as usize].clone(), found: *found, head: *revision }
        }
        Ok(Committed { outcome: TxnOutcome::Fenced | TxnOutcome::TooLarge, .. }) => Answer::Refused,
        Ok(_) | Err(CommitError::Unknown(_) | CommitError::Stopped(_)) => Answer::Unknown,
        Err(
            CommitError::NoLeader(_)
            | CommitError::Overloaded
            | CommitError::TooLarge { .. }
            | CommitError::FeatureLevel { .. }
            | CommitError::Fenced(_),
        ) => Answer::Refused,
    };
    answer
}

/// A linearizable read of keys through replica `via`; `None` when it gave no answer.
pub async fn read(run: &Run, client: &str, via: NodeId, keys: Vec<Key>) -> Option<crate::history::ReadOp> {
    let invoked: Mono = run.env.mono();
    let answer = run
        .call(via, |db| async move {
            let barrier: Revision = db.read_barrier().await.ok()?;
            // No await between the reads: they are of one moment.
            let at = db.mvcc().revision();
            let get = |k: Key| {
                let found = db.mvcc().get(&k).map(|s| (s.mod_revision, s.object.bytes));
                (k, found)
            };
            Some((barrier, at, keys.into_iter().map(get).collect::<Vec<_>>()))
        })
        .await;
    let (barrier, at, found) = answer.ok().flatten()?;
    if at < barrier {
        run.tally.violation("reads", format!("replica {via} answered with revision {at} after a barrier at {barrier}"));
    }
    run.trace.line(|| format!("{client} r{via} read at {at}: {found:?}"));
    let op = crate::history::ReadOp { client: client.to_owned(), invoked, returned: run.env.mono(), at, found };
    run.history.lock().reads.push(op.clone());
    Some(op)
}
