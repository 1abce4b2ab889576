//! One replica after the other is stopped and started, the leader last.

use futures::FutureExt;

use super::{Kind, Target, done, nothing};

pub const KIND: Kind = Kind {
    name: "rolling-restart",
    what: "SIGTERM and a start of each replica in turn, the leader last",
    target: Target::All,
    lasts: (0, 0),
    goes_on: true,
    rejoins: false,
    unnoticed: true,
    lacks: nothing,
    hurt: |stage, _| stage.roll(None).boxed_local(),
    heal: |_, _| done().boxed_local(),
};
