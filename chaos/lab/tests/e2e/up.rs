//! `./up` as a stranger meets it: detached, in the foreground, after a crash.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use triarch_lab::{Binaries, Profile};

use crate::{Outcome, check, text};

fn lab(dir: &Path, arguments: &[&str]) -> Result<Command, String> {
    let binaries = Binaries::obtain(Profile::Dev).map_err(text)?;
    let mut command = Command::new(&binaries.lab);
    command.args(arguments).arg("--dir").arg(dir).stdin(Stdio::null());
    command.env("TRIARCH_BIN_DIR", binaries.lab.parent().ok_or("no folder")?);
    Ok(command)
}

/// What the kernel and the process table still hold of a lab in `dir`.
fn left(dir: &Path, before: &str) -> Result<Vec<String>, String> {
    let dir = dir.to_string_lossy();
    let mut out = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(text)?.flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&*dir) && entry.file_name().to_string_lossy() != std::process::id().to_string() {
            out.push(line);
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").map_err(text)?;
    out.extend(mounts.lines().filter(|l| l.contains(&*dir)).map(str::to_owned));
    let run = |program: &str, arguments: &[&str]| {
        let out = Command::new(program).args(arguments).output();
        out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).map_err(text)
    };
    // Another lab on this machine may have its own.
    out.extend(
        run("ip", &["route", "show", "type", "blackhole"])?.lines().filter(|l| !before.contains(*l)).map(str::to_owned),
    );
    for n in ["n1", "n2"] {
        let prefix = triarch_lab::node::cgroup_prefix(Path::new(&format!("{dir}/nodes/{n}")));
        out.extend(run("find", &["/sys/fs/cgroup", "-type", "d", "-name", &prefix])?.lines().map(str::to_owned));
    }
    Ok(out)
}

fn nothing_left(dir: &Path, before: &str) -> Outcome {
    let found = left(dir, before)?;
    check(found.is_empty(), || format!("left: {found:?}"))
}

pub fn whole_life() -> Outcome {
    let dir = tempfile::Builder::new().prefix("triarch-up-").tempdir().map_err(text)?;
    let dir = dir.path().join("lab");
    let routes = Command::new("ip").args(["route", "show", "type", "blackhole"]).output().map_err(text)?;
    let before = String::from_utf8_lossy(&routes.stdout).into_owned();

    let out = lab(&dir, &["up", "--detach", "--no-install"])?.output().map_err(text)?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let last = said.lines().last().unwrap_or_default().to_owned();
    let ready = format!("ready replicas=3 nodes=2 kubeconfig={}/kubeconfig app=http://127.0.0.1:", dir.display());
    check(out.status.success() && last.starts_with(&ready), || said.clone())?;

    let status = lab(&dir, &["status"])?.output().map_err(text)?;
    let shown = String::from_utf8_lossy(&status.stdout).into_owned();
    check(status.status.success() && shown.contains("node n2 Ready") && shown.contains(&last), || shown.clone())?;

    // The supervisor is killed: `down` finds everything by itself.
    let state = std::fs::read_to_string(dir.join("state.json")).map_err(text)?;
    let state: serde_json::Value = serde_json::from_str(&state).map_err(text)?;
    let supervisor = state["supervisor"]["pid"].as_i64().and_then(|p| i32::try_from(p).ok()).ok_or("no supervisor")?;
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).map_err(text)?;
    let out = lab(&dir, &["down"])?.output().map_err(text)?;
    check(out.status.success() && !dir.exists(), || String::from_utf8_lossy(&out.stdout).into_owned())?;
    nothing_left(&dir, &before)?;

    // In the foreground: Ctrl-C stops it all and keeps the state.
    let mut child = lab(&dir, &["up", "--no-install"])?.stdout(Stdio::piped()).spawn().map_err(text)?;
    let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let mut heard = Vec::new();
    for line in lines.map_while(std::result::Result::ok) {
        heard.push(line);
        if heard.last().is_some_and(|l| l.starts_with(&ready)) {
            break;
        }
    }
    // The reader is gone from here on, and what runs goes on without it.
    check(heard.last().is_some_and(|l| l.starts_with(&ready)), || format!("it ended: {heard:?}"))?;
    let pid = i32::try_from(child.id()).map_err(text)?;
    kill(Pid::from_raw(pid), Signal::SIGINT).map_err(text)?;
    let ended = child.wait().map_err(text)?;
    check(ended.success() && dir.join("replicas").is_dir(), || format!("{ended}"))?;
    nothing_left(&dir, &before)?;
    let out = lab(&dir, &["down"])?.output().map_err(text)?;
    check(out.status.success() && !dir.exists(), || String::from_utf8_lossy(&out.stdout).into_owned())
}
