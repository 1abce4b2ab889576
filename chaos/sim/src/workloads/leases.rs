//! Grants of the etcd facade's leases, which the log may hold from a feature
//! level on only: below it a client is told so.

use std::sync::Arc;
use std::time::Duration;

use triarch_mvcc::{CommitError, Guard, LEASE_RESOURCE, Op, Txn, lease_key, lease_object, levels};

use super::write;
use crate::invariants::levels::NAME;
use crate::run::Run;

pub const RESOURCE: &str = LEASE_RESOURCE;
const EVERY: Duration = Duration::from_millis(500);

pub fn start(run: &Arc<Run>) {
    let r = run.clone();
    run.client(async move { client(&r).await });
}

async fn client(run: &Run) {
    let mut id = 0i64;
    while !run.load.is_cancelled() {
        id += 1;
        // A new one each time, so that no value is written twice.
        let grant = Op::Put(lease_key(id), lease_object(1000 + id));
        let txn = Txn { guards: vec![Guard::Absent(lease_key(id))], ops: vec![grant], epoch: None };
        if let Err(CommitError::FeatureLevel { needs, level }) = write(run, "lease-client", run.any(), txn).await {
            run.tally.checked(NAME, 1);
            if (needs, level) != (levels::LATEST, levels::FIRST) {
                run.tally.violation(NAME, format!("a grant needs level {needs} where the cluster is at {level}"));
            }
        }
        run.env.sleep(run.env.jitter(EVERY, 50)).await;
    }
}
