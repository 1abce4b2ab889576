//! What a put costs, or another thing that is measured: the time of the CPU of
//! all three processes together, layer by layer; and for Triarch the stages of
//! one client's puts, by the replicas' own histograms.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use triarch_lab::etcd::System;
use triarch_lab::layers::Layers;

use crate::arguments::Arguments;
use crate::metrics::{METRICS, Metric, serial};
use crate::round::Round;

/// Load before samples are taken.
const MARGIN: Duration = Duration::from_millis(500);
/// Stages of a put, as replicas count them.
const STAGES: [(&str, &str); 3] = [
    ("one fdatasync of the log", "triarch_wal_fsync_duration_seconds"),
    ("proposal to answer", "triarch_store_commit_duration_seconds"),
    ("applying an entry", "triarch_store_apply_duration_seconds"),
];

/// Profiles one system, and prints its budget.
pub async fn run(system: &System, dir: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let at = dir.join(format!("{}-{}", system.name(), std::process::id()));
    let name = arguments.metrics.first().map_or("puts", String::as_str);
    let metric = METRICS.iter().find(|m| m.name == name).context("a metric")?;
    let mut round = Round::start(system, &at, arguments).await?;
    // One shape of load only.
    round.quick = true;
    let done = match budget(&mut round, metric, &at).await {
        Ok(budget) if name != "puts" => Ok(format!("{} {budget}", system.name())),
        Ok(budget) => stages(&mut round).await.map(|stages| format!("{} {budget}{stages}", system.name())),
        Err(e) => Err(e),
    };
    drop(round);
    std::fs::remove_dir_all(&at).with_context(|| at.display().to_string())?;
    println!("{}", done?);
    Ok(())
}

async fn budget(round: &mut Round, metric: &Metric, dir: &Path) -> anyhow::Result<String> {
    let (processes, part, dir) = (round.peers.ids(), round.part, dir.to_owned());
    let samples = tokio::spawn(async move {
        tokio::time::sleep(MARGIN).await;
        tokio::task::spawn_blocking(move || Layers::record(&processes, part.saturating_sub(MARGIN), &dir)).await
    });
    (metric.measure)(round).await?;
    let layers = samples.await???;
    let one = round.last(metric.cpu).context("a metric that does not tell its cost")?;
    let mut said = format!("{}: {one:.1} us of the CPU each\n", metric.name);
    let mut rows: Vec<(&str, u64)> = layers.samples.iter().map(|(layer, n)| (*layer, *n)).collect();
    rows.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    for (layer, n) in rows {
        let share = n as f64 / layers.total() as f64;
        said += &format!("  {layer:<28} {:>6.1} us {:>5.1} %\n", share * one, share * 100.0);
    }
    Ok(said)
}

/// Means over all replicas while one client writes.
async fn stages(round: &mut Round) -> anyhow::Result<String> {
    let before = counted(round).await?;
    serial::measure(round).await?;
    let after = counted(round).await?;
    let mut said = String::from("one client alone: ");
    said += &round.last("serial_p50_us").map_or_else(String::new, |p50| format!("p50 {p50:.0} us a put\n"));
    for ((name, _), (before, after)) in STAGES.iter().zip(before.into_iter().zip(after)) {
        let (time, n) = (after.0 - before.0, after.1 - before.1);
        if n > 0.0 {
            said += &format!("  {name:<28} {:>6.1} us ({n:.0} times)\n", time / n * 1e6);
        }
    }
    Ok(said)
}

/// Seconds and number of each stage until now.
async fn counted(round: &Round) -> anyhow::Result<[(f64, f64); STAGES.len()]> {
    let mut all = [(0.0, 0.0); STAGES.len()];
    for i in 0..round.endpoints().len() {
        let Some(text) = round.peers.metrics(i).await? else { continue };
        for ((_, name), (time, n)) in STAGES.iter().zip(&mut all) {
            let of = |suffix: &str| -> f64 {
                let name = format!("{name}_{suffix}");
                let lines = text.lines().filter(|l| l.strip_prefix(&name).is_some_and(|r| r.starts_with([' ', '{'])));
                lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
            };
            *time += of("sum");
            *n += of("count");
        }
    }
    Ok(all)
}
