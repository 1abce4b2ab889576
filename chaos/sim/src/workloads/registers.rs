//! A few keys that everybody reads, compares-and-sets, overwrites and deletes.

use std::sync::Arc;

use triarch_mvcc::{Guard, Object, Op, Txn};

use super::{key, read, write};
use crate::run::Run;

pub const RESOURCE: &str = "registers";
const CLIENTS: u64 = 4;
const KEYS: u64 = 4;

pub fn start(run: &Arc<Run>) {
    for n in 0..CLIENTS {
        let r = run.clone();
        run.client(async move { client(&r, n).await });
    }
}

async fn client(run: &Run, n: u64) {
    let name = format!("register-client-{n}");
    let mut count = 0u64;
    while !run.load.is_cancelled() {
        let (via, key) = (run.any(), key(RESOURCE, &format!("k{}", run.env.random_below(KEYS))));
        count += 1;
        let put = Op::Put(key.clone(), Object::plain(format!("{n}.{count}")));
        match run.env.random_below(10) {
            0..=3 => drop(read(run, &name, via, vec![key]).await),
            4 => drop(write(run, &name, via, Txn { ops: vec![put], ..Txn::default() }).await),
            kind => {
                // Reads through one replica and writes through another.
                let Some(seen) = read(run, &name, run.any(), vec![key.clone()]).await else { continue };
                let (guard, op) = match (&seen.found[0].1, kind) {
                    (Some((revision, _)), 9) => (Guard::ModRevision(key.clone(), *revision), Op::Delete(key)),
                    (Some((revision, _)), _) => (Guard::ModRevision(key, *revision), put),
                    (None, _) => (Guard::Absent(key), put),
                };
                drop(write(run, &name, via, Txn { guards: vec![guard], ops: vec![op], epoch: None }).await);
            }
        }
        run.think().await;
    }
}
