//! Memory of three idle replicas and one agent, and the time from the start of
//! all three (of a cluster that is there) to the first write.
//!
//! Memory is PSS: what is shared counts once over all processes. The agent is a
//! node's, over containerd and with a pod; where containers cannot run it is one
//! whose containers are simulated, and the bench says so. The last line is
//! `pss_mib=… agent_pss_mib=… cold_start_ms=…`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;
use triarch_lab::preflight::Preflight;
use triarch_lab::process::ProcessId;
use triarch_lab::{Binaries, Cluster, KubeClient, Lab, LabOptions, Nodes, Options, Profile, Progress, Result};

/// What a new cluster does first is over by then.
const SETTLE: Duration = Duration::from_secs(15);
/// Cold starts; the median counts.
const STARTS: usize = 5;
const START_TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    match runtime.block_on(measure()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            println!("footprint: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<String> {
    let dir = tempfile::Builder::new().prefix("triarch-footprint-").tempdir().expect("a folder");
    let binaries = Binaries::obtain(Profile::Release)?;
    let options = Options { binaries: Some(binaries.clone()), ..Options::release(dir.path()) };
    let here = Preflight::ask(&binaries.lab, dir.path())?;
    let real = here.obstacle().is_none() && here.missing.is_empty();
    let nodes = match real {
        true => Nodes::Real { count: 1, snapshotter: here.snapshotter },
        false => Nodes::Hollow(1),
    };
    let mut lab = Lab::start(LabOptions { cluster: options.clone(), nodes, sample: real }, &Progress::quiet()).await?;
    tokio::time::sleep(SETTLE).await;
    let mut total = 0.0;
    for replica in lab.cluster().replicas() {
        let mib = replica.id().map_or(0.0, pss_mib);
        println!("replica {} pss_mib={mib:.1}", replica.name());
        total += mib;
    }
    let of_node = lab.nodes().first().and_then(|n| n.agent_id());
    let agent = of_node.or(lab.hollow_id()).map_or(0.0, pss_mib);
    let pods = lab.client()?.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await?;
    let pods = pods["items"].as_array().map_or(0, Vec::len);
    println!("agent {} pods={pods} pss_mib={agent:.1}", if real { "containerd" } else { "simulated" });
    lab.stop();
    let mut took = Vec::new();
    for i in 0..STARTS {
        let ms = cold_start(&options, i).await?;
        println!("start {i} cold_start_ms={ms}");
        took.push(ms);
    }
    took.sort_unstable();
    Ok(format!("pss_mib={total:.1} agent_pss_mib={agent:.1} cold_start_ms={}", took[STARTS / 2]))
}

fn pss_mib(process: ProcessId) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:"));
    let kib: f64 = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}

/// From the start of the processes to the first acknowledged write.
async fn cold_start(options: &Options, round: usize) -> Result<u128> {
    let mut cluster = Cluster::prepare(options.clone())?;
    let client = KubeClient::new(triarch_lab::Kubeconfig::read(&cluster.kubeconfig_path())?)?;
    let began = Instant::now();
    cluster.restart_all()?;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("start-{round}")}});
    while client.create("/api/v1/namespaces/default/configmaps", &object).await.is_err() {
        if began.elapsed() > START_TIMEOUT {
            return Err(cluster.explain());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = began.elapsed().as_millis();
    cluster.stop();
    Ok(took)
}
