//! A replica's disk takes only so many writes a second.

use anyhow::Context;
use futures::FutureExt;

use super::{Kind, Target, disks};
use crate::stage::Stage;

pub const KIND: Kind = Kind {
    name: "disk-slow",
    what: "the disk of a replica takes 20 to 100 writes a second (blkio or io.max)",
    target: Target::Any,
    lasts: (2_000, 8_000),
    goes_on: true,
    rejoins: false,
    unnoticed: false,
    lacks,
    hurt: |stage, hit| {
        async move {
            let process = stage.cluster().replicas()[hit.replica].id().context("the replica runs")?;
            let writes = 20 + (hit.dice % 81) as u32;
            Ok(stage.disk(hit.replica)?.slow(process, writes)?)
        }
        .boxed_local()
    },
    heal: |stage, hit| {
        async move {
            let disk = stage.disk(hit.replica)?;
            tokio::task::block_in_place(|| disk.unslow());
            Ok(())
        }
        .boxed_local()
    },
};

fn lacks(stage: &Stage) -> Option<String> {
    let no_limit = || triarch_lab::disk::throttle().is_none().then(|| "this kernel limits no writes".to_owned());
    disks(stage).or_else(no_limit)
}
