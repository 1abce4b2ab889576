//! One client, one put after the other, the same time at each member (one of
//! them leads): the mean of the members' medians.

use std::time::{Duration, Instant};

use anyhow::Context;
use triarch_etcd::etcdserverpb::PutRequest;
use triarch_etcd::etcdserverpb::kv_client::KvClient;

use crate::client::{connections, histogram, value};
use crate::round::Round;

/// Of 256 bytes, as the smallest of the concurrent ones.
const VALUE_BYTES: usize = 256;

pub async fn measure(round: &mut Round) -> anyhow::Result<()> {
    let endpoints = round.endpoints().to_vec();
    let time = round.part / endpoints.len() as u32;
    let mut medians = 0.0;
    for url in &endpoints {
        // Where the connection's task is, so that the time is the server's and not
        // that of two threads of the client waking each other.
        medians += tokio::spawn(at(url.clone(), time)).await?? as f64;
    }
    round.add("serial_p50_us", medians / endpoints.len() as f64);
    Ok(())
}

async fn at(url: String, time: Duration) -> anyhow::Result<u64> {
    let mut kv = KvClient::new(connections(&[url], 1).await?.remove(0));
    let mut latency = histogram()?;
    let began = Instant::now();
    for n in 0.. {
        let at = Instant::now();
        let key = format!("serial/{:06}", n % 1000).into();
        kv.put(PutRequest { key, value: value(n, VALUE_BYTES).into(), ..PutRequest::default() })
            .await
            .context("a put of one client alone")?;
        latency.saturating_record(at.elapsed().as_micros() as u64);
        if began.elapsed() >= time {
            break;
        }
    }
    Ok(latency.value_at_quantile(0.5))
}
