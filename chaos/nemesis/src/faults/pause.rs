//! SIGSTOP: the process stays, its connections stay, nothing answers.

use futures::FutureExt;

use super::{Kind, Target, nothing};

pub const KIND: Kind = Kind {
    name: "pause",
    what: "SIGSTOP, later SIGCONT",
    target: Target::Any,
    lasts: (1_500, 4_000),
    goes_on: true,
    rejoins: true,
    unnoticed: false,
    lacks: nothing,
    hurt: |stage, hit| {
        async move {
            stage.away.insert(hit.replica);
            stage.cluster().replica(hit.replica).pause();
            Ok(())
        }
        .boxed_local()
    },
    heal: |stage, hit| {
        async move {
            stage.cluster().replica(hit.replica).resume();
            Ok(())
        }
        .boxed_local()
    },
};
