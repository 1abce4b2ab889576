//! The connections between two replicas break, again and again.

use std::sync::Arc;

use super::between;
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    for _ in 0..=run.env.random_below(4) {
        let (a, b) = (run.any(), run.any());
        if a != b && run.network.reset(a, b) > 0 {
            run.tally.fault("stream-reset");
            run.trace.line(|| format!("connections between r{a} and r{b} break"));
        }
        run.env.sleep(between(&run, 5, 300)).await;
    }
}
