//! `kubectl logs`: the bytes of a container's log, following it while it runs.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use triarch_kubelet::model::Pod;
use triarch_kubelet::runtime::{ContainerInfo, Phase};
use triarch_rpc::node::{LogsRequest, TunnelFrame};

use super::{FRAME, Frames, Refusal, data, eof};
use crate::logs::{Options, Reader, tail_offset};
use crate::node::Node;
use crate::session::Inbound;

const POLL: Duration = Duration::from_millis(100);
/// The container's state is looked at each so many polls.
const LOOK: u32 = 10;

pub(crate) async fn serve(
    node: &Arc<Node>,
    r: LogsRequest,
    tx: &Frames,
    mut inbound: Inbound<TunnelFrame>,
) -> Result<(), Refusal> {
    let reading = std::pin::pin!(read(node, &r, tx));
    // The client going away ends the reading.
    let gone = std::pin::pin!(async { while let Some(Ok(_)) = inbound.next().await {} });
    match futures::future::select(reading, gone).await {
        futures::future::Either::Left((done, gone)) => {
            if done.is_ok() {
                // Not dropped while the last frames are under way.
                let _ = node.env().timeout(super::copy::LAST_WORDS, gone).await;
            }
            done
        }
        futures::future::Either::Right(_) => Ok(()),
    }
}

/// The run of the container whose log is wanted.
async fn find(node: &Node, pod: &Pod, r: &LogsRequest) -> Result<ContainerInfo, Refusal> {
    let runtime = &node.kubelet().context().runtime;
    let seen = runtime.observe(&pod.metadata.uid).await.map_err(|e| Refusal::internal(e.to_string()))?;
    let mut runs = seen.containers.iter().filter(|c| c.name == r.container);
    let (c, p) = (&r.container, &pod.metadata.name);
    let current = runs.next();
    let wanted = match r.previous {
        true => match current {
            // A container that waits for its restart: its last run is the previous one.
            Some(run) if run.phase == Phase::Exited && runs.clone().next().is_none() && run.restart_count > 0 => {
                Some(run)
            }
            _ => runs.find(|run| run.phase == Phase::Exited),
        },
        false => current,
    };
    match wanted {
        Some(run) => Ok(run.clone()),
        None if r.previous => {
            Err(Refusal::bad_request(format!("previous terminated container \"{c}\" in pod \"{p}\" not found")))
        }
        None => {
            let status = node.kubelet().shown(&pod.metadata.uid).unwrap_or_default();
            let all = status.container_statuses.iter().chain(&status.init_container_statuses);
            let waiting = all.filter(|s| s.name == *c).find_map(|s| s.state.waiting.clone());
            let text = match waiting {
                Some(w) if matches!(w.reason.as_str(), "ErrImagePull" | "ImagePullBackOff") => {
                    format!("container \"{c}\" in pod \"{p}\" is waiting to start: trying and failing to pull image")
                }
                Some(w) => format!("container \"{c}\" in pod \"{p}\" is waiting to start: {}", w.reason),
                None => format!("container \"{c}\" in pod \"{p}\" is not available"),
            };
            Err(Refusal::bad_request(text))
        }
    }
}

/// The file that is at `path` now, when it is another than the one that is open.
fn successor(path: &std::path::Path, open: &File) -> Option<File> {
    let (there, ours) = (std::fs::metadata(path).ok()?, open.metadata().ok()?);
    if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) {
        return None;
    }
    File::open(path).ok()
}

async fn read(node: &Arc<Node>, r: &LogsRequest, tx: &Frames) -> Result<(), Refusal> {
    let (ns, name) = (&r.namespace, &r.pod);
    let missing = || Refusal::not_found(format!("pod \"{name}\" not found"));
    let pod = node.kubelet().find(ns, name, &r.uid).ok_or_else(missing)?;
    let run = find(node, &pod, r).await?;
    let directory = node.kubelet().context().host.log_directory(&pod);
    if directory.as_os_str().is_empty() {
        // A simulated container writes nothing.
        let _ = tx.send(eof()).await;
        return Ok(());
    }
    let path = directory.join(&run.name).join(format!("{}.log", run.restart_count));
    let now = node.env().wall().secs();
    let since = match (r.since_seconds, r.since_time.as_str()) {
        (s, _) if s > 0 => jiff::Timestamp::from_second(now.saturating_sub(s)).ok(),
        (_, "") => None,
        (_, text) => Some(text.parse().map_err(|e| Refusal::bad_request(format!("sinceTime: {e}")))?),
    };
    let limit_bytes = u64::try_from(r.limit_bytes).ok();
    let mut reader = Reader::new(Options { timestamps: r.timestamps, since, limit_bytes });
    let opened = |e: std::io::Error| {
        Refusal::not_found(format!("failed to try resolving symlinks in path \"{}\": {e}", path.display()))
    };
    let mut file = File::open(&path).map_err(opened)?;
    let from = match u64::try_from(r.tail_lines) {
        Ok(lines) => tail_offset(&mut file, lines).map_err(|e| Refusal::internal(e.to_string()))?,
        Err(_) => 0,
    };
    file.seek(SeekFrom::Start(from)).map_err(|e| Refusal::internal(e.to_string()))?;
    let mut buffer = vec![0; FRAME];
    let (mut polls, mut ending, mut next) = (0u32, false, None);
    loop {
        let n = file.read(&mut buffer).map_err(|e| Refusal::internal(e.to_string()))?;
        if n > 0 {
            let out = reader.feed(&buffer[..n]);
            if !out.is_empty() && tx.send(data(out)).await.is_err() {
                return Ok(());
            }
            if reader.is_full() {
                break;
            }
            continue;
        }
        // The log was set aside and is complete: the rest of it, then its successor.
        if let Some(successor) = next.take() {
            file = successor;
            continue;
        }
        next = if r.follow { successor(&path, &file) } else { None };
        if next.is_some() {
            continue;
        }
        // One more look after the end, for what was written just before it.
        if !r.follow || ending {
            break;
        }
        polls += 1;
        if polls.is_multiple_of(LOOK) {
            let seen = node.kubelet().context().runtime.observe(&pod.metadata.uid).await;
            let running = |c: &ContainerInfo| c.id == run.id && matches!(c.phase, Phase::Running | Phase::Created);
            ending = !seen.is_ok_and(|s| s.containers.iter().any(running));
        }
        node.env().sleep(POLL).await;
    }
    let _ = tx.send(eof()).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_set_aside_is_followed_into_its_successor() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        std::fs::write(&path, "old").expect("writes");
        let open = File::open(&path).expect("opens");
        assert!(successor(&path, &open).is_none());
        std::fs::rename(&path, dir.path().join("0.log.1")).expect("renames");
        assert!(successor(&path, &open).is_none(), "there is no new one yet");
        std::fs::write(&path, "new").expect("writes");
        let mut text = String::new();
        successor(&path, &open).expect("the new one").read_to_string(&mut text).expect("reads");
        assert_eq!(text, "new");
    }
}
