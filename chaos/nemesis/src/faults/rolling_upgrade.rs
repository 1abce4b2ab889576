//! One replica after the other is stopped, and started from another build;
//! the next time back again.

use futures::FutureExt;

use super::{Kind, Target, done};
use crate::stage::Stage;

pub const KIND: Kind = Kind {
    name: "rolling-upgrade",
    what: "SIGTERM of each replica in turn and a start from the other build, the leader last",
    target: Target::All,
    lasts: (0, 0),
    goes_on: true,
    rejoins: false,
    unnoticed: true,
    lacks,
    hurt: |stage, _| {
        async move {
            let to = (stage.build + 1) % stage.builds.len();
            let program = stage.builds[to].clone();
            stage.roll(Some(program)).await?;
            stage.build = to;
            Ok(())
        }
        .boxed_local()
    },
    heal: |_, _| done().boxed_local(),
};

fn lacks(stage: &Stage) -> Option<String> {
    (stage.builds.len() < 2).then(|| "there is one build only".to_owned())
}
