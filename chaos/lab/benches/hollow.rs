//! A thousand simulated nodes with ten thousand pods: how fast pods come to
//! run, and how long a GET takes meanwhile.
//!
//! The last line is `nodes=1000 pods=10000 pods_per_s=… get_p99_ms=…`.
//! `TRIARCH_HOLLOW_NODES` and `TRIARCH_HOLLOW_PODS` make it smaller.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use triarch_lab::{KubeClient, Lab, LabError, LabOptions, Nodes, Options, Progress, Result};

/// Pods of one Deployment.
const PODS_EACH: usize = 500;
/// Clients that GET while pods come to run.
const READERS: usize = 8;
/// Between two GETs of one reader.
const PAUSE: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    match runtime.block_on(measure()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            println!("hollow: {e}");
            ExitCode::FAILURE
        }
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

async fn measure() -> Result<String> {
    let (nodes, pods) = (number("TRIARCH_HOLLOW_NODES", 1000), number("TRIARCH_HOLLOW_PODS", 10_000));
    let dir = tempfile::Builder::new().prefix("triarch-hollow-").tempdir().expect("a folder");
    let options = LabOptions { cluster: Options::release(dir.path()), nodes: Nodes::Hollow(nodes), sample: false };
    let began = Instant::now();
    let lab = Lab::start(options, &Progress::quiet()).await?;
    println!("{nodes} nodes are ready after {:.1} s", began.elapsed().as_secs_f64());
    let client = lab.client()?;
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..READERS).map(|_| tokio::spawn(read(client.clone(), stop.clone()))).collect();
    let version = client.get("/api/v1/pods?limit=1").await?["metadata"]["resourceVersion"].clone();
    let counting = tokio::spawn(count_running(client.clone(), version.as_str().unwrap_or("0").to_owned(), pods));
    let began = Instant::now();
    for first in (0..pods).step_by(PODS_EACH) {
        let name = format!("load-{}", first / PODS_EACH);
        client
            .create("/apis/apps/v1/namespaces/default/deployments", &deployment(&name, PODS_EACH.min(pods - first)))
            .await?;
    }
    let counted = counting.await.map_err(|e| LabError::new("hollow", e))?;
    let took = began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let mut latency = histogram();
    for reader in readers {
        latency.add(reader.await.map_err(|e| LabError::new("hollow", e))??).map_err(|e| LabError::new("hollow", e))?;
    }
    counted?;
    println!(
        "{pods} pods run after {took:.1} s; {} GETs, p50 {:.1} ms",
        latency.len(),
        latency.value_at_quantile(0.5) as f64 / 1000.0
    );
    lab.stop();
    let p99 = latency.value_at_quantile(0.99) as f64 / 1000.0;
    Ok(format!("nodes={nodes} pods={pods} pods_per_s={:.0} get_p99_ms={p99:.1}", pods as f64 / took))
}

fn deployment(name: &str, replicas: usize) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "hollow:1", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}]},
            },
        },
    })
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).expect("bounds that are valid")
}

/// GETs one object again and again; latencies in microseconds.
async fn read(client: KubeClient, stop: Arc<AtomicBool>) -> Result<Histogram<u64>> {
    let mut latency = histogram();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        client.get("/api/v1/namespaces/kube-system").await?;
        latency.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        tokio::time::sleep(PAUSE).await;
    }
    Ok(latency)
}

/// Returns when that many pods have been seen to run.
async fn count_running(client: KubeClient, mut version: String, wanted: usize) -> Result<()> {
    let end = tokio::time::Instant::now() + TIMEOUT;
    let mut running = std::collections::BTreeSet::new();
    let late = |n: usize| LabError::new("hollow", format!("{n} of {wanted} pods run after {TIMEOUT:?}"));
    while running.len() < wanted {
        let mut watch = client.watch(&format!("/api/v1/pods?resourceVersion={version}")).await?;
        while let Some(event) = tokio::time::timeout_at(end, watch.next()).await.map_err(|_| late(running.len()))?? {
            let pod = &event["object"];
            if event["type"] == "ERROR" {
                return Err(LabError::new("hollow", format!("the watch ended: {}", pod["message"])));
            }
            if let Some(seen) = pod["metadata"]["resourceVersion"].as_str() {
                seen.clone_into(&mut version);
            }
            if pod["status"]["phase"] == "Running" {
                running.insert(pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
            }
            if running.len() >= wanted {
                break;
            }
        }
    }
    Ok(())
}
