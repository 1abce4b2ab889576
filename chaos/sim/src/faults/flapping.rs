//! A replica is cut off and reached again, many times in a few seconds: now and
//! then long enough for an election, mostly not.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{between, isolate};
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    if run.alone() {
        return;
    }
    run.tally.fault("partition-flapping");
    let part = BTreeSet::from([run.any()]);
    let times = 3 + run.env.random_below(10);
    run.trace.line(|| format!("{part:?} are cut off and reached again {times} times"));
    for _ in 0..times {
        isolate::cut(&run, &part);
        run.env.sleep(between(&run, 10, 400)).await;
        run.network.unblock_all();
        run.env.sleep(between(&run, 10, 200)).await;
    }
}
