//! The architecture as a test: who may depend on whom, who may name what, and
//! under which licences we build.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crates that the simulation runs: their environment is an argument.
const SIMULATED: &[&str] = &[
    "storage/wal",
    "storage/mvcc",
    "storage/raft",
    "storage/checkpoint",
    "control-plane/registry",
    "control-plane/kinds",
    "control-plane/admission",
    "control-plane/auth",
    "control-plane/controllers",
    "control-plane/scheduler",
    "control-plane/gateway",
    "proto/api",
];

/// What those may not name outside tests.
const FORBIDDEN: &[&str] = &[
    "tokio::spawn",
    "tokio::time",
    "tokio::fs",
    "tokio::net",
    "tokio::select!",
    "SystemTime::now",
    "Instant::now",
    "thread_rng(",
    "rand::rng()",
    "rand::random",
];

/// Where one of those is the point: a dedicated thread, a production runtime, a socket.
const EXEMPT: &[&str] = &[
    "storage/wal/src/driver.rs",
    "storage/raft/src/grpc.rs",
    // Where the simulated runtime itself is made.
    "storage/raft/src/sim.rs",
    "storage/raft/src/sim/",
];

/// Layers, lowest first: a crate depends on its own layer and those below.
const LAYERS: &[(&str, u32)] = &[
    ("env", 0),
    ("mutants", 0),
    ("api", 0),
    ("rpc", 0),
    ("pki", 1),
    ("wal", 2),
    ("mvcc", 2),
    ("checkpoint", 3),
    ("raft", 4),
    ("etcd", 5),
    ("registry", 6),
    ("kinds", 7),
    ("admission", 8),
    ("auth", 8),
    ("apiserver", 9),
    ("controllers", 8),
    ("scheduler", 9),
    ("gateway", 9),
    ("server", 10),
    ("cri", 2),
    ("volume", 2),
    ("proxy", 2),
    ("kubelet", 3),
    ("agent", 4),
    ("check", 20),
    ("sim", 21),
    ("lab", 21),
    ("nemesis", 22),
];

const LICENCES: &[&str] = &[
    "Apache-2.0",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "Unlicense",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "BSL-1.0",
    "Apache-2.0 WITH LLVM-exception",
    "CDLA-Permissive-2.0",
];

/// Weak copyleft, by file: these may be linked unmodified into an Apache-2.0
/// work. Named one by one, so that a new one is a decision.
const LINKED_UNMODIFIED: &[(&str, &str)] = &[("imbl", "MPL-2.0+"), ("imbl-sized-chunks", "MPL-2.0+")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Folders of all our crates, relative to the root.
fn crates() -> Vec<String> {
    let mut out = Vec::new();
    for group in ["proto", "storage", "control-plane", "node-agent", "chaos"] {
        for entry in fs::read_dir(root().join(group)).unwrap() {
            let path = entry.unwrap().path();
            if path.join("Cargo.toml").exists() {
                out.push(format!("{group}/{}", path.file_name().unwrap().to_str().unwrap()));
            }
        }
    }
    out.sort();
    out
}

/// Names in `[dependencies]` of a crate.
fn dependencies(krate: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
    let mut section = "";
    let mut out = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section == "[dependencies]" {
            let name: String = line.chars().take_while(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
            if !name.is_empty() {
                out.insert(name);
            }
        }
    }
    out
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The part of a file before its tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap_or_default()
}

#[test]
fn dependencies_point_one_way() {
    let layer: BTreeMap<&str, u32> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for krate in crates() {
        let (group, name) = krate.split_once('/').unwrap();
        let own = *layer.get(name).unwrap_or_else(|| panic!("{krate} has no layer in this test"));
        for dep in dependencies(&krate).iter().filter_map(|d| d.strip_prefix("triarch-").map(str::to_owned)) {
            let theirs = layer[dep.as_str()];
            let group_of = |n: &str| crates().into_iter().find(|c| c.ends_with(&format!("/{n}"))).unwrap();
            let their_group = group_of(&dep);
            if theirs > own {
                wrong.push(format!("{krate} -> {dep}: {dep} is above it"));
            }
            if group == "node-agent" && (their_group.starts_with("control-plane") || their_group.starts_with("storage"))
            {
                wrong.push(format!("{krate} -> {dep}: the agent knows nothing of the control plane's inside"));
            }
            if group != "chaos" && their_group.starts_with("chaos") {
                wrong.push(format!("{krate} -> {dep}: nothing imports chaos"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_raft_crate_imports_openraft() {
    for krate in crates() {
        let uses = dependencies(&krate).iter().any(|d| d == "openraft");
        assert!(!uses || krate == "storage/raft", "{krate} depends on openraft");
    }
}

#[test]
fn crates_that_the_simulation_runs_take_time_tasks_and_chance_as_arguments() {
    let mut wrong = Vec::new();
    for krate in SIMULATED {
        let mut files = Vec::new();
        sources(&root().join(krate).join("src"), &mut files);
        for file in files {
            let name = file.strip_prefix(root()).unwrap().display().to_string();
            let is_test = name.ends_with("tests.rs") || name.contains("/tests/");
            if is_test || EXEMPT.iter().any(|e| name.starts_with(e)) {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            let lines: Vec<&str> = without_tests(&text).lines().collect();
            for (n, line) in lines.iter().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                // With a fixed order a select is deterministic.
                if code.contains("select!") && lines.get(n + 1).is_some_and(|l| l.trim() == "biased;") {
                    continue;
                }
                if let Some(word) = FORBIDDEN.iter().find(|w| code.contains(**w)) {
                    wrong.push(format!("{name}:{}: {word}", n + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_simulation_can_turn_mistakes_on_purpose_on() {
    for krate in crates() {
        let text = std::fs::read_to_string(root().join(&krate).join("Cargo.toml")).expect("a manifest");
        let on: Vec<&str> = text.lines().filter(|l| l.contains("triarch-mutants") && l.contains("on\"")).collect();
        let expected: &[&str] =
            if krate == "chaos/sim" { &["mutants = [\"triarch-mutants/on\"]"] } else { Default::default() };
        assert_eq!(on, expected, "{krate}");
        assert!(!text.contains("default = [\"mutants"), "{krate}");
    }
}

#[test]
fn nothing_is_left_unfinished_by_its_own_words() {
    let mut wrong = Vec::new();
    for krate in crates() {
        let mut files = Vec::new();
        sources(&root().join(&krate), &mut files);
        for file in files.iter().filter(|f| !f.ends_with("tidy.rs")) {
            let text = fs::read_to_string(file).unwrap();
            for (n, line) in text.lines().enumerate() {
                if ["todo!(", "unimplemented!(", "// TODO", "// FIXME", "// XXX"].iter().any(|w| line.contains(w)) {
                    wrong.push(format!("{}:{}", file.display(), n + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_package_that_we_build_with_has_an_accepted_licence() {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let meta: Value = serde_json::from_slice(&out.stdout).unwrap();
    let mut wrong = Vec::new();
    for p in meta["packages"].as_array().unwrap() {
        let licence = p["license"].as_str().unwrap_or_default();
        let by_name = LINKED_UNMODIFIED.iter().any(|(n, l)| p["name"] == *n && licence == *l);
        if !accepted(licence) && !by_name {
            wrong.push(format!("{} {}: {licence:?}", p["name"], p["version"]));
        }
        assert!(
            p["source"].is_null() || p["source"].as_str().is_some_and(|s| s.starts_with("registry+")),
            "{} does not come from the registry",
            p["name"]
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether an SPDX expression can be satisfied from our list (`AND` binds
/// tighter than `OR`; `/` is an old way to write `OR`).
fn accepted(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], "").replace('/', " OR ");
    !flat.trim().is_empty()
        && flat.split(" OR ").any(|any| any.split(" AND ").all(|one| LICENCES.contains(&one.trim())))
}

#[test]
fn licence_expressions_are_read_as_choices() {
    assert!(accepted("MIT OR GPL-3.0") && accepted("MIT/Apache-2.0") && accepted("Apache-2.0 AND MIT"));
    assert!(!accepted("GPL-3.0") && !accepted("MIT AND GPL-3.0") && !accepted(""));
}
