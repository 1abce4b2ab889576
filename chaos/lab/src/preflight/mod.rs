//! Can containers run here? Each question in order of what the later ones
//! need, each No with its reason.
//!
//! The kernel's part is asked by a child (`triarch-lab probe`), in namespaces
//! that end with it. Programs come last: they can be installed.

mod probe;
mod programs;

use std::path::Path;
use std::process::Command;

use nix::unistd::Uid;

use crate::error::{Context, Result};
use crate::node::Snapshotter;

pub use probe::{ProbeArgs, run as run_probe};
pub use programs::{Missing, find, install, missing, packages};

/// One question's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    /// Yes, and something to know.
    Note(String),
    No(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub what: String,
    pub answer: Answer,
}

/// All answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    pub checks: Vec<Check>,
    pub missing: Vec<Missing>,
    pub snapshotter: Snapshotter,
}

/// Capabilities by number, without which no container starts.
const CAPABILITIES: &[(u8, &str)] = &[
    (21, "SYS_ADMIN"),
    (12, "NET_ADMIN"),
    (13, "NET_RAW"),
    (18, "SYS_CHROOT"),
    (19, "SYS_PTRACE"),
    (7, "SETUID"),
    (6, "SETGID"),
    (27, "MKNOD"),
];
const SYS_RESOURCE: u8 = 24;

impl Preflight {
    /// Asks everything; `dir` is where containers would be kept.
    pub fn ask(lab: &Path, dir: &Path) -> Result<Preflight> {
        let mut checks = vec![
            check("this is Linux", std::env::consts::OS == "linux", || std::env::consts::OS.to_owned()),
            check("user is root", Uid::effective().is_root(), || {
                "nodes need root: run `sudo ./up` (replicas then still run as you)".to_owned()
            }),
            user_namespace(),
            capabilities(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
        ];
        let mut snapshotter = Snapshotter::Overlay;
        if checks.iter().all(|c| !matches!(c.answer, Answer::No(_))) {
            std::fs::create_dir_all(dir).step("preflight", dir.display())?;
            let out = Command::new(lab).arg("probe").arg("--dir").arg(dir).output().step("preflight", lab.display())?;
            checks.extend(probe::parse(&String::from_utf8_lossy(&out.stdout), &String::from_utf8_lossy(&out.stderr)));
            let overlay = checks.iter().find(|c| c.what == probe::OVERLAY);
            if overlay.is_none_or(|c| c.answer != Answer::Yes) {
                snapshotter = Snapshotter::Native;
            }
        }
        Ok(Preflight { checks, missing: missing(), snapshotter })
    }

    /// Why containers cannot run here, whatever is installed.
    pub fn obstacle(&self) -> Option<String> {
        self.checks.iter().find_map(|c| match &c.answer {
            Answer::No(why) => Some(format!("{}: {why}", c.what)),
            _ => None,
        })
    }

    /// One line an answer.
    pub fn lines(&self) -> Vec<String> {
        let answer = |c: &Check| match &c.answer {
            Answer::Yes => format!("{}: yes", c.what),
            Answer::Note(note) => format!("{}: {note}", c.what),
            Answer::No(why) => format!("{}: No, {why}", c.what),
        };
        let missing = self.missing.iter().map(|m| format!("{}: No, package {} is not installed", m.what, m.package));
        self.checks.iter().map(answer).chain(missing).collect()
    }
}

fn check(what: &str, yes: bool, why: impl FnOnce() -> String) -> Check {
    Check { what: what.to_owned(), answer: if yes { Answer::Yes } else { Answer::No(why()) } }
}

fn user_namespace() -> Check {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    check("all user ids are ours", full_range(&map), || format!("this is a user namespace with {:?}", map.trim()))
}

fn full_range(map: &str) -> bool {
    map.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"]
}

fn capabilities(status: &str) -> Check {
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = effective.and_then(|h| u64::from_str_radix(h.trim(), 16).ok()).unwrap_or(0);
    let lacks = |bit: u8| bits & (1 << bit) == 0;
    let lost: Vec<&str> = CAPABILITIES.iter().filter(|(bit, _)| lacks(*bit)).map(|(_, name)| *name).collect();
    let answer = match (lost.is_empty(), lacks(SYS_RESOURCE)) {
        (false, _) => Answer::No(format!("{} missing", lost.join(", "))),
        (true, true) => Answer::Note("yes (without SYS_RESOURCE: oom scores are not lowered)".into()),
        (true, false) => Answer::Yes,
    };
    Check { what: "capabilities".into(), answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_named_and_sys_resource_only_noted() {
        let with = |bits: u64| capabilities(&format!("CapPrm:\t0\nCapEff:\t{bits:016x}\n")).answer;
        let all = u64::MAX >> 20;
        assert_eq!(with(all), Answer::Yes);
        assert!(matches!(with(all & !(1 << SYS_RESOURCE)), Answer::Note(_)));
        assert_eq!(with(all & !(1 << 12)), Answer::No("NET_ADMIN missing".into()));
        assert!(matches!(with(0), Answer::No(_)));
    }

    #[test]
    fn only_the_full_range_of_user_ids_will_do() {
        assert!(full_range("         0          0 4294967295\n"));
        assert!(!full_range("0 1000 1\n") && !full_range(""));
    }

    #[test]
    fn the_first_no_is_the_obstacle() {
        let checks = vec![check("a", true, String::new), check("b", false, || "because".into())];
        let p = Preflight { checks, missing: vec![], snapshotter: Snapshotter::Native };
        assert_eq!(p.obstacle().as_deref(), Some("b: because"));
        assert_eq!(p.lines(), ["a: yes", "b: No, because"]);
    }
}
