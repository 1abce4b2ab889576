//! A client that watches everything the writers do, and resumes wherever it
//! was when its stream ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use triarch_check::{Change, ChangeKind, Violation, WatchHistory};
use triarch_lab::KubeClient;

use crate::shared::Shared;
use crate::writer::contents;

/// Before another replica is tried.
const BACK_OFF: Duration = Duration::from_millis(10);
/// How often a quiet watcher looks whether it may end.
const LOOK: Duration = Duration::from_millis(100);
/// Most changes that one watcher keeps.
const MAX_CHANGES: usize = 5_000_000;

/// What a watcher saw, and what was wrong with the stream itself.
#[derive(Debug)]
pub struct Watched {
    pub history: WatchHistory,
    pub violations: Vec<Violation>,
    /// Each end of its stream that it resumed after.
    pub resumed: Vec<Resumed>,
}

/// A stream that ended, at this replica and time (nanoseconds of the run).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    pub at: u64,
    pub replica: usize,
}

pub struct Watcher {
    shared: Arc<Shared>,
    clients: Vec<KubeClient>,
    at: usize,
    last: u64,
    watched: Watched,
}

/// Why a stream is no longer read.
enum Left {
    Finished,
    /// There was a stream, and it ended.
    Resume,
    /// There was none to be had here.
    Elsewhere,
    Broken(String),
}

impl Watcher {
    /// Lists, so that the watch starts at a known point.
    ///
    /// # Errors
    /// The list failed.
    pub async fn start(number: usize, shared: Arc<Shared>, clients: Vec<KubeClient>) -> anyhow::Result<Watcher> {
        let at = number % clients.len();
        let list = clients[at].get(&shared.collection()).await?;
        let (start, held) = listed(&list)?;
        let initial = held.into_iter().map(|(k, (value, _))| (k, value)).collect();
        let history = WatchHistory { name: number.to_string(), initial, start, end: start, changes: Vec::new() };
        let watched = Watched { history, violations: Vec::new(), resumed: Vec::new() };
        Ok(Watcher { shared, clients, at, last: start, watched })
    }

    /// Watches until everything up to the last revision was shown, or the
    /// caller gives up on it (and takes what there is).
    pub async fn run(mut self, mut give_up: tokio::sync::oneshot::Receiver<()>) -> Watched {
        loop {
            let left = tokio::select! {
                biased;
                _ = &mut give_up => Left::Broken("did not reach the last revision in time".into()),
                left = self.follow() => left,
            };
            match left {
                Left::Finished => break,
                Left::Elsewhere => self.next().await,
                Left::Resume => {
                    self.watched.resumed.push(Resumed { at: self.shared.now(), replica: self.at });
                    self.next().await;
                }
                Left::Broken(what) => {
                    let what = format!("{what} (at revision {})", self.last);
                    self.watched.violations.push(Violation::Broken { watch: self.watched.history.name.clone(), what });
                    break;
                }
            }
        }
        self.watched.history.end = self.last;
        self.watched
    }

    async fn next(&mut self) {
        self.at = (self.at + 1) % self.clients.len();
        tokio::time::sleep(BACK_OFF).await;
    }

    fn finished(&self) -> bool {
        let end = self.shared.last_revision();
        end > 0 && self.last >= end
    }

    async fn follow(&mut self) -> Left {
        let collection = self.shared.collection();
        let path = format!("{collection}?allowWatchBookmarks=true&resourceVersion={}", self.last);
        let mut stream = match self.clients[self.at].watch(&path).await {
            Ok(stream) => stream,
            Err(e) if e.reason() == "Expired" || e.reason() == "Gone" => return Left::Broken(e.to_string()),
            Err(_) => return Left::Elsewhere,
        };
        loop {
            if self.finished() {
                return Left::Finished;
            }
            match tokio::time::timeout(LOOK, stream.next()).await {
                Err(_) => {}
                Ok(Ok(Some(event))) => {
                    if let Some(left) = self.take(&event) {
                        return left;
                    }
                }
                Ok(Ok(None) | Err(_)) => return Left::Resume,
            }
        }
    }

    fn take(&mut self, event: &Value) -> Option<Left> {
        let object = &event["object"];
        let kind = match event["type"].as_str() {
            Some("ADDED") => ChangeKind::Added,
            Some("MODIFIED") => ChangeKind::Modified,
            Some("DELETED") => ChangeKind::Deleted,
            Some("BOOKMARK") => {
                let revision = object["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok());
                return match revision {
                    Some(r) if r >= self.last => {
                        self.last = r;
                        None
                    }
                    r => Some(Left::Broken(format!("a bookmark at {r:?}"))),
                };
            }
            Some("ERROR") if object["code"] == 410 => return Some(Left::Broken(object.to_string())),
            Some("ERROR") => return Some(Left::Resume),
            other => return Some(Left::Broken(format!("an event of type {other:?}"))),
        };
        // Others write here too (the cluster's root certificate).
        let (revision, value) = contents(object)?;
        let key = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if revision <= self.last {
            let (watch, previous) = (self.watched.history.name.clone(), self.last);
            self.watched.violations.push(Violation::Disorder { watch, previous, revision });
        }
        self.last = self.last.max(revision);
        self.watched.history.changes.push(Change { revision, key, kind, value });
        (self.watched.history.changes.len() >= MAX_CHANGES).then(|| Left::Broken("too many changes to keep".into()))
    }
}

/// Revision of a list, and (value, revision) of each of our objects in it.
///
/// # Errors
/// It is no list.
pub fn listed(list: &Value) -> anyhow::Result<(u64, BTreeMap<String, (u64, u64)>)> {
    let revision = list["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok());
    let revision = revision.ok_or_else(|| anyhow::anyhow!("a list without resourceVersion"))?;
    let items = list["items"].as_array().ok_or_else(|| anyhow::anyhow!("a list without items"))?;
    let held = items.iter().filter_map(|o| {
        let (revision, value) = contents(o)?;
        Some((o["metadata"]["name"].as_str()?.to_owned(), (value, revision)))
    });
    Ok((revision, held.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::object;
    use serde_json::json;

    fn watcher() -> Watcher {
        let history = WatchHistory { name: "0".into(), start: 10, end: 10, ..WatchHistory::default() };
        let watched = Watched { history, violations: Vec::new(), resumed: Vec::new() };
        Watcher { shared: Arc::default(), clients: Vec::new(), at: 0, last: 10, watched }
    }

    fn event(kind: &str, revision: u64) -> Value {
        json!({"type": kind, "object": object("r-1", 5, Some(revision))})
    }

    #[test]
    fn an_event_at_or_before_a_bookmark_is_a_violation() {
        let mut w = watcher();
        assert!(w.take(&json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "15"}}})).is_none());
        assert!(w.take(&event("MODIFIED", 15)).is_none());
        assert_eq!(w.watched.violations.len(), 1);
        assert!(w.take(&event("MODIFIED", 16)).is_none());
        assert_eq!((w.watched.violations.len(), w.last), (1, 16));
    }

    #[test]
    fn a_410_on_a_fresh_revision_is_a_violation_and_another_error_a_resumption() {
        let error = |code| json!({"type": "ERROR", "object": {"kind": "Status", "code": code}});
        assert!(matches!(watcher().take(&error(410)), Some(Left::Broken(_))));
        assert!(matches!(watcher().take(&error(500)), Some(Left::Resume)));
    }
}
