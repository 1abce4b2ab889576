//! `triarch status`: 0 healthy, 1 degraded, 3 nobody answers.

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde_json::json;
use triarch_env::ExitCode;
use triarch_rpc::admin::{StatusRequest, StatusResponse};

use super::connect::{self, Target};
use super::{Failure, Outcome, block_on};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  triarch status\n  triarch status -o json | jq -r .leader")]
pub struct Args {
    /// Output format
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub fn run(args: Args) -> Outcome {
    let r = block_on(async {
        let mut client = connect::admin(&args.target).await?;
        Ok::<_, Failure>(client.status(StatusRequest { forward: true }).await.map_err(connect::failure)?.into_inner())
    })??;
    match args.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&to_json(&r))?),
        Format::Text => print_text(&r),
    }
    Ok(if healthy(&r) { ExitCode::Ok } else { ExitCode::Failed })
}

/// A leader, and every replica and node well.
fn healthy(r: &StatusResponse) -> bool {
    !r.leader.is_empty() && r.replicas.iter().all(|x| x.ready && x.error.is_empty()) && r.nodes.iter().all(|n| n.ready)
}

fn to_json(r: &StatusResponse) -> serde_json::Value {
    let replicas: Vec<_> = r
        .replicas
        .iter()
        .map(|x| {
            json!({
                "name": x.name, "id": x.id, "pid": x.pid, "address": x.address, "role": x.role, "ready": x.ready,
                "applied_revision": x.applied_revision, "last_quorum_ack_ms": x.last_quorum_ack_ms,
                "disk_bytes": x.disk_bytes, "error": x.error, "feature_level": x.feature_level,
            })
        })
        .collect();
    let nodes: Vec<_> = r.nodes.iter().map(|n| json!({"name": n.name, "ready": n.ready, "pods": n.pods})).collect();
    json!({
        "leader": r.leader, "term": r.term, "cluster_id": r.cluster_id, "version": r.version,
        "feature_level": r.feature_level, "healthy": healthy(r), "replicas": replicas, "nodes": nodes,
    })
}

fn print_text(r: &StatusResponse) {
    let leader = if r.leader.is_empty() { "none" } else { &r.leader };
    println!("cluster {} leader={leader} term={} version={}", r.cluster_id, r.term, r.version);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["REPLICA", "ROLE", "READY", "PID", "ADDRESS", "REVISION", "QUORUM-ACK", "DISK"]);
    for x in &r.replicas {
        let ack = if x.last_quorum_ack_ms < 0 { "-".into() } else { format!("{}ms", x.last_quorum_ack_ms) };
        let ready = if x.error.is_empty() { x.ready.to_string() } else { x.error.clone() };
        let disk = format!("{:.1}MiB", x.disk_bytes as f64 / (1 << 20) as f64);
        table.add_row([
            x.name.clone(),
            x.role.clone(),
            ready,
            x.pid.to_string(),
            x.address.clone(),
            x.applied_revision.to_string(),
            ack,
            disk,
        ]);
    }
    println!("{table}");
    for n in &r.nodes {
        println!("node {} {} pods={}", n.name, if n.ready { "Ready" } else { "NotReady" }, n.pods);
    }
}
