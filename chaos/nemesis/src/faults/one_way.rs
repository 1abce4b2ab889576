//! What a replica sends is lost and what it is sent arrives, or the other way
//! round.

use futures::FutureExt;
use triarch_lab::cluster::Cut;

use super::{Kind, Target, heal_network, namespaces};

pub const KIND: Kind = Kind {
    name: "one-way",
    what: "packets between a replica and the others are lost in one direction (nftables)",
    target: Target::Any,
    lasts: (1_500, 5_000),
    goes_on: true,
    rejoins: true,
    unnoticed: false,
    lacks: namespaces,
    hurt: |stage, hit| {
        async move {
            stage.away.insert(hit.replica);
            let how = if hit.dice % 2 == 0 { Cut::Sending } else { Cut::Hearing };
            let (network, others) = (stage.network()?.clone(), stage.others(hit.replica));
            Ok(tokio::task::block_in_place(|| network.cut(hit.replica, &others, how))?)
        }
        .boxed_local()
    },
    heal: |stage, _| heal_network(stage).boxed_local(),
};
