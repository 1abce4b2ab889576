//! The short form of the suite: real faults on real processes, each replica in
//! its own network namespace, for about a minute. Where namespaces are not to
//! be had it is skipped, with the reason.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use triarch_lab::netns;
use triarch_lab::suite::{Outcome, Suite};

const NAME: &str = "a_cluster_keeps_its_promises_through_faults_of_processes_network_and_disks";

fn main() -> ExitCode {
    Suite::main(async |suite, dir| match netns::obstacle() {
        Some(why) => suite.skip(NAME, why),
        None => suite.record(NAME, Instant::now(), short_suite(dir.path())),
    })
}

fn short_suite(dir: &Path) -> Outcome {
    let report = dir.join("report.html");
    let out = Command::new(env!("CARGO_BIN_EXE_triarch-nemesis"))
        .args(["suite", "--short", "--seed", "1", "--report"])
        .arg(&report)
        .arg("--dir")
        .arg(dir.join("run"))
        .output()
        .map_err(|e| e.to_string())?;
    let (said, why) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let last = said.lines().last().unwrap_or_default();
    let told = || format!("{}: {last:?}\n{why}", out.status);
    if !out.status.success() || !last.contains(" failed=0 report=") {
        return Err(told());
    }
    let page = std::fs::read_to_string(&report).map_err(|e| e.to_string())?;
    if !page.contains("--seed 1") || !page.contains("<svg") {
        return Err("the report has no seed or no picture".to_owned());
    }
    Ok(())
}
