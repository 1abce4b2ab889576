//! Keys that are created once. A client that does not learn what became of a
//! create sends it again, through any replica, until it knows: either it is
//! made now, or the key is there, and then it must be the client's own.

use std::sync::Arc;
use std::time::Duration;

use triarch_mvcc::{Committed, Guard, Object, Op, Txn, TxnOutcome};

use super::{key, write};
use crate::run::Run;

pub const RESOURCE: &str = "unique";
const CLIENTS: u64 = 2;
/// Tries until a client gives up a key; with the store's own bounds this is never reached.
const TRIES: u64 = 200;

pub fn start(run: &Arc<Run>) {
    for n in 0..CLIENTS {
        let r = run.clone();
        run.client(async move { client(&r, n).await });
    }
}

async fn client(run: &Run, n: u64) {
    let name = format!("unique-client-{n}");
    let mut count = 0u64;
    while !run.load.is_cancelled() {
        count += 1;
        let key = key(RESOURCE, &format!("{n}.{count}"));
        for attempt in 0..TRIES {
            let txn = Txn {
                guards: vec![Guard::Absent(key.clone())],
                ops: vec![Op::Put(key.clone(), Object::plain(format!("u{n}.{count}.{attempt}")))],
                epoch: None,
            };
            match write(run, &name, run.any(), txn).await {
                Ok(Committed { outcome: TxnOutcome::Committed { .. }, .. }) => break,
                Ok(Committed { outcome: TxnOutcome::GuardFailed { .. }, .. }) if attempt > 0 => break,
                Ok(Committed { outcome, .. }) if attempt == 0 && matches!(outcome, TxnOutcome::GuardFailed { .. }) => {
                    run.tally.violation("applied-once", format!("a new key {key:?} was there before its first create"));
                    break;
                }
                _ => run.env.sleep(run.env.jitter(Duration::from_millis(50), 50)).await,
            }
        }
        run.think().await;
    }
}
