//! The first process of a namespace: it prepares the namespace, then reaps
//! what is given to it until it is told to end.
//!
//! Single-threaded and on the kernel's calls alone. Invariant: it is the last
//! to go, and nothing that ran under it is left.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{self, SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Context, LabError, Result};

/// Those that do not end by themselves are killed after this.
const GRACE: Duration = Duration::from_secs(2);
/// Places that belong to one containerd, or one CNI, alone.
const OWN: &[&str] = &["/run/containerd", "/run/netns", "/var/lib/cni"];

/// What to prepare.
#[derive(Clone, Debug, clap::Args)]
pub struct InitArgs {
    /// Host name to take; without one only the network is prepared
    #[arg(long)]
    name: Option<String>,
    /// File to write when the namespace is prepared
    #[arg(long)]
    ready: std::path::PathBuf,
}

/// Prepares and stays until SIGTERM.
pub fn run(args: &InitArgs) -> Result<()> {
    // Blocked before anything is started: none can be missed.
    let mut signals = SigSet::empty();
    for s in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(s);
    }
    signals.thread_block().step("namespace", "block signals")?;
    if let Some(name) = &args.name {
        prepare_node(name)?;
    }
    forward_packets()?;
    let mut up = std::process::Command::new("ip");
    crate::process::run("network", up.args(["link", "set", "lo", "up"]))?;
    fs::write(&args.ready, "").step("namespace", args.ready.display())?;
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(LabError::new("namespace", format!("wait for signals: {e}"))),
        }
    }
    // Only in a pid namespace of our own does "all" mean ours.
    if std::process::id() == 1 {
        end_all();
    }
    Ok(())
}

fn prepare_node(name: &str) -> Result<()> {
    fs::write("/proc/sys/kernel/hostname", name).step("namespace", "set the host name")?;
    for path in OWN {
        fs::create_dir_all(path).step("namespace", path)?;
        let none: Option<&str> = None;
        mount(Some("triarch"), Path::new(path), Some("tmpfs"), MsFlags::empty(), none)
            .step("namespace", format!("tmpfs on {path}"))?;
    }
    Ok(())
}

fn forward_packets() -> Result<()> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    fs::write(path, "1").step("network", path)
}

fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

fn end_all() {
    let everybody = Pid::from_raw(-1);
    let _ = signal::kill(everybody, Signal::SIGTERM);
    let end = Instant::now() + GRACE;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return,
            Ok(WaitStatus::StillAlive) if Instant::now() >= end => break,
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(10)),
            _ => {}
        }
    }
    let _ = signal::kill(everybody, Signal::SIGKILL);
    while waitpid(None, None).is_ok() {}
}
