//! A replica's wall clock jumps by up to four minutes, and back later.
//! (Certificates are dated back by five.)

use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;

use super::{Kind, Target};
use crate::stage::Stage;

/// Largest jump, milliseconds.
const LARGEST: u64 = 240_000;

pub const KIND: Kind = Kind {
    name: "clock-skew",
    what: "the wall clock of a replica jumps by up to four minutes, and back",
    target: Target::Any,
    lasts: (1_000, 6_000),
    goes_on: true,
    rejoins: false,
    unnoticed: true,
    lacks,
    hurt: |stage, hit| {
        let offset = Duration::from_millis(200 + hit.dice % LARGEST);
        async move { set(stage, hit.replica, offset, hit.dice & (1 << 40) != 0) }.boxed_local()
    },
    heal: |stage, hit| async move { set(stage, hit.replica, Duration::ZERO, false) }.boxed_local(),
};

fn lacks(stage: &Stage) -> Option<String> {
    stage.clocks.is_none().then(|| "replicas have the machine's clock".to_owned())
}

fn set(stage: &Stage, replica: usize, offset: Duration, behind: bool) -> anyhow::Result<()> {
    stage.clocks.as_ref().context("clocks of their own")?.set(replica, offset, behind)
}
