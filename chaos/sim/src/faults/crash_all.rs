//! The power of all machines fails at once.

use std::sync::Arc;

use super::between;
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    for id in 1..=run.replicas {
        run.power_off(id);
    }
    run.tally.fault("crash-all");
    run.env.sleep(between(&run, 100, 1000)).await;
    let mut ids: Vec<u64> = (1..=run.replicas).collect();
    ids.rotate_left(run.env.random_below(run.replicas) as usize);
    for id in ids {
        run.env.sleep(between(&run, 0, 500)).await;
        run.restart(id).await;
    }
    // All damage is repaired before anything else is damaged.
    let all = || run.ups().iter().filter(|(_, up)| up.db.is_ready()).count() as u64 == run.replicas;
    run.until(std::time::Duration::from_secs(30), all).await;
}
