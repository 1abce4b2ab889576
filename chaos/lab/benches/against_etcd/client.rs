//! The client: the same requests to every system, on connections spread over
//! its members.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use triarch_etcd::etcdserverpb::kv_client::KvClient;
use triarch_etcd::etcdserverpb::watch_client::WatchClient;
use triarch_etcd::etcdserverpb::watch_request::RequestUnion;
use triarch_etcd::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use triarch_lab::etcd::dial;

/// Clients share these.
const CONNECTIONS: usize = 9;
/// Keys that each client writes in turn.
const KEYS: u64 = 1_000;
/// A cluster that takes no put by then has not come up.
const UP: Duration = Duration::from_secs(30);
/// A request that takes longer has failed.
const REQUEST: Duration = Duration::from_secs(10);
/// Longer latencies are counted as this, microseconds.
const LONGEST_US: u64 = 60_000_000;
/// A share of failed requests above this makes a part worthless.
const MAX_FAILED: f64 = 0.001;

/// Connections spread over the members.
pub async fn connections(endpoints: &[String], n: usize) -> anyhow::Result<Vec<Channel>> {
    let mut all = Vec::with_capacity(n);
    for i in 0..n {
        all.push(dial(&endpoints[i % endpoints.len()], REQUEST).await?);
    }
    Ok(all)
}

/// A value of `bytes` that is never the one that is there.
pub fn value(n: u64, bytes: usize) -> Vec<u8> {
    let mut value = vec![b'v'; bytes.max(16)];
    value[..16].copy_from_slice(format!("{n:016x}").as_bytes());
    value
}

/// Waits until every member takes a put.
pub async fn up(endpoints: &[String]) -> anyhow::Result<()> {
    let end = Instant::now() + UP;
    for url in endpoints {
        loop {
            let put = PutRequest { key: "up".into(), value: "up".into(), ..PutRequest::default() };
            let put = async { anyhow::Ok(KvClient::new(dial(url, REQUEST).await?).put(put).await?) };
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

/// What many clients came to.
pub struct Load {
    pub per_second: f64,
    /// Microseconds.
    pub latency: Histogram<u64>,
}

impl Load {
    pub fn done(&self) -> u64 {
        self.latency.len()
    }
}

pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LONGEST_US, 3)?)
}

/// As many requests as `clients` can make in `time`, each waiting for its
/// answer. `request` gets the client's number and how many it has made.
pub async fn load<F>(
    endpoints: &[String],
    clients: usize,
    time: Duration,
    request: impl Fn(KvClient<Channel>, usize, u64) -> F + Clone + Send + Sync + 'static,
) -> anyhow::Result<Load>
where
    F: Future<Output = Result<(), tonic::Status>> + Send + 'static,
{
    let channels = connections(endpoints, CONNECTIONS).await?;
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for client in 0..clients {
        let (kv, request) = (KvClient::new(channels[client % CONNECTIONS].clone()), request.clone());
        tasks.spawn(async move {
            let mut latency = histogram()?;
            let (mut n, mut failed) = (0, None);
            let mut failures = 0u64;
            while began.elapsed() < time {
                let at = Instant::now();
                match request(kv.clone(), client, n).await {
                    Ok(()) => latency.saturating_record(at.elapsed().as_micros() as u64),
                    Err(e) => {
                        failures += 1;
                        failed = Some(e);
                    }
                }
                n += 1;
            }
            anyhow::Ok((latency, failures, failed))
        });
    }
    let mut latency = histogram()?;
    let (mut failures, mut last) = (0, None);
    while let Some(done) = tasks.join_next().await {
        let (own, f, failed) = done??;
        latency.add(own)?;
        failures += f;
        last = failed.or(last);
    }
    if failures as f64 > latency.len() as f64 * MAX_FAILED {
        bail!("{failures} requests failed and {} did not: {last:?}", latency.len());
    }
    Ok(Load { per_second: latency.len() as f64 / began.elapsed().as_secs_f64(), latency })
}

/// Clients that put, each to keys of its own in turn.
#[derive(Clone, Copy, Debug)]
pub struct Puts {
    clients: usize,
    bytes: usize,
}

impl Puts {
    pub fn new(clients: usize, bytes: usize) -> Puts {
        Puts { clients, bytes }
    }

    pub async fn run(self, endpoints: &[String], time: Duration) -> anyhow::Result<Load> {
        let bytes = self.bytes;
        load(endpoints, self.clients, time, move |mut kv, client, n| async move {
            let key = format!("bench/{client:03}/{:06}", n % KEYS);
            let put = PutRequest { key: key.into(), value: value(n, bytes).into(), ..PutRequest::default() };
            kv.put(put).await.map(drop)
        })
        .await
    }
}

/// `streams` of watches spread over `connections`, each with `watches` of what
/// `range` names by their number; every response goes to `seen`. They end with
/// the set.
pub async fn watch(
    endpoints: &[String],
    (connected, streams, watches): (usize, usize, usize),
    range: impl Fn(usize) -> (String, String),
    seen: impl Fn(&WatchResponse) + Clone + Send + 'static,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let channels = connections_without_limit(endpoints, connected).await?;
    let mut tasks = JoinSet::new();
    for stream in 0..streams {
        let mut client = WatchClient::new(channels[stream % connected].clone());
        let creates: Vec<WatchRequest> = (0..watches)
            .map(|i| {
                let (key, end) = range(stream * watches + i);
                let create = WatchCreateRequest { key: key.into(), range_end: end.into(), ..Default::default() };
                WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
            })
            .collect();
        // The request stream stays open as long as the watch.
        let requests = futures::StreamExt::chain(tokio_stream::iter(creates), futures::stream::pending());
        let mut answers = client.watch(requests).await.context("a watch")?.into_inner();
        let mut created = 0;
        while created < watches {
            let answer = answers.message().await?.context("a watch that ends at once")?;
            if answer.canceled {
                bail!("a watch was refused: {}", answer.cancel_reason);
            }
            created += usize::from(answer.created);
        }
        let seen = seen.clone();
        tasks.spawn(async move {
            while let Some(answer) = answers.message().await? {
                if answer.canceled {
                    bail!("a watch was cancelled: {}", answer.cancel_reason);
                }
                seen(&answer);
            }
            bail!("a watch ended");
        });
    }
    Ok(tasks)
}

/// A watch is a request that does not end.
async fn connections_without_limit(endpoints: &[String], n: usize) -> anyhow::Result<Vec<Channel>> {
    let mut all = Vec::with_capacity(n);
    for i in 0..n {
        all.push(triarch_lab::etcd::dial_lazy(&endpoints[i % endpoints.len()], None)?);
    }
    Ok(all)
}

/// An error if one of the watchers has ended.
pub fn still_watching(watchers: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    match watchers.try_join_next() {
        Some(ended) => ended?.context("before the load did"),
        None => Ok(()),
    }
}
