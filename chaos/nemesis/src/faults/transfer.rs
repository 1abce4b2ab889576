//! `triarch leader transfer`.

use anyhow::bail;
use futures::FutureExt;

use super::{Kind, Target, done, nothing};

pub const KIND: Kind = Kind {
    name: "transfer",
    what: "triarch leader transfer",
    target: Target::Leader,
    lasts: (0, 0),
    goes_on: true,
    rejoins: false,
    unnoticed: true,
    lacks: nothing,
    hurt: |stage, _| {
        async move {
            let said = stage.cluster().triarch(&["leader", "transfer"]).await?;
            if !said.starts_with("leader=") {
                bail!("leader transfer: {said}");
            }
            Ok(())
        }
        .boxed_local()
    },
    heal: |_, _| done().boxed_local(),
};
