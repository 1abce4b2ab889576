//! What the kernel allows, tried in a child: namespaces, control groups, an
//! overlay mount, network devices, settings, nftables.
//!
//! The child prints a line `yes WHAT` or `no WHAT: WHY` for each; what it makes
//! is gone with its namespaces.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};

use super::{Answer, Check};

pub(super) const OVERLAY: &str = "overlay mounts";

/// A rule set with all that the node agent uses.
const SAMPLE_RULES: &str = "\
table ip triarch-probe {
  map ep { type mark . mark : ipv4_addr . inet_service; }
  chain n2 { ct mark set numgen random mod 2 meta l4proto { tcp, udp, sctp } dnat ip to meta mark & 0x7fffffff . ct mark map @ep; }
  chain pre { type nat hook prerouting priority -100; fib daddr type local jump n2; }
  chain post { type nat hook postrouting priority 100; meta mark & 0x80000000 == 0x80000000 masquerade; }
}
";

#[derive(Clone, Debug, clap::Args)]
pub struct ProbeArgs {
    /// Where containers would be kept
    #[arg(long)]
    dir: PathBuf,
}

type Try = Result<(), String>;

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// The child: asks, and prints the answers. Stops at the first No that the
/// rest depends on.
pub fn run(args: &ProbeArgs) {
    let say = |what: &str, tried: Try| {
        match &tried {
            Ok(()) => println!("yes {what}"),
            Err(why) => println!("no {what}: {}", why.replace('\n', " ")),
        }
        tried.is_ok()
    };
    if !say("own namespaces", namespaces()) {
        return;
    }
    say("control groups", control_groups());
    say(OVERLAY, overlay(&args.dir));
    if has("ip") {
        say("network devices", devices());
    }
    say("kernel settings", settings());
    if has("nft") {
        say("nftables", nftables());
    }
}

fn has(program: &str) -> bool {
    super::programs::find(program).is_some()
}

fn namespaces() -> Try {
    let all = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    pid_namespace()?;
    unshare(all).map_err(text)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(|e| format!("private mounts: {e}"))
}

/// Tried in a child: whoever unshares it can start only one process more.
fn pid_namespace() -> Try {
    // SAFETY: this process has one thread, and the child only asks and exits.
    match unsafe { nix::unistd::fork() }.map_err(text)? {
        nix::unistd::ForkResult::Child => {
            let code = unshare(CloneFlags::CLONE_NEWPID).map_or_else(|e| e as i32, |()| 0);
            // SAFETY: ends this process without running anything of the parent's.
            unsafe { libc::_exit(code) }
        }
        nix::unistd::ForkResult::Parent { child } => match waitpid(child, None).map_err(text)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, code) => Err(Errno::from_raw(code).to_string()),
            other => Err(format!("{other:?}")),
        },
    }
}

/// Hierarchies that a container's limits need.
const CONTROLLERS: &[&str] = &["cpu", "memory", "pids", "devices"];

fn control_groups() -> Try {
    let name = format!("triarch-probe-{}", std::process::id());
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers");
    let tops: Vec<PathBuf> = if v2.exists() {
        let there = fs::read_to_string(v2).map_err(text)?;
        for controller in ["cpu", "memory", "pids"] {
            if !there.split_whitespace().any(|c| c == controller) {
                return Err(format!("controller {controller} is not there"));
            }
        }
        vec!["/sys/fs/cgroup".into()]
    } else {
        CONTROLLERS.iter().map(|c| Path::new("/sys/fs/cgroup").join(c)).collect()
    };
    for top in tops {
        let at = top.join(&name);
        fs::create_dir(&at).map_err(|e| format!("{}: {e}", at.display()))?;
        fs::remove_dir(&at).map_err(|e| format!("{}: {e}", at.display()))?;
    }
    Ok(())
}

fn overlay(dir: &Path) -> Try {
    let top = dir.join(format!("probe-{}", std::process::id()));
    let tried = || -> Try {
        for part in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(top.join(part)).map_err(text)?;
        }
        let at = |part: &str| top.join(part).display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
        let merged = top.join("merged");
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str())).map_err(text)?;
        umount2(&merged, MntFlags::MNT_DETACH).map_err(text)
    };
    let done = tried();
    let _ = fs::remove_dir_all(&top);
    done
}

fn devices() -> Try {
    // In the namespace of this child: they go with it.
    ip(&["link", "add", "veth-probe", "type", "veth", "peer", "name", "veth-peer"])?;
    ip(&["link", "add", "br-probe", "type", "bridge"])
}

fn ip(arguments: &[&str]) -> Try {
    let out = Command::new("ip").args(arguments).output().map_err(text)?;
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()) }
}

fn settings() -> Try {
    let path = "/proc/sys/net/ipv4/ip_forward";
    fs::write(path, "1").map_err(|e| format!("{path}: {e}"))
}

fn nftables() -> Try {
    let mut child =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(text)?;
    let mut stdin = child.stdin.take().ok_or("no pipe")?;
    stdin.write_all(SAMPLE_RULES.as_bytes()).map_err(text)?;
    drop(stdin);
    let out = child.wait_with_output().map_err(text)?;
    let said = String::from_utf8_lossy(&out.stderr);
    if out.status.success() { Ok(()) } else { Err(said.lines().next().unwrap_or("nft failed").to_owned()) }
}

/// The child's answers. Overlay mounts can be done without.
pub(super) fn parse(out: &str, err: &str) -> Vec<Check> {
    let mut checks: Vec<Check> = out
        .lines()
        .filter_map(|line| {
            if let Some(what) = line.strip_prefix("yes ") {
                return Some(Check { what: what.to_owned(), answer: Answer::Yes });
            }
            let (what, why) = line.strip_prefix("no ")?.split_once(": ")?;
            let answer = if what == OVERLAY {
                Answer::Note(format!("refused ({why}): layers are copied instead"))
            } else {
                Answer::No(why.to_owned())
            };
            Some(Check { what: what.to_owned(), answer })
        })
        .collect();
    if checks.is_empty() {
        let why = format!("the probe said nothing: {}", err.trim());
        checks.push(Check { what: "own namespaces".into(), answer: Answer::No(why) });
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_overlay_is_no_obstacle_and_everything_else_is() {
        let checks = parse("yes own namespaces\nno overlay mounts: EINVAL: x\nno nftables: none\n", "");
        assert_eq!(checks[0].answer, Answer::Yes);
        assert!(matches!(&checks[1].answer, Answer::Note(n) if n.contains("EINVAL: x")));
        assert_eq!(checks[2].answer, Answer::No("none".into()));
    }

    #[test]
    fn a_probe_that_dies_is_a_no() {
        assert!(matches!(&parse("", "killed")[0].answer, Answer::No(why) if why.contains("killed")));
    }
}
