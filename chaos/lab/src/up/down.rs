//! Removes all that `./up` has made, also after a crash of any part of it.
//!
//! What is ours is told from the state file, and without one from processes
//! that work in our directory, control groups and routes with our mark. Rules
//! and devices are in the nodes' namespaces and gone with them. Packages stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use crate::cluster::State;
use crate::error::{LabError, Result};
use crate::node::{Blackholes, cgroup_prefix, remove_cgroups};
use crate::process::ProcessId;

/// The supervisor stops replicas and nodes one after the other.
const SUPERVISOR_GRACE: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(5);
/// Nodes that there can be at most.
const MAX_NODES: u8 = 8;

#[derive(Clone, Debug, clap::Args)]
pub struct DownArgs {
    /// Where everything is kept
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub fn down(args: &DownArgs) -> ExitCode {
    let dir = args.dir.clone().unwrap_or_else(super::default_dir);
    match remove(&dir) {
        Ok(Removed { packages, .. }) => {
            if !packages.is_empty() {
                println!("packages that were installed stay: {}", packages.join(", "));
            }
            println!("down");
            ExitCode::SUCCESS
        }
        Err(e) => {
            println!("failed step={} reason={}", e.step, e.reason.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

/// What was there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub processes: usize,
    pub cgroups: usize,
    pub routes: usize,
    pub packages: Vec<String>,
}

/// Removes everything that belongs to `dir`, and `dir`.
pub fn remove(dir: &Path) -> Result<Removed> {
    let mut removed = Removed::default();
    let dir = match dir.canonicalize() {
        Ok(dir) => dir,
        // Nothing is left but perhaps a route of a lab whose folder was deleted.
        Err(_) => {
            removed.routes = remove_routes(&Blackholes::left().unwrap_or_default())?;
            return Ok(removed);
        }
    };
    // A state that cannot be read must not keep the rest from being removed.
    let known = State::read(&dir).ok().flatten();
    let is_ours =
        known.is_some() || dir.file_name().is_some_and(|n| n == ".triarch") || dir.join("state.json").exists();
    if !is_ours {
        return Err(LabError::new("down", format!("{} is not a directory of ./up", dir.display())));
    }
    let state = known.unwrap_or_default();
    if let Some(supervisor) = state.supervisor.filter(ProcessId::alive) {
        supervisor.end(SUPERVISOR_GRACE);
        removed.processes += 1;
    }
    let recorded = state.nodes.iter().map(|n| n.process).chain(state.hub).chain(state.hollow);
    let recorded = recorded.chain(state.replicas.iter().filter_map(|r| r.process));
    for process in recorded.filter(ProcessId::alive).collect::<Vec<_>>() {
        process.end(GRACE);
        removed.processes += 1;
    }
    for process in at_work_in(&dir) {
        process.end(GRACE);
        removed.processes += 1;
    }
    for node in 1..=MAX_NODES {
        removed.cgroups += remove_cgroups(&cgroup_prefix(&dir.join("nodes").join(format!("n{node}"))));
    }
    unmount_below(&dir);
    let routes = if state.routes.is_empty() { Blackholes::left().unwrap_or_default() } else { state.routes };
    removed.routes = remove_routes(&routes)?;
    removed.packages = state.installed;
    fs::remove_dir_all(&dir).map_err(|e| LabError::new("down", format!("{}: {e}", dir.display())))?;
    Ok(removed)
}

fn remove_routes(routes: &[String]) -> Result<usize> {
    if routes.is_empty() { Ok(0) } else { Blackholes::remove(routes) }
}

/// Our programs whose command line names something in `dir`.
fn at_work_in(dir: &Path) -> Vec<ProcessId> {
    let mark = format!("{}/", dir.display());
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let program = line.split('\0').next().and_then(|p| p.rsplit('/').next()).unwrap_or_default();
        let ours = matches!(program, "triarch" | "triarch-node" | "triarch-lab" | "unshare" | "nsenter" | "containerd");
        if ours && line.contains(&mark) && u32::try_from(pid) != Ok(own) {
            found.extend(ProcessId::of(pid));
        }
    }
    found
}

/// Mounts that a runtime left in the namespace of the machine.
fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below: Vec<&str> =
        mounts.lines().filter_map(|l| l.split(' ').nth(1)).filter(|m| Path::new(m).starts_with(dir)).collect();
    for at in below.iter().rev() {
        // One that stays is reported when the folder cannot be removed.
        let _ = umount2(Path::new(at), MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;
    use std::process::Command;

    #[test]
    fn a_directory_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "").unwrap();
        assert!(remove(dir.path()).unwrap_err().reason.contains("not a directory of ./up"));
        assert!(dir.path().join("precious").exists());
    }

    #[test]
    fn processes_of_a_crashed_run_end_and_the_directory_goes_and_doing_it_again_is_fine() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("lab");
        fs::create_dir_all(dir.join("nodes/n1")).unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut sleeper = Process::spawn("sleeper", command, &dir.join("log"), None).unwrap();
        let state = State { hollow: Some(sleeper.id()), installed: vec!["runc".into()], ..State::default() };
        state.write(&dir, None).unwrap();
        // Reaped meanwhile, as the system's first process would do.
        let reaper = std::thread::spawn(move || crate::process::wait_for(GRACE * 2, || !sleeper.is_running()));
        let removed = remove(&dir).unwrap();
        assert_eq!((removed.processes, removed.packages), (1, vec!["runc".to_owned()]));
        assert!(reaper.join().unwrap());
        assert!(!dir.exists());
        remove(&dir).unwrap();
    }
}
