//! Containers' logs stay small: the kubelet's `containerLogMaxSize` (10 MiB) and
//! `containerLogMaxFiles` (5), looked at every ten seconds.
//!
//! `0.log` is renamed to `0.log.TIME` and the runtime opens a new `0.log`; the
//! oldest go first. (Rotated files are not compressed.)

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use triarch_env::Wall;
use triarch_kubelet::runtime::Runtime;

use crate::node::Node;

const PERIOD: Duration = Duration::from_secs(10);
const MAX_SIZE: u64 = 10 << 20;
/// The one that is written and those before it.
const MAX_FILES: usize = 5;

/// Rotates what has grown until it is dropped.
pub async fn keep(node: Arc<Node>) {
    loop {
        node.env().sleep(PERIOD).await;
        for (id, path) in logs(&node) {
            if fs::metadata(&path).is_ok_and(|m| m.len() > MAX_SIZE)
                && let Err(e) = rotate(&*node.kubelet().context().runtime, &id, &path, node.env().wall()).await
            {
                tracing::warn!(log = %path.display(), error = %e, "a container's log could not be rotated");
            }
        }
    }
}

/// Running containers with the file that each writes.
fn logs(node: &Node) -> Vec<(String, PathBuf)> {
    let kubelet = node.kubelet();
    let mut out = Vec::new();
    for (pod, status) in kubelet.running() {
        let directory = kubelet.context().host.log_directory(&pod);
        if directory.as_os_str().is_empty() {
            continue;
        }
        let all = status.container_statuses.iter().chain(&status.init_container_statuses);
        for c in all.filter(|c| c.state.running.is_some()) {
            let id = c.container_id.rsplit("//").next().unwrap_or_default().to_owned();
            out.push((id, directory.join(&c.name).join(format!("{}.log", c.restart_count))));
        }
    }
    out
}

/// Rotated files of a log, oldest first: their names end in the time.
pub fn rotated(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let name = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut out: Vec<PathBuf> = fs::read_dir(dir)?
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(&name))
        .map(|e| e.path())
        .collect();
    out.sort();
    Ok(out)
}

async fn rotate(runtime: &dyn Runtime, id: &str, path: &Path, now: Wall) -> Result<(), String> {
    let said = |e: std::io::Error| e.to_string();
    let old = rotated(path).map_err(said)?;
    // With the one that is renamed now there are MAX_FILES - 1, and the new log.
    let excess = (old.len() + 2).saturating_sub(MAX_FILES);
    for file in old.iter().take(excess) {
        fs::remove_file(file).map_err(said)?;
    }
    let aside = PathBuf::from(format!("{}.{}", path.display(), stamp(now)));
    fs::rename(path, &aside).map_err(said)?;
    if let Err(e) = runtime.reopen_log(id).await {
        // Nobody would write a new one: what there is stays the log.
        let _back = fs::rename(&aside, path);
        return Err(e.to_string());
    }
    Ok(())
}

/// `20060102-150405`, with the fraction so that no two are the same.
fn stamp(now: Wall) -> String {
    now.rfc3339_micro().chars().filter(|c| c.is_ascii_digit() || *c == 'T').collect::<String>().replace('T', "-")
}

#[cfg(test)]
mod tests {
    use triarch_env::{Env, TokioRuntime};
    use triarch_kubelet::runtime::hollow::HollowRuntime;

    use super::*;

    #[tokio::test]
    async fn a_log_is_set_aside_and_only_the_newest_files_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        let runtime = HollowRuntime::new(Env::new(TokioRuntime::current()), 0);
        for turn in 0..8 {
            fs::write(&path, format!("turn {turn}")).expect("writes");
            rotate(&*runtime, "c", &path, Wall::from_secs(1_000_000 + turn)).await.expect("rotates");
            assert!(!path.exists(), "the runtime makes the new one");
        }
        fs::write(dir.path().join("1.log"), "another run's").expect("writes");
        let kept: Vec<String> =
            rotated(&path).expect("reads").iter().map(|p| fs::read_to_string(p).expect("reads")).collect();
        assert_eq!(kept, ["turn 4", "turn 5", "turn 6", "turn 7"]);
        assert_eq!(stamp(Wall::from_secs(1_000_000)), "19700112-134640000000");
    }
}
