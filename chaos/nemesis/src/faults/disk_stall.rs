//! A replica's disk stands still for a while: every write and fdatasync takes
//! that long.

use futures::FutureExt;

use super::{Kind, Target, disks, done};

pub const KIND: Kind = Kind {
    name: "disk-stall",
    what: "the disk of a replica stands still (FIFREEZE)",
    target: Target::Any,
    lasts: (100, 2_000),
    goes_on: true,
    rejoins: false,
    unnoticed: false,
    lacks: disks,
    hurt: |stage, hit| async move { Ok(stage.disk(hit.replica)?.hold(hit.ms).await?) }.boxed_local(),
    heal: |_, _| done().boxed_local(),
};
