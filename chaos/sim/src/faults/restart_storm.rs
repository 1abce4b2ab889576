//! A replica is killed over and over, also while it still opens its log.

use std::sync::Arc;
use std::time::Duration;

use super::{back_whole, between};
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    let id = run.any();
    if !run.kill(id) {
        return;
    }
    run.tally.fault("restart-storm");
    for _ in 0..3 + run.env.random_below(5) {
        let alive = match run.env.random_below(3) {
            0 => Duration::from_micros(run.env.random_below(2000)),
            _ => between(&run, 0, 200),
        };
        let killed = async {
            run.env.sleep(alive).await;
            run.kill(id);
        };
        futures::join!(run.restart(id), killed);
    }
    back_whole(&run, id).await;
}
