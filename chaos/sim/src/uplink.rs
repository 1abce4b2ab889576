//! The way of a node's agent to the replicas' gateways.
//!
//! A session is two channels, one for each direction, with a wire's delay. It
//! breaks when either end is killed. A node that is cut off, and a machine
//! without power, are silence: nothing arrives, and nothing tells of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use triarch_agent::session::{Inbound, Outbound, Uplink, UplinkError};
use triarch_env::{Env, Scope};
use triarch_rpc::node::{AgentMessage, ControlMessage, TunnelFrame, TunnelOpen};

use crate::agents::name;
use crate::run::Run;

/// Messages under way in one direction.
const DEPTH: usize = 64;

/// One agent's lines.
pub struct SimUplink {
    pub run: Arc<Run>,
    /// The agent process's own: what it sends dies with it.
    pub env: Env,
    pub index: u32,
}

/// A message's way on the wire; it waits while nothing gets through.
async fn wire(run: &Run, index: u32, replica: u64) {
    run.env.sleep(Duration::from_micros(100 + run.env.random_below(900))).await;
    run.network.node_way(index, replica).await;
}

/// What has come from an agent, as the gateway reads it.
fn received(rx: mpsc::Receiver<AgentMessage>) -> BoxStream<'static, Result<AgentMessage, Infallible>> {
    futures::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|m| (Ok(m), rx)) }).boxed()
}

/// Carries what the agent says until either end is gone.
async fn carry(
    run: Arc<Run>,
    (index, replica): (u32, u64),
    mut from: Outbound<AgentMessage>,
    to: mpsc::Sender<AgentMessage>,
) {
    loop {
        let next = {
            let mut closed = std::pin::pin!(to.closed().fuse());
            futures::select_biased! {
                () = closed => return,
                next = from.next().fuse() => next,
            }
        };
        wire(&run, index, replica).await;
        let Some(message) = next else { return };
        if to.send(message).await.is_err() {
            return;
        }
    }
}

#[async_trait]
impl Uplink for SimUplink {
    fn replicas(&self) -> usize {
        self.run.machines.lock().len()
    }

    async fn session(
        &self,
        replica: usize,
        _: &str,
        outbound: Outbound<AgentMessage>,
    ) -> Result<Inbound<ControlMessage>, UplinkError> {
        let (run, index) = (self.run.clone(), self.index);
        let refused = || UplinkError::Unreachable("connection refused".into());
        let id = run.ids().get(replica).copied().ok_or_else(refused)?;
        wire(&run, index, id).await;
        let up = run.up(id).ok_or_else(refused)?;
        let (to_replica, from_agent) = mpsc::channel::<AgentMessage>(DEPTH);
        let (to_agent, from_replica) = mpsc::channel::<ControlMessage>(DEPTH);
        let (shared, traced) = (up.plane.as_ref().ok_or_else(refused)?.gateway.clone(), run.clone());
        up.process.spawn(async move {
            let own = name(index);
            let speaks_for = move |n: &str| n == own;
            // The agent sees a refused session as one that has ended.
            let ended = triarch_gateway::session::run(shared, Scope::new(), speaks_for, received(from_agent), to_agent);
            let ended = ended.await;
            traced.trace.line(|| format!("{}'s session with r{id} ended: {ended:?}", name(index)));
        });
        drop(up);
        self.env.spawn("agent to replica", carry(run.clone(), (index, id), outbound, to_replica));
        let inbound = futures::stream::unfold((from_replica, run), move |(mut rx, run)| async move {
            let next = rx.recv().await;
            wire(&run, index, id).await;
            next.map(|m| (Ok(m), (rx, run)))
        });
        Ok(inbound.boxed())
    }

    async fn tunnels(&self, _: usize, _: &str) -> Result<Inbound<TunnelOpen>, UplinkError> {
        Err(UplinkError::Refused("no tunnels in the simulation".into()))
    }

    async fn tunnel(&self, _: usize, _: &str, _: Outbound<TunnelFrame>) -> Result<Inbound<TunnelFrame>, UplinkError> {
        Err(UplinkError::Refused("no tunnels in the simulation".into()))
    }
}
