//! `triarch-lab crowd`: ten thousand connections with a hundred watches each
//! against one of three real replicas, while somebody writes.
//!
//! The connections come from several addresses of the loopback network, since
//! one has ports for 28,000 only. The last line is `connections=… watches=…
//! refused=… failed=… pss_mib=… put_p50_us_before=… put_p50_us_during=…`.

mod watcher;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use futures::StreamExt;
use serde_json::json;

use crate::process::ProcessId;
use crate::{Binaries, Cluster, KubeClient, Kubeconfig, LabError, Options, Profile, Result};
use watcher::{Counts, Target, Watcher};

/// Connections from one address.
const OF_ONE_ADDRESS: usize = 5_000;
/// Connections that are being opened at a time.
const AT_ONCE: usize = 64;
/// One connection with all its watches takes no longer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
const PUTS: Duration = Duration::from_secs(5);
/// What the last connections leave to be done is over by then.
const SETTLE: Duration = Duration::from_secs(3);

/// Many watchers against a replica that somebody writes to
#[derive(Clone, Debug, Args)]
pub struct CrowdArgs {
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// On each connection
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    watches: u32,
}

/// Runs it; the line to print last.
pub fn run(args: &CrowdArgs) -> Result<String> {
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|e| LabError::new("crowd", e))?.block_on(measure(args))
}

fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(e) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        println!("the limit of open files stays as it is: {e}");
    }
}

async fn measure(args: &CrowdArgs) -> Result<String> {
    let dir = tempfile::Builder::new().prefix("triarch-crowd-").tempdir().map_err(|e| LabError::new("crowd", e))?;
    let binaries = Binaries::obtain(Profile::Release)?;
    let mut cluster = Cluster::start(Options { binaries: Some(binaries), ..Options::release(dir.path()) }).await?;
    cluster.wait_all_ready().await?;
    let writer = cluster.replica_client(0)?;
    let crowded = &cluster.replicas()[0];
    let (address, process) = (SocketAddr::from((Ipv4Addr::LOCALHOST, crowded.port())), crowded.id());
    let config = Kubeconfig::read(&cluster.kubeconfig_path())?;
    let tls = triarch_pki::tls::client(&config.ca, Some(&config.identity), &["h2"]);
    let target = Target {
        address,
        tls: Arc::new(tls.map_err(|e| LabError::new("crowd", e))?),
        path: "/api/v1/namespaces/default/configmaps?watch=true&fieldSelector=metadata.name%3Dnobody".into(),
        watches: args.watches,
    };
    let before = puts(&writer, "before").await?;
    println!("before pss_mib={:.0} put_p50_us={}", pss_mib(process), before.p50);

    let (counts, began) = (Arc::new(Counts::default()), Instant::now());
    let opening = futures::stream::iter(0..args.connections as usize).map(|n| {
        let (target, counts) = (target.clone(), counts.clone());
        async move {
            let source = SocketAddr::from((Ipv4Addr::new(127, 0, 1, 1 + (n / OF_ONE_ADDRESS) as u8), 0));
            let opened = tokio::time::timeout(OPEN_TIMEOUT, watcher::open(&target, source, &counts)).await;
            match opened {
                Ok(Ok(w)) => Some(w),
                other => {
                    if counts.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                        println!("connection {n}: {}", other.map_or("no answer in time".into(), |r| why(r.err())));
                    }
                    None
                }
            }
        }
    });
    let opened: Vec<Watcher> = opening.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
    println!("{} connections in {:.1} s", opened.len(), began.elapsed().as_secs_f64());
    let staying: Vec<_> = opened
        .into_iter()
        .map(|w| {
            let counts = counts.clone();
            tokio::spawn(async move { w.stay(&counts).await })
        })
        .collect();
    tokio::time::sleep(SETTLE).await;
    let during = puts(&writer, "during").await?;
    let pss = pss_mib(process);
    let broken = staying.iter().filter(|s| s.is_finished()).count();
    if broken > 0 {
        println!("{broken} connections broke");
    }
    println!("puts before: {} max_us={}; during: {} max_us={}", before.n, before.max, during.n, during.max);
    cluster.stop();
    let n = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
    Ok(format!(
        "connections={} watches={} refused={} failed={} pss_mib={pss:.0} put_p50_us_before={} put_p50_us_during={}",
        n(&counts.connected),
        n(&counts.watches),
        n(&counts.refused),
        n(&counts.failed) + broken as u64,
        before.p50,
        during.p50,
    ))
}

fn why(e: Option<std::io::Error>) -> String {
    e.map_or_else(String::new, |e| e.to_string())
}

/// Microseconds.
struct Latency {
    n: usize,
    p50: u128,
    max: u128,
}

/// Creates one object after the other for a while.
async fn puts(client: &KubeClient, prefix: &str) -> Result<Latency> {
    let (end, mut took) = (Instant::now() + PUTS, Vec::new());
    while Instant::now() < end {
        let name = format!("{prefix}-{}", took.len());
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}});
        let began = Instant::now();
        client.create("/api/v1/namespaces/default/configmaps", &object).await?;
        took.push(began.elapsed().as_micros());
    }
    took.sort_unstable();
    Ok(Latency { n: took.len(), p50: took[took.len() / 2], max: *took.last().expect("one at least") })
}

fn pss_mib(process: Option<ProcessId>) -> f64 {
    let path = process.map(|p| format!("/proc/{}/smaps_rollup", p.pid)).unwrap_or_default();
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
