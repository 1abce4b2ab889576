//! What ten thousand watchers of other keys add to a put: the time of a put
//! under load with them, over that without, on the same cluster.

use std::time::Duration;

use crate::client::{Puts, still_watching, watch};
use crate::round::Round;

const CONNECTIONS: usize = 9;
const STREAMS: usize = 100;
/// Of each stream.
const WATCHES: usize = 100;
/// With and without in turn, so that a disk that slows down slows both.
const TURNS: u32 = 2;

pub async fn measure(round: &mut Round) -> anyhow::Result<()> {
    let part = (round.part / TURNS).max(Duration::from_secs(1));
    let (mut without, mut with) = (0.0, 0.0);
    for _ in 0..TURNS {
        without += Puts::new(64, 256).run(round.endpoints(), part).await?.per_second;
        let range = |i: usize| (format!("idle/{i:06}"), String::new());
        let mut watchers = watch(round.endpoints(), (CONNECTIONS, STREAMS, WATCHES), range, |_| {}).await?;
        with += Puts::new(64, 256).run(round.endpoints(), part).await?.per_second;
        still_watching(&mut watchers)?;
    }
    round.add("flat_watchers", without / with);
    Ok(())
}
