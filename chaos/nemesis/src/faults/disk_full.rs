//! A replica's disk is full. The log reserves its room ahead, so large writes
//! go on until it wants more; the replica then says so and ends.

use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use serde_json::json;

use super::{Kind, Target, disks, start};
use crate::requests::NAMESPACE;
use crate::stage::Stage;

/// Bytes of one large write, and keys that they go to in turn.
const LARGE: usize = 512 << 10;
const KEYS: u64 = 4;
/// Large writes at most: twice what the log reserves.
const WRITES: u64 = 256;
/// One of them without an answer by then is left alone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

pub const KIND: Kind = Kind {
    name: "disk-full",
    what: "the disk of a replica is full, until there is room again",
    target: Target::Any,
    lasts: (0, 0),
    goes_on: true,
    rejoins: true,
    unnoticed: false,
    lacks: disks,
    hurt: |stage, hit| {
        async move {
            stage.away.insert(hit.replica);
            stage.disk(hit.replica)?.fill()?;
            stuff(stage, hit.replica).await
        }
        .boxed_local()
    },
    heal: |stage, hit| {
        async move {
            stage.disk(hit.replica)?.free()?;
            start(stage, hit).await
        }
        .boxed_local()
    },
};

/// Large writes at the other replicas until the log of this one is full.
async fn stuff(stage: &mut Stage, replica: usize) -> anyhow::Result<()> {
    let others = stage.others(replica);
    let text = "x".repeat(LARGE);
    for n in 0..WRITES {
        if !stage.cluster().replica(replica).is_running() {
            return Ok(());
        }
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("large-{}", n % KEYS), "namespace": NAMESPACE},
            "data": {"n": n.to_string(), "text": text},
        });
        let at = others.get(n as usize % others.len()).copied().context("a replica that is not hurt")?;
        let client = stage.cluster().replica_client(at)?;
        // One that fails while the leader changes is made up for by the next.
        let _ = tokio::time::timeout(WRITE_TIMEOUT, client.ensure(&object)).await;
    }
    Ok(())
}
