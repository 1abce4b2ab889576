//! A follower is cut off from the other replicas.

use futures::FutureExt;
use triarch_lab::cluster::Cut;

use super::{Kind, Target, heal_network, namespaces};

pub const KIND: Kind = Kind {
    name: "cut-off",
    what: "a follower is cut off from the others (nftables)",
    target: Target::Follower,
    lasts: (1_000, 6_000),
    goes_on: true,
    rejoins: true,
    unnoticed: false,
    lacks: namespaces,
    hurt: |stage, hit| {
        async move {
            stage.away.insert(hit.replica);
            let (network, others) = (stage.network()?.clone(), stage.others(hit.replica));
            Ok(tokio::task::block_in_place(|| network.cut(hit.replica, &others, Cut::Both))?)
        }
        .boxed_local()
    },
    heal: |stage, _| heal_network(stage).boxed_local(),
};
