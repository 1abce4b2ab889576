//! SIGKILL: what the process had not written is gone, its sockets are reset.

use futures::FutureExt;

use super::{Kind, Target, nothing, start};

pub const KIND: Kind = Kind {
    name: "kill",
    what: "SIGKILL, later started again",
    target: Target::Any,
    lasts: (200, 3_000),
    goes_on: true,
    rejoins: true,
    unnoticed: false,
    lacks: nothing,
    hurt: |stage, hit| {
        async move {
            stage.away.insert(hit.replica);
            stage.kill(hit.replica)
        }
        .boxed_local()
    },
    heal: |stage, hit| start(stage, hit).boxed_local(),
};
