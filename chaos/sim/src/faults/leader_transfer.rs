//! Leadership is handed over on request.

use std::sync::Arc;

use super::{between, leader_or_any};
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    let id = leader_or_any(&run);
    run.tally.fault("leader-transfer");
    let to = Some(run.any()).filter(|to| *to != id);
    let answer = run.call(id, move |db| async move { db.transfer_leader(to).await.map_err(|e| e.to_string()) }).await;
    run.trace.line(|| format!("r{id} hands leadership to {to:?}: {answer:?}"));
    run.env.sleep(between(&run, 50, 500)).await;
}
