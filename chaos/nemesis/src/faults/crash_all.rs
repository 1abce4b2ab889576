//! SIGKILL to all replicas at once: the power of the whole room. (What the
//! kernel has in memory stays; the simulation loses that too.)

use futures::FutureExt;

use super::{Kind, Target, nothing};

pub const KIND: Kind = Kind {
    name: "crash-all",
    what: "SIGKILL to all replicas at once, later started again",
    target: Target::All,
    lasts: (200, 1_500),
    goes_on: false,
    rejoins: false,
    unnoticed: false,
    lacks: nothing,
    hurt: |stage, _| {
        async move {
            for replica in 0..stage.replicas() {
                stage.kill(replica)?;
            }
            Ok(())
        }
        .boxed_local()
    },
    heal: |stage, _| async move { Ok(stage.cluster().restart_all()?) }.boxed_local(),
};
