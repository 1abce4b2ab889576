//! The session's life: choose a replica, say hello, take what comes, start over.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use triarch_env::Scope;
use triarch_rpc::node::control_message::Body as Control;
use triarch_rpc::node::{AgentMessage, ControlMessage, Hello, agent_message};

use super::{Uplink, UplinkError};
use crate::node::Node;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(8);
/// Until a Welcome says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(10);
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error(transparent)]
    Refused(#[from] super::assignment::Refused),
    #[error("the replica closed the session")]
    Closed,
    #[error("the replica has said nothing for {0:?}")]
    Silent(Duration),
    #[error("the replica asked for another to be chosen: {0}")]
    Goodbye(String),
}

/// Keeps a session with some replica until `scope` ends. Sticks to a replica
/// that works, moves on from one that does not.
pub async fn keep(node: Arc<Node>, uplink: Arc<dyn Uplink>, scope: Scope) {
    let env = node.env().clone();
    let mut at = env.random_below(uplink.replicas().max(1) as u64) as usize;
    let mut retry = FIRST_RETRY;
    while !scope.is_cancelled() {
        let replicas = uplink.replicas().max(1);
        let mut welcomed = false;
        let Some(ended) = scope.run(once(&node, &uplink, at % replicas, &mut welcomed)).await else { return };
        if welcomed {
            retry = FIRST_RETRY;
        }
        tracing::info!(node = %node.name(), replica = at % replicas, reason = %ended, "session ended");
        node.set_connected(false);
        at = (at + 1) % replicas;
        let wait = env.jitter(retry, 50);
        // One pass over the replicas at the short interval, longer after it.
        if at.is_multiple_of(replicas) || !welcomed {
            retry = (retry * 2).min(MAX_RETRY);
        }
        if scope.run(env.sleep(wait)).await.is_none() {
            return;
        }
    }
}

async fn once(node: &Arc<Node>, uplink: &Arc<dyn Uplink>, replica: usize, welcomed: &mut bool) -> Ended {
    let own = Scope::new();
    let ended = talk(node, uplink, replica, welcomed, &own).await;
    own.cancel();
    match ended {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

async fn talk(
    node: &Arc<Node>,
    uplink: &Arc<dyn Uplink>,
    replica: usize,
    welcomed: &mut bool,
    own: &Scope,
) -> Result<std::convert::Infallible, Ended> {
    let env = node.env().clone();
    let session = node.outbox().reset();
    node.session_started();
    let (ledger_term, ledger_revision) = node.position();
    let hello = Hello {
        node_name: node.name().to_owned(),
        boot_id: node.boot_id().to_owned(),
        node_json: node.node_json(),
        ledger_term,
        ledger_revision,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        without_resources: node.without_resources(),
    };
    let first = AgentMessage { body: Some(agent_message::Body::Hello(hello)) };
    let of_node = node.clone();
    let rest = futures::stream::unfold((), move |()| {
        let node = of_node.clone();
        async move { node.outbox().next(session).await.map(|m| (m, ())) }
    });
    let outbound = futures::stream::once(async { first }).chain(rest).boxed();
    let opening = uplink.session(replica, node.name(), outbound);
    let mut inbound = match env.timeout(OPEN_LIMIT, opening).await {
        Ok(opened) => opened?,
        Err(_) => return Err(Ended::Silent(OPEN_LIMIT)),
    };
    let mut interval = HEARTBEAT;
    loop {
        // Heartbeats are acknowledged, so a live replica is heard from each interval.
        let limit = (interval * 3).max(Duration::from_secs(3));
        let message = match env.timeout(limit, inbound.next()).await {
            Ok(Some(message)) => message?,
            Ok(None) => return Err(Ended::Closed),
            Err(_) => return Err(Ended::Silent(limit)),
        };
        let ControlMessage { body: Some(body) } = message else { continue };
        match body {
            Control::Welcome(w) => {
                *welcomed = true;
                let wanted = Duration::from_millis(u64::from(w.heartbeat_interval_ms));
                interval = wanted.clamp(Duration::from_millis(100), Duration::from_secs(60));
                uplink.servers_changed(&w.servers);
                node.welcomed(&w);
                node.set_connected(true);
                let beating = node.clone();
                env.spawn_in(own, "heartbeat", async move { beat(beating, interval).await });
            }
            Control::Assign(part) => {
                let revision = part.revision;
                if node.assign(part)? {
                    node.outbox().ack(revision);
                }
            }
            Control::Delta(delta) => {
                let revision = delta.revision;
                node.delta(delta)?;
                node.outbox().ack(revision);
            }
            Control::HeartbeatAck(_) => {}
            Control::StatusAck(ack) => node.outbox().acknowledged(&ack),
            Control::Token(token) => node.tokens().answered(token),
            Control::Goodbye(g) => return Err(Ended::Goodbye(g.reason)),
        }
    }
}

async fn beat(node: Arc<Node>, interval: Duration) {
    let mut sequence = 0;
    loop {
        sequence += 1;
        let (_, revision) = node.position();
        node.outbox().heartbeat(sequence, revision);
        node.report_differences();
        node.env().sleep(node.env().jitter(interval, 10)).await;
    }
}
