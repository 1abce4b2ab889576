//! A replica's data directory is lost: the replica is removed, and another
//! joins under its name with an empty one.

use futures::FutureExt;

use super::{Kind, Target, done, nothing};

pub const KIND: Kind = Kind {
    name: "replace",
    what: "a data directory is lost, and its replica replaced (replica remove, join)",
    target: Target::Any,
    lasts: (0, 0),
    goes_on: true,
    rejoins: false,
    unnoticed: false,
    lacks: nothing,
    hurt: |stage, hit| {
        async move {
            stage.away.insert(hit.replica);
            stage.kill(hit.replica)?;
            // Whoever leads next has to be there to remove it.
            stage.leader().await?;
            Ok(stage.cluster().replace(hit.replica).await?)
        }
        .boxed_local()
    },
    heal: |_, _| done().boxed_local(),
};
