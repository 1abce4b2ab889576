//! A million keys of 1 KiB: what they cost in memory, how long a restart with
//! them takes, and whether a put costs more than with a thousand.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use triarch_etcd::etcdserverpb::kv_client::KvClient;
use triarch_etcd::etcdserverpb::request_op::Request;
use triarch_etcd::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest};
use triarch_lab::etcd::dial;

use crate::client::{connections, load, value};
use crate::round::Round;

const VALUE_BYTES: usize = 1024;
/// Keys that one transaction loads.
const BATCH: u64 = 100;
/// Clients that load.
const LOADERS: u64 = 8;
/// Clients that put, before and after.
const CLIENTS: usize = 64;
/// Keys there are before.
const FEW: u64 = 1_000;
/// Between the load and the look at memory.
const SETTLE: Duration = Duration::from_secs(5);
/// Restarts that are measured.
const RESTARTS: usize = 5;
/// A cluster that does not come back by then.
const BACK: Duration = Duration::from_secs(120);
/// A read that a member took too early to answer is asked again after this.
const TRY: Duration = Duration::from_millis(500);
/// Between two tries to read.
const POLL: Duration = Duration::from_millis(5);

fn key(n: u64) -> String {
    format!("loaded/{n:08}")
}

pub async fn measure(round: &mut Round) -> anyhow::Result<()> {
    fill(round.endpoints(), 0..FEW).await?;
    let few = puts(round, FEW).await?;
    let began = Instant::now();
    fill(round.endpoints(), FEW..round.keys).await?;
    round.add("load_s", began.elapsed().as_secs_f64());
    tokio::time::sleep(SETTLE).await;
    round.add("pss_mib", round.pss()? as f64 / f64::from(1 << 20));
    let many = puts(round, round.keys).await?;
    round.add("flat_keys", few / many);
    for _ in 0..RESTARTS {
        let time = restart(round).await?;
        round.add("restart_ms", time.as_secs_f64() * 1e3);
    }
    Ok(())
}

/// Puts a second over keys that are there, spread over all of them.
async fn puts(round: &Round, keys: u64) -> anyhow::Result<f64> {
    let load = load(round.endpoints(), CLIENTS, round.part, move |mut kv, client, n| async move {
        // A step that is prime to the number of keys goes through all of them.
        let at = (client as u64 * 7_919 + n * 104_729) % keys;
        let value = value(n | (client as u64 + 1) << 48, VALUE_BYTES).into();
        kv.put(PutRequest { key: key(at).into(), value, ..PutRequest::default() }).await.map(drop)
    });
    Ok(load.await?.per_second)
}

/// Loads these keys in transactions.
async fn fill(endpoints: &[String], keys: std::ops::Range<u64>) -> anyhow::Result<()> {
    let channels = connections(endpoints, endpoints.len()).await?;
    let mut tasks = JoinSet::new();
    for loader in 0..LOADERS {
        let (mut kv, keys) = (KvClient::new(channels[loader as usize % channels.len()].clone()), keys.clone());
        tasks.spawn(async move {
            for from in (keys.start..keys.end).step_by(BATCH as usize).skip(loader as usize).step_by(LOADERS as usize) {
                let put = |n| {
                    let put =
                        PutRequest { key: key(n).into(), value: value(n, VALUE_BYTES).into(), ..Default::default() };
                    RequestOp { request: Some(Request::RequestPut(put)) }
                };
                let success = (from..(from + BATCH).min(keys.end)).map(put).collect();
                kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.context("loading")?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// SIGKILL of all, and the time until all of them read linearizably again.
async fn restart(round: &mut Round) -> anyhow::Result<Duration> {
    let endpoints = round.endpoints().to_vec();
    for i in 0..endpoints.len() {
        tokio::task::block_in_place(|| round.peers.kill(i))?;
    }
    let began = Instant::now();
    for i in 0..endpoints.len() {
        round.peers.restart(i)?;
    }
    let last = key(round.keys - 1);
    for url in &endpoints {
        loop {
            let range = RangeRequest { key: last.clone().into(), ..RangeRequest::default() };
            let read = async { anyhow::Ok(KvClient::new(dial(url, TRY).await?).range(range).await?.into_inner()) };
            match tokio::time::timeout(TRY, read).await {
                Ok(Ok(answer)) if answer.kvs.len() == 1 => break,
                Ok(Ok(_)) => bail!("{url} answers without {last}"),
                other if began.elapsed() >= BACK => bail!("{url} does not come back: {other:?}"),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }
    Ok(began.elapsed())
}
