//! Transfers between accounts in one transaction each: whoever lists the
//! accounts at one revision finds the same total, on every replica.

use std::sync::Arc;

use triarch_mvcc::{Db, Guard, ListRequest, Object, Op, Prefix, Txn};

use super::{key, read, write};
use crate::run::Run;

pub const RESOURCE: &str = "accounts";
const CLIENTS: u64 = 2;
const ACCOUNTS: u64 = 5;
const OPENING: i64 = 1000;

pub fn start(run: &Arc<Run>) {
    let r = run.clone();
    run.client(async move {
        let put = |n| Op::Put(key(RESOURCE, &format!("a{n}")), Object::plain(format!("{OPENING} open.{n}")));
        let guard = Guard::Absent(key(RESOURCE, "a0"));
        while !r.load.is_cancelled() {
            let txn = Txn { guards: vec![guard.clone()], ops: (0..ACCOUNTS).map(put).collect(), epoch: None };
            if write(&r, "bank", r.any(), txn).await.is_ok() {
                break;
            }
        }
        let work = (0..CLIENTS).map(|n| client(&r, n));
        futures::future::join_all(work).await;
    });
}

/// `balance note`: the note makes each value unique.
fn balance(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.split(' ').next()?.parse().ok()
}

async fn client(run: &Run, n: u64) {
    let name = format!("account-client-{n}");
    let mut count = 0u64;
    while !run.load.is_cancelled() {
        count += 1;
        if run.env.random_below(4) == 0 {
            audit(run).await;
            run.think().await;
            continue;
        }
        let from = run.env.random_below(ACCOUNTS);
        let to = (from + 1 + run.env.random_below(ACCOUNTS - 1)) % ACCOUNTS;
        let pair = vec![key(RESOURCE, &format!("a{from}")), key(RESOURCE, &format!("a{to}"))];
        let Some(seen) = read(run, &name, run.any(), pair).await else { continue };
        let amount = 1 + run.env.random_below(100) as i64;
        let mut txn = Txn::default();
        for ((key, found), delta) in seen.found.into_iter().zip([-amount, amount]) {
            let Some((revision, bytes)) = found else { break };
            let Some(now) = balance(&bytes) else { break };
            txn.guards.push(Guard::ModRevision(key.clone(), revision));
            txn.ops.push(Op::Put(key, Object::plain(format!("{} {n}.{count}.{delta}", now + delta))));
        }
        if txn.ops.len() == 2 {
            drop(write(run, &name, run.any(), txn).await);
        }
        run.think().await;
    }
}

/// Lists all accounts page by page at one revision.
async fn audit(run: &Run) {
    let via = run.any();
    let sum = run
        .call(via, |db| async move {
            let (mut after, mut at, mut sum, mut number) = (None, None, 0, 0);
            loop {
                let request = ListRequest { prefix: Prefix::resource(RESOURCE), after, limit: 2, at };
                let page = db.mvcc().list(&request).ok()?;
                at = Some(page.revision);
                sum += page.items.iter().filter_map(|s| balance(&s.object.bytes)).sum::<i64>();
                number += page.items.len() as i64;
                after = page.items.last().map(|s| s.key.clone());
                if !page.more {
                    return Some((page.revision, number, sum));
                }
                // Writes come between the pages.
                let _ = db.wait_revision(page.revision + 1, std::time::Duration::from_millis(3)).await;
            }
        })
        .await;
    let Ok(Some((at, number, sum))) = sum else { return };
    if number == 0 {
        return;
    }
    run.tally.checked("snapshot-lists", 1);
    if number != ACCOUNTS as i64 || sum != OPENING * ACCOUNTS as i64 {
        run.tally
            .violation("snapshot-lists", format!("replica {via} lists {number} accounts of {sum} at revision {at}"));
    }
}
