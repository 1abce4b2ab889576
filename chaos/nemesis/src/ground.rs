//! Setting the stage: programs, folders, network, disks, clocks, replicas and
//! simulated nodes; and clearing all of it away again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use triarch_lab::cluster::Network;
use triarch_lab::disk::{self, Disk};
use triarch_lab::process::ProcessId;
use triarch_lab::{Binaries, Lab, LabOptions, Nodes, Profile, Progress, binaries, netns};

use crate::clocks::Clocks;
use crate::options::Place;
use crate::shared::Shared;
use crate::stage::Stage;

/// Replicas of every run.
pub const REPLICAS: usize = 3;
/// Simulated nodes, so that pods can be bound.
const NODES: usize = 3;
/// Size of a replica's disk, bytes (sparse).
const DISK_BYTES: u64 = 2 << 30;
/// Watch window, MiB: what the log must keep is then well below a disk's size.
const WINDOW_MIB: u64 = 64;
const NAMES: [&str; REPLICAS] = ["a", "b", "c"];

/// Finds or builds the programs. Before [`netns::isolate`]: a build may want
/// the network.
pub fn programs(place: &Place) -> anyhow::Result<Binaries> {
    let Some(program) = &place.triarch else {
        return Ok(Binaries::obtain(Profile::Release)?);
    };
    let server = program.canonicalize().with_context(|| program.display().to_string())?;
    let agent = server.with_file_name("triarch-node");
    if !agent.is_file() {
        bail!("there is no {}: it is needed beside {}", agent.display(), server.display());
    }
    Ok(Binaries { lab: server.with_file_name("triarch-lab"), agent, server })
}

/// In a run's folder while the run goes on, with the number of its process.
const RUNNING: &str = "running";

/// A run's folder; removed in the end unless it is to be kept.
#[derive(Debug)]
pub struct RunDir {
    pub path: PathBuf,
    pub keep: bool,
}

impl RunDir {
    pub fn make(place: &Place) -> anyhow::Result<RunDir> {
        let path = place.dir.clone().unwrap_or_else(|| {
            let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
            let target = target.unwrap_or_else(|| binaries::workspace_root().join("target"));
            remove_left(&target);
            target.join(format!("nemesis-{}", std::process::id()))
        });
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        std::fs::write(path.join(RUNNING), std::process::id().to_string())?;
        let path = path.canonicalize().with_context(|| path.display().to_string())?;
        Ok(RunDir { path, keep: place.keep })
    }
}

/// Removes folders of runs that crashed; all else of theirs went with them.
fn remove_left(target: &Path) {
    for entry in std::fs::read_dir(target).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|n| n.starts_with("nemesis-"));
        let pid = std::fs::read_to_string(entry.path().join(RUNNING)).ok().and_then(|t| t.parse().ok());
        if ours && pid.is_some_and(|pid| ProcessId::of(pid).is_none()) {
            // What cannot be removed now is tried again the next time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if self.keep {
            // One that is kept on purpose is nobody's to remove.
            let _ = std::fs::remove_file(self.path.join(RUNNING));
            eprintln!("data and logs are in {}", self.path.display());
        } else if let Err(e) = std::fs::remove_dir_all(&self.path) {
            eprintln!("{} stays behind: {e}", self.path.display());
        }
    }
}

/// What a stage has besides replicas.
#[derive(Clone, Debug, Default)]
pub struct Wants {
    pub network: bool,
    pub disks: bool,
    pub clocks: bool,
    /// Another build, to upgrade to; the same one's copy when it is none.
    pub upgrades: bool,
    pub upgrade_to: Option<PathBuf>,
}

/// Sets the stage in `dir`; returns when replicas and nodes are ready.
pub async fn set(dir: &Path, binaries: Binaries, wants: &Wants, shared: Arc<Shared>) -> anyhow::Result<Stage> {
    let mut cluster = triarch_lab::Options::release(dir).with("watchWindow", serde_json::json!({"mib": WINDOW_MIB}));
    let network = if wants.network { Some(Network::make(REPLICAS)?) } else { None };
    if wants.network || wants.disks {
        // Namespaces are root's: replicas and their files are, too.
        cluster.user = None;
    }
    let mut disks = Vec::new();
    if wants.disks {
        disk::remove_left();
        std::fs::create_dir_all(dir.join("disks"))?;
        for name in NAMES {
            let at = dir.join("disks").join(name);
            let data = dir.join("replicas").join(name);
            disks.push(Disk::make(&at.with_extension("img"), &at, &data, DISK_BYTES)?);
        }
    }
    let clocks = if wants.clocks { Some(Clocks::make(&dir.join("clocks"), REPLICAS)?) } else { None };
    cluster.own_env = clocks.iter().flat_map(|c| (0..REPLICAS).map(|i| c.env(i))).collect();
    let mut builds = Vec::new();
    if wants.upgrades {
        let other = dir.join("other-build");
        std::fs::create_dir_all(&other)?;
        let other = other.join("triarch");
        let from = wants.upgrade_to.as_ref().unwrap_or(&binaries.server);
        std::fs::copy(from, &other).with_context(|| from.display().to_string())?;
        builds = vec![binaries.server.clone(), other];
    }
    cluster.network = network.clone();
    cluster.binaries = Some(binaries);
    let options = LabOptions { cluster, nodes: Nodes::Hollow(NODES), sample: false };
    let lab = Lab::start(options, &Progress::quiet()).await?;
    Ok(Stage { lab, network, disks, clocks, builds, build: 0, away: Default::default(), shared })
}

/// Leaves the machine's network and mounts, when a run needs that.
pub fn isolate() -> anyhow::Result<()> {
    if let Some(why) = netns::obstacle() {
        bail!("{why}");
    }
    Ok(netns::isolate()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_runs_that_crashed_are_removed() {
        let target = tempfile::tempdir().unwrap();
        let make = |name: &str, running: Option<&str>| {
            let dir = target.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            running.into_iter().for_each(|pid| std::fs::write(dir.join(RUNNING), pid).unwrap());
            dir
        };
        let own = std::process::id().to_string();
        // No process has a number as large as that.
        let crashed = make("nemesis-1", Some("2147483000"));
        let others = [make("nemesis-2", Some(&own)), make("nemesis-3", None), make("debug", Some("2147483000"))];
        remove_left(target.path());
        assert!(!crashed.exists() && others.iter().all(|d| d.exists()));
    }
}
