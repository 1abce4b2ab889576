//! How long after a put was sent the slowest of a thousand watchers of its
//! prefix have it: the 99th percentile over all deliveries, at a slow pace of
//! puts. Once with a stream for each watcher, as a thousand small programs
//! have it, and once as one program of many watches: etcd's own client (Go)
//! puts all watches of a client into one stream.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::bail;
use triarch_etcd::etcdserverpb::kv_client::KvClient;
use triarch_etcd::etcdserverpb::{PutRequest, WatchResponse};

use crate::client::{connections, histogram, still_watching, value, watch};
use crate::round::Round;

const WATCHERS: usize = 1_000;
const CONNECTIONS: usize = 25;
/// Between two puts: far less than any system can do.
const PACE: Duration = Duration::from_millis(50);
const VALUE_BYTES: usize = 256;
/// Events that are on their way have come by then.
const DRAIN: Duration = Duration::from_secs(10);

pub async fn apart(round: &mut Round) -> anyhow::Result<()> {
    deliver(round, WATCHERS, "watch").await
}

pub async fn shared(round: &mut Round) -> anyhow::Result<()> {
    deliver(round, CONNECTIONS, "shared_watch").await
}

async fn deliver(round: &mut Round, streams: usize, name: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    let latency = Arc::new(Mutex::new(histogram()?));
    let taken = {
        let latency = latency.clone();
        move |answer: &WatchResponse| {
            let now = began.elapsed().as_micros() as u64;
            let mut latency = latency.lock().expect("no holder panics");
            for kv in answer.events.iter().filter_map(|e| e.kv.as_ref()) {
                // The value begins with the microsecond at which it was sent.
                let sent = kv.value.get(..16).and_then(|t| std::str::from_utf8(t).ok());
                if let Some(sent) = sent.and_then(|t| u64::from_str_radix(t, 16).ok()) {
                    latency.saturating_record(now.saturating_sub(sent));
                }
            }
        }
    };
    let range = |_| ("deliver/".to_owned(), "deliver0".to_owned());
    let mut watchers = watch(round.endpoints(), (CONNECTIONS, streams, WATCHERS / streams), range, taken).await?;
    let mut clients: Vec<_> =
        connections(round.endpoints(), round.endpoints().len()).await?.into_iter().map(KvClient::new).collect();
    let before = round.cpu()?;
    let end = Instant::now() + round.part;
    let mut puts = 0;
    while Instant::now() < end {
        tokio::time::sleep(PACE).await;
        let members = clients.len();
        let sent = began.elapsed().as_micros() as u64;
        let value = value(sent, VALUE_BYTES).into();
        let put = PutRequest { key: format!("deliver/{:03}", puts % 100).into(), value, ..PutRequest::default() };
        clients[puts % members].put(put).await?;
        puts += 1;
    }
    let (wanted, limit) = ((puts * WATCHERS) as u64, Instant::now() + DRAIN);
    while latency.lock().expect("no holder panics").len() < wanted {
        still_watching(&mut watchers)?;
        if Instant::now() >= limit {
            bail!("{} of {wanted} events after {DRAIN:?}", latency.lock().expect("no holder panics").len());
        }
        tokio::time::sleep(PACE).await;
    }
    let latency = latency.lock().expect("no holder panics");
    let quantile = |q| latency.value_at_quantile(q) as f64;
    let (p50, p99) = (quantile(0.5), quantile(0.99));
    drop(latency);
    round.add_cpu(&format!("{name}_delivery"), before, wanted)?;
    round.add(format!("{name}_p50_us"), p50);
    round.add(format!("{name}_p99_us"), p99);
    Ok(())
}
