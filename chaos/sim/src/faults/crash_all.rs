//! The power of all machines fails at once.

use std::sync::Arc;

use super::between;
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    let mut ids = run.ids();
    for &id in &ids {
        run.power_off(id);
    }
    run.tally.fault("crash-all");
    run.env.sleep(between(&run, 100, 1000)).await;
    let first = run.env.random_below(ids.len() as u64) as usize;
    ids.rotate_left(first);
    for id in ids {
        run.env.sleep(between(&run, 0, 500)).await;
        run.restart(id).await;
    }
    // All damage is repaired before anything else is damaged.
    run.until(std::time::Duration::from_secs(30), || run.all(|up| up.db.is_ready())).await;
}
