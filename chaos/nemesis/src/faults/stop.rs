//! SIGTERM: hands leadership over, ends its streams, closes its log.

use futures::FutureExt;

use super::{Kind, Target, nothing, start};

pub const KIND: Kind = Kind {
    name: "stop",
    what: "SIGTERM, later started again",
    target: Target::Any,
    lasts: (200, 2_000),
    goes_on: true,
    rejoins: true,
    unnoticed: true,
    lacks: nothing,
    hurt: |stage, hit| {
        async move {
            stage.away.insert(hit.replica);
            stage.stop(hit.replica)
        }
        .boxed_local()
    },
    heal: |stage, hit| start(stage, hit).boxed_local(),
};
