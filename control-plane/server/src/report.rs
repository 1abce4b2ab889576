//! A follower tells the leader which nodes it has heard, in batches.

use std::time::Duration;

use tonic::Request;
use triarch_env::Env;
use triarch_gateway::Liveness;
use triarch_rpc::admin::{NodeHeard, ReportLivenessRequest};

use crate::admin::AdminService;

/// Signs of life are gathered this long before they are sent.
const GATHER: Duration = Duration::from_secs(2);
/// A leader that does not answer is asked again with the next batch.
const CALL: Duration = Duration::from_secs(3);

/// Runs until it is dropped.
pub async fn run(env: &Env, liveness: &Liveness, admin: &AdminService) {
    loop {
        let nodes = liveness.take_heard().await;
        if !admin.leads() {
            let heard = |(name, milliseconds_ago)| NodeHeard { name, milliseconds_ago };
            let report = ReportLivenessRequest { nodes: nodes.into_iter().map(heard).collect() };
            let sent = env.timeout(CALL, async {
                let Ok(Some(mut leader)) = admin.to_leader().await else { return false };
                leader.report_liveness(Request::new(report)).await.is_ok()
            });
            if sent.await != Ok(true) {
                tracing::debug!("the leader was not told which nodes live; it will be with the next heartbeats");
            }
        }
        env.sleep(GATHER).await;
    }
}
