//! What a put costs all three processes together, layer by layer: samples of
//! the CPU while 64 clients write.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use triarch_lab::etcd::System;
use triarch_lab::layers::Layers;

use crate::arguments::Arguments;
use crate::client::Puts;
use crate::round::Round;

/// Load before and after the samples are taken.
const MARGIN: Duration = Duration::from_millis(500);

/// Profiles one system, and prints its budget.
pub async fn run(system: &System, dir: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let at = dir.join(format!("{}-{}", system.name(), std::process::id()));
    let round = Round::start(system, &at, arguments).await?;
    let endpoints = round.endpoints().to_vec();
    let (part, processes, kept) = (arguments.part, round.peers.ids(), at.clone());
    let before = round.cpu()?;
    let load = tokio::spawn(async move { Puts::new(64, 256).run(&endpoints, part + 2 * MARGIN).await });
    tokio::time::sleep(MARGIN).await;
    let layers = tokio::task::spawn_blocking(move || Layers::record(&processes, part, &kept)).await?;
    let load = load.await??;
    let used = round.cpu()?.servers - before.servers;
    drop(round);
    std::fs::remove_dir_all(&at).with_context(|| at.display().to_string())?;
    let layers = layers?;
    let put = used.as_secs_f64() * 1e6 / load.done().max(1) as f64;
    println!("{}: {:.0} puts/s, {put:.1} us of the CPU a put", system.name(), load.per_second);
    let mut rows: Vec<(&str, u64)> = layers.samples.iter().map(|(layer, n)| (*layer, *n)).collect();
    rows.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    for (layer, n) in rows {
        let share = n as f64 / layers.total() as f64;
        println!("  {layer:<28} {:>6.1} us {:>5.1} %", share * put, share * 100.0);
    }
    Ok(())
}
