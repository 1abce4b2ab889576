//! The etcd facade's keyspace, which has a revision counter of its own: puts,
//! swaps and deletes, reads, compactions, and transactions that read the past,
//! which may be compacted.

use std::sync::Arc;

use bytes::Bytes;
use triarch_mvcc::{
    CommitError, Committed, Db, FacadeCompare, FacadeOp, FacadeOutcome, FacadeRange, FacadeResult, FacadeTarget,
    FacadeTxn, Key, Op, Revision, Txn, TxnOutcome, facade_key,
};

use crate::history::{Answer, ReadOp, WriteOp};
use crate::run::{Gone, Run};

const CLIENTS: u64 = 2;
const KEYS: u64 = 3;
/// Compactions stay this far behind: everybody who looks has seen what goes.
const KEPT: Revision = 40;

pub fn start(run: &Arc<Run>) {
    for n in 0..CLIENTS {
        let r = run.clone();
        run.client(async move { client(&r, n).await });
    }
}

async fn client(run: &Run, n: u64) {
    let name = format!("facade-client-{n}");
    let mut count = 0u64;
    while !run.load.is_cancelled() {
        count += 1;
        let key = facade_key(format!("f{}", run.env.random_below(KEYS)).as_bytes());
        let value = Bytes::from(format!("{n}.{count}"));
        match run.env.random_below(10) {
            0..=2 => drop(read(run, &name, key).await),
            3 => compact(run).await,
            4 => {
                let delete = FacadeOp::Delete(FacadeRange::single(key.clone()));
                write(run, &name, FacadeTxn { success: vec![delete], ..FacadeTxn::default() }, (key, None)).await;
            }
            5 => write(run, &name, FacadeTxn::put(key.clone(), value.clone()), (key, Some(value))).await,
            _ => {
                let Some(seen) = read(run, &name, key.clone()).await else { continue };
                let held = seen.found[0].1.as_ref().map_or(0, |(revision, _)| *revision as i64);
                let unchanged = FacadeCompare {
                    range: FacadeRange::single(key.clone()),
                    target: FacadeTarget::Mod(held),
                    result: FacadeResult::Equal,
                };
                // A revision that may be compacted by then, or not be there yet.
                let past = (seen.at + 2).saturating_sub(run.env.random_below(2 * KEPT)) as i64;
                let put = FacadeOp::Put(key.clone(), Some(value.clone()));
                let txn =
                    FacadeTxn { compare: vec![unchanged], success: vec![FacadeOp::At(past), put], failure: Vec::new() };
                write(run, &name, txn, (key, Some(value))).await;
            }
        }
        run.think().await;
    }
}

/// Sends a transaction that writes one key to any replica, and notes it with its answer.
async fn write(run: &Run, client: &str, txn: FacadeTxn, wrote: (Key, Option<Bytes>)) {
    let via = run.any();
    let deletes = wrote.1.is_none();
    run.trace.line(|| format!("{client} r{via} write {txn:?}"));
    let at = {
        let mut history = run.facade.history.lock();
        history.writes.push(WriteOp {
            client: client.to_owned(),
            invoked: run.env.mono(),
            returned: None,
            keys: vec![wrote],
            answer: Answer::Unknown,
        });
        history.writes.len() - 1
    };
    run.tally.with(|c| c.writes += 1);
    let txn = Txn { ops: vec![Op::Facade(txn)], ..Txn::default() };
    let answer = run.call(via, |db| async move { db.commit(txn).await }).await;
    let answer = answer.unwrap_or_else(|Gone| Err(CommitError::Unknown("the connection was lost".into())));
    run.trace.line(|| format!("{client} r{via} answer {answer:?}"));
    let mut history = run.facade.history.lock();
    let noted = &mut history.writes[at];
    noted.returned = Some(run.env.mono());
    noted.answer = match answer {
        Ok(Committed { outcome: TxnOutcome::Facade(FacadeOutcome::Done { revision, wrote: true, .. }), .. }) => {
            run.tally.with(|c| c.acked += 1);
            Answer::Done(vec![revision])
        }
        // A delete of nothing.
        Ok(Committed { outcome: TxnOutcome::Facade(FacadeOutcome::Done { .. }), .. }) if deletes => {
            Answer::Done(vec![0])
        }
        Ok(Committed { outcome: TxnOutcome::Facade(_) | TxnOutcome::TooLarge, .. }) => Answer::Refused,
        Ok(_) | Err(CommitError::Unknown(_) | CommitError::Stopped(_)) => Answer::Unknown,
        Err(_) => Answer::Refused,
    };
}

/// A linearizable read of a key through any replica.
async fn read(run: &Run, client: &str, key: Key) -> Option<ReadOp> {
    let (via, invoked) = (run.any(), run.env.mono());
    let answer = run
        .call(via, |db| async move {
            db.read_barrier().await.ok()?;
            let (stored, at) = db.mvcc().get_with_revision(&key);
            Some((at, (key, stored.map(|s| (s.mod_revision, s.object.bytes)))))
        })
        .await;
    let (at, found) = answer.ok().flatten()?;
    run.trace.line(|| format!("{client} r{via} read at {at}: {found:?}"));
    let op = ReadOp { client: client.to_owned(), invoked, returned: run.env.mono(), at, found: vec![found] };
    run.facade.history.lock().reads.push(op.clone());
    Some(op)
}

async fn compact(run: &Run) {
    let via = run.any();
    let _ = run
        .call(via, |db| async move {
            let floor = db.mvcc().facade_revision().saturating_sub(KEPT);
            db.commit(Txn { ops: vec![Op::CompactFacade(floor)], ..Txn::default() }).await
        })
        .await;
}
