//! A replica's way to the others comes and goes.

use std::time::Duration;

use futures::FutureExt;
use triarch_lab::cluster::Cut;

use super::{Kind, Target, heal_network, namespaces};

pub const KIND: Kind = Kind {
    name: "flapping",
    what: "a replica is cut off from the others and is not, several times a second (nftables)",
    target: Target::Any,
    lasts: (2_000, 5_000),
    goes_on: true,
    rejoins: false,
    unnoticed: false,
    lacks: namespaces,
    hurt: |stage, hit| {
        async move {
            let (network, others) = (stage.network()?.clone(), stage.others(hit.replica));
            let end = tokio::time::Instant::now() + Duration::from_millis(hit.ms);
            // 60 to 300 ms of each, uneven.
            let mut dice = hit.dice;
            while tokio::time::Instant::now() < end {
                tokio::task::block_in_place(|| network.cut(hit.replica, &others, Cut::Both))?;
                tokio::time::sleep(Duration::from_millis(60 + dice % 240)).await;
                tokio::task::block_in_place(|| network.heal())?;
                tokio::time::sleep(Duration::from_millis(60 + dice / 240 % 240)).await;
                dice = dice.rotate_right(7);
            }
            Ok(())
        }
        .boxed_local()
    },
    heal: |stage, _| heal_network(stage).boxed_local(),
};
