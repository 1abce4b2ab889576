//! Somebody sets the date of a machine, by milliseconds or by a day, forwards
//! or backwards. Nothing but the times that objects show may depend on it.

use std::sync::Arc;

use super::between;
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    let id = run.any();
    let Some(up) = run.up(id) else { return };
    run.tally.fault("clock-jump");
    let size = [50_000, 5_000_000, 3_600_000_000, 86_400_000_000][run.env.random_below(4) as usize];
    let ahead = if run.env.random_below(2) == 0 { size } else { -size };
    run.trace.line(|| format!("r{id}'s date is {ahead} us ahead"));
    up.process.set_clock_ahead(ahead);
    run.env.sleep(between(&run, 200, 5000)).await;
    up.process.set_clock_ahead(0);
}
