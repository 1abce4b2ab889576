//! Events a second that 108 watchers of one prefix get together, while 16
//! clients write as fast as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::client::{Puts, still_watching, watch};
use crate::round::Round;

const WATCHERS: usize = 108;
const CONNECTIONS: usize = 9;
const WRITERS: usize = 16;
const VALUE_BYTES: usize = 256;

pub async fn measure(round: &mut Round) -> anyhow::Result<()> {
    let (seen, answers) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let range = |_| ("bench/".to_owned(), "bench0".to_owned());
    let count = {
        let (seen, answers) = (seen.clone(), answers.clone());
        move |answer: &triarch_etcd::etcdserverpb::WatchResponse| {
            seen.fetch_add(answer.events.len() as u64, Ordering::Relaxed);
            answers.fetch_add(1, Ordering::Relaxed);
        }
    };
    let mut watchers = watch(round.endpoints(), (CONNECTIONS, WATCHERS, 1), range, count).await?;
    let endpoints = round.endpoints().to_vec();
    let time = round.part;
    let (before, began) = (round.cpu()?, Instant::now());
    let load = tokio::spawn(async move { Puts::new(WRITERS, VALUE_BYTES).run(&endpoints, time).await });
    tokio::time::sleep_until((began + time).into()).await;
    let events = seen.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    still_watching(&mut watchers)?;
    let load = load.await??;
    round.add_cpu("watch_event", before, seen.load(Ordering::Relaxed))?;
    round.add("watch_events", events);
    round.add("watch_events_puts", load.per_second);
    round.add("watch_events_an_answer", seen.load(Ordering::Relaxed) as f64 / answers.load(Ordering::Relaxed) as f64);
    Ok(())
}
