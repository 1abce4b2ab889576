//! The client: the same requests to either side.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use triarch_etcd::etcdserverpb::kv_client::KvClient;
use triarch_etcd::etcdserverpb::watch_client::WatchClient;
use triarch_etcd::etcdserverpb::watch_request::RequestUnion;
use triarch_etcd::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest};

use crate::Plan;

const CONNECTIONS: usize = 8;
const CLIENTS: usize = 64;
const VALUE_BYTES: usize = 256;
/// Keys that each client writes in turn.
const KEYS: u64 = 1_000;
/// Watchers of all keys, on the same number of connections as clients.
const WATCHERS: usize = 64;
/// Clients that write while events are counted.
const WATCH_WRITERS: usize = 16;
/// Load before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// A cluster that takes no put by then has not come up.
const UP: Duration = Duration::from_secs(30);
/// A request that takes longer ends the round.
const REQUEST: Duration = Duration::from_secs(10);
/// Longer latencies are counted as this, microseconds.
const LONGEST_US: u64 = 60_000_000;
/// A share of failed puts above this makes a round worthless.
const MAX_FAILED: f64 = 0.001;

/// What one round came to.
#[derive(Clone, Debug)]
pub struct Measured {
    pub puts_per_s: f64,
    pub put_p50_us: u64,
    pub put_p99_us: u64,
    pub serial_p50_us: f64,
    /// The same by member.
    pub serial_members_us: Vec<u64>,
    pub events_per_s: f64,
    pub watched_puts_per_s: f64,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "puts/s={:.0} p50={}us p99={}us serial_p50={:.0}us {:?} events/s={:.0} (at {:.0} puts/s)",
            self.puts_per_s,
            self.put_p50_us,
            self.put_p99_us,
            self.serial_p50_us,
            self.serial_members_us,
            self.events_per_s,
            self.watched_puts_per_s
        )
    }
}

/// One round.
pub async fn measure(endpoints: &[String], plan: Plan) -> anyhow::Result<Measured> {
    up(endpoints).await?;
    puts(endpoints, CLIENTS, WARM_UP).await?;
    let (puts_per_s, latency) = puts(endpoints, CLIENTS, plan.puts).await?;
    let serial_members_us = serial(endpoints, plan.serial).await?;
    let serial_p50_us = serial_members_us.iter().sum::<u64>() as f64 / serial_members_us.len().max(1) as f64;
    let (events_per_s, watched_puts_per_s) = watch(endpoints, plan.watch).await?;
    Ok(Measured {
        puts_per_s,
        put_p50_us: latency.value_at_quantile(0.5),
        put_p99_us: latency.value_at_quantile(0.99),
        serial_p50_us,
        serial_members_us,
        events_per_s,
        watched_puts_per_s,
    })
}

async fn dial(url: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true).timeout(REQUEST);
    // Room for what many watches of one connection are sent at once.
    let endpoint = endpoint.initial_stream_window_size(1 << 20).initial_connection_window_size(16 << 20);
    endpoint.connect().await.with_context(|| url.to_owned())
}

/// Connections spread over the members.
async fn connections(endpoints: &[String]) -> anyhow::Result<Vec<Channel>> {
    let mut all = Vec::new();
    for i in 0..CONNECTIONS {
        all.push(dial(&endpoints[i % endpoints.len()]).await?);
    }
    Ok(all)
}

fn request(client: usize, n: u64) -> PutRequest {
    let key = format!("bench/{client:03}/{:06}", n % KEYS);
    let mut value = vec![b'v'; VALUE_BYTES];
    // Never the value that is there.
    value[..16].copy_from_slice(format!("{n:016x}").as_bytes());
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

/// Waits until every member takes a put.
async fn up(endpoints: &[String]) -> anyhow::Result<()> {
    let end = Instant::now() + UP;
    for url in endpoints {
        loop {
            let put = async { anyhow::Ok(KvClient::new(dial(url).await?).put(request(0, 0)).await?) };
            match tokio::time::timeout(Duration::from_secs(2), put).await {
                Ok(Ok(_)) => break,
                Ok(Err(e)) if Instant::now() >= end => return Err(e.context(format!("{url} takes no put"))),
                Err(_) if Instant::now() >= end => bail!("{url} takes no put"),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
    Ok(())
}

/// As many puts as `clients` can make, each waiting for its answer: puts a
/// second, and their latency in microseconds.
async fn puts(endpoints: &[String], clients: usize, time: Duration) -> anyhow::Result<(f64, Histogram<u64>)> {
    let channels = connections(endpoints).await?;
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for client in 0..clients {
        let mut kv = KvClient::new(channels[client % CONNECTIONS].clone());
        tasks.spawn(async move {
            let mut latency = Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3)?;
            let (mut n, mut failed) = (0, 0u64);
            while began.elapsed() < time {
                let at = Instant::now();
                match kv.put(request(client, n)).await {
                    Ok(_) => latency.saturating_record(at.elapsed().as_micros() as u64),
                    Err(_) => failed += 1,
                }
                n += 1;
            }
            anyhow::Ok((latency, failed))
        });
    }
    let mut all = Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3)?;
    let mut failed = 0;
    while let Some(done) = tasks.join_next().await {
        let (latency, f) = done??;
        all.add(latency)?;
        failed += f;
    }
    if failed as f64 > all.len() as f64 * MAX_FAILED {
        bail!("{failed} puts failed and {} did not", all.len());
    }
    Ok((all.len() as f64 / began.elapsed().as_secs_f64(), all))
}

/// One client, one put after the other, the same time at each member: the
/// medians in microseconds by member (one of them leads).
async fn serial(endpoints: &[String], time: Duration) -> anyhow::Result<Vec<u64>> {
    let mut medians = Vec::new();
    for url in endpoints {
        let (url, time) = (url.clone(), time / endpoints.len() as u32);
        // Where the connection's task is, so that the time is the server's and not
        // that of two threads of the client waking each other.
        medians.push(tokio::spawn(serial_at(url, time)).await??);
    }
    Ok(medians)
}

async fn serial_at(url: String, time: Duration) -> anyhow::Result<u64> {
    let mut kv = KvClient::new(dial(&url).await?);
    let mut latency = Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3)?;
    let began = Instant::now();
    let mut n = 0;
    while began.elapsed() < time {
        let at = Instant::now();
        kv.put(request(0, n)).await.context("a put of one client alone")?;
        latency.saturating_record(at.elapsed().as_micros() as u64);
        n += 1;
    }
    Ok(latency.value_at_quantile(0.5))
}

/// Events that watchers of everything get while clients write: events a
/// second over all watchers, and the puts a second that made them.
async fn watch(endpoints: &[String], time: Duration) -> anyhow::Result<(f64, f64)> {
    let channels = connections(endpoints).await?;
    let seen = Arc::new(AtomicU64::new(0));
    let counting = Arc::new(AtomicBool::new(true));
    let mut watchers = JoinSet::new();
    for i in 0..WATCHERS {
        let mut client = WatchClient::new(channels[i % CONNECTIONS].clone());
        let create = WatchCreateRequest { key: "bench/".into(), range_end: "bench0".into(), ..Default::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The request stream stays open as long as the watch.
        let requests = tokio_stream::iter([create]).chain(futures::stream::pending());
        let mut stream = client.watch(requests).await.context("a watch")?.into_inner();
        let first = stream.message().await?.context("a watch that ends at once")?;
        if !first.created {
            bail!("a watch was answered by {first:?}");
        }
        let (seen, counting) = (seen.clone(), counting.clone());
        watchers.spawn(async move {
            while let Ok(Some(answer)) = stream.message().await {
                if answer.canceled {
                    bail!("a watch was cancelled: {}", answer.cancel_reason);
                }
                if counting.load(Ordering::Relaxed) {
                    seen.fetch_add(answer.events.len() as u64, Ordering::Relaxed);
                }
            }
            Ok(())
        });
    }
    let began = Instant::now();
    let load = tokio::spawn({
        let endpoints = endpoints.to_vec();
        async move { puts(&endpoints, WATCH_WRITERS, time).await }
    });
    tokio::time::sleep_until((began + time).into()).await;
    counting.store(false, Ordering::Relaxed);
    let events = seen.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    if let Some(ended) = watchers.try_join_next() {
        ended?.context("before the end")?;
        bail!("a watch ended before the load did");
    }
    watchers.abort_all();
    let (puts_per_s, _) = load.await??;
    Ok((events, puts_per_s))
}
