//! A watcher of all keys that asks for progress, and resumes at the next
//! member wherever it was.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use triarch_check::Violation;
use triarch_check::transactions::{Event, Seen, WatchLog};
use triarch_etcd::etcdserverpb::watch_client::WatchClient;
use triarch_etcd::etcdserverpb::watch_request::RequestUnion;
use triarch_etcd::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use triarch_etcd::mvccpb::event::EventType;

use super::api::{PREFIX, PREFIX_END, kept, key};
use crate::board::Board;

/// Between two questions for progress.
const PROGRESS: Duration = Duration::from_millis(40);
/// Before another member is tried.
const BACK_OFF: Duration = Duration::from_millis(20);
/// A member that does not open a stream by then is left.
const OPEN: Duration = Duration::from_secs(3);
/// A stream on which nothing comes for longer is left: its member may be gone.
const SILENCE: Duration = Duration::from_secs(5);
/// Most that one watcher keeps.
const MAX_SEEN: usize = 3_000_000;

/// What a watcher saw, and what was wrong with the stream itself.
#[derive(Debug)]
pub struct Watched {
    pub log: WatchLog,
    pub violations: Vec<Violation>,
    pub resumed: u64,
}

pub struct Watcher {
    board: Arc<Board>,
    members: Vec<Channel>,
    at: usize,
    /// Everything up to here was shown.
    last: u64,
    watched: Watched,
}

enum Left {
    Finished,
    Resume,
    Broken(String),
}

impl Watcher {
    /// A watcher of everything after `base`.
    pub fn new(number: usize, base: u64, board: Arc<Board>, members: &[Channel]) -> Watcher {
        let log = WatchLog { name: number.to_string(), start: base, end: base, seen: Vec::new() };
        let watched = Watched { log, violations: Vec::new(), resumed: 0 };
        Watcher { board, members: members.to_vec(), at: number % members.len(), last: base, watched }
    }

    /// Watches until everything up to the last revision was shown, or the
    /// caller gives up on it (and takes what there is).
    pub async fn run(mut self, mut give_up: oneshot::Receiver<()>) -> Watched {
        loop {
            let left = tokio::select! {
                biased;
                _ = &mut give_up => Left::Broken("did not reach the last revision in time".into()),
                left = self.follow() => left,
            };
            match left {
                Left::Finished => break,
                Left::Resume => {
                    self.watched.resumed += 1;
                    self.at = (self.at + 1) % self.members.len();
                    tokio::time::sleep(BACK_OFF).await;
                }
                Left::Broken(what) => {
                    let what = format!("{what} (at revision {})", self.last);
                    self.watched.violations.push(Violation::Broken { watch: self.watched.log.name.clone(), what });
                    break;
                }
            }
        }
        self.watched.log.end = self.last;
        self.watched
    }

    fn finished(&self) -> bool {
        let end = self.board.last_revision();
        end > 0 && self.last >= end
    }

    async fn follow(&mut self) -> Left {
        self.watched.log.seen.push(Seen::Resumed);
        let create = WatchCreateRequest {
            key: PREFIX.into(),
            range_end: PREFIX_END.into(),
            start_revision: self.last as i64 + 1,
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        let (requests, taken) = mpsc::channel(1);
        let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let taken = tokio_stream::once(first).chain(ReceiverStream::new(taken));
        let mut client = WatchClient::new(self.members[self.at].clone());
        let Ok(Ok(stream)) = tokio::time::timeout(OPEN, client.watch(taken)).await else { return Left::Resume };
        let mut stream = stream.into_inner();
        let (mut ask, mut heard) = (tokio::time::interval(PROGRESS), tokio::time::Instant::now());
        loop {
            if self.finished() {
                return Left::Finished;
            }
            tokio::select! {
                _ = ask.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Left::Resume;
                    }
                    let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    // One that is still waiting will do.
                    let _ = requests.try_send(WatchRequest { request_union: Some(progress) });
                }
                message = stream.message() => match message {
                    Ok(Some(response)) => {
                        heard = tokio::time::Instant::now();
                        if let Some(left) = self.take(&response) {
                            return left;
                        }
                    }
                    Ok(None) | Err(_) => return Left::Resume,
                }
            }
        }
    }

    fn take(&mut self, response: &WatchResponse) -> Option<Left> {
        if response.compact_revision > 0 {
            return Some(Left::Broken(format!("compacted at {}", response.compact_revision)));
        }
        if response.canceled {
            return Some(Left::Resume);
        }
        if response.events.is_empty() {
            if !response.created
                && let Some(revision) = response.header.as_ref().map(|h| h.revision.max(0) as u64)
            {
                self.watched.log.seen.push(Seen::Progress(revision));
                self.last = self.last.max(revision);
            }
            return None;
        }
        for event in &response.events {
            let Some(kv) = &event.kv else { return Some(Left::Broken("an event without a key".into())) };
            let after = match event.r#type() {
                EventType::Put => match kept(kv) {
                    Some(held) => Some(held),
                    None => return Some(Left::Broken(format!("a value that nobody wrote: {kv:?}"))),
                },
                EventType::Delete => None,
            };
            let before = event.prev_kv.as_ref().and_then(kept);
            let revision = kv.mod_revision.max(0) as u64;
            self.watched.log.seen.push(Seen::Event(Event { revision, key: key(kv), after, before }));
            self.last = self.last.max(revision);
        }
        (self.watched.log.seen.len() >= MAX_SEEN).then(|| Left::Broken("too much to keep".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use triarch_etcd::etcdserverpb::ResponseHeader;
    use triarch_etcd::mvccpb::{Event as Wire, KeyValue};

    fn watcher() -> Watcher {
        let log = WatchLog { name: "0".into(), start: 10, end: 10, seen: Vec::new() };
        let watched = Watched { log, violations: Vec::new(), resumed: 0 };
        Watcher { board: Arc::default(), members: Vec::new(), at: 0, last: 10, watched }
    }

    fn response(revision: i64) -> WatchResponse {
        WatchResponse { header: Some(ResponseHeader { revision, ..Default::default() }), ..WatchResponse::default() }
    }

    #[test]
    fn progress_is_kept_and_a_creation_is_none() {
        let mut w = watcher();
        assert!(w.take(&WatchResponse { created: true, ..response(40) }).is_none());
        assert_eq!(w.last, 10);
        assert!(w.take(&response(15)).is_none());
        assert_eq!((w.last, &w.watched.log.seen[..]), (15, &[Seen::Progress(15)][..]));
    }

    #[test]
    fn an_event_carries_what_was_there_and_a_compacted_watch_is_broken() {
        let mut w = watcher();
        let held = |value: &str, mod_revision, version| KeyValue {
            key: "h/r1".into(),
            value: value.to_owned().into(),
            create_revision: 11,
            mod_revision,
            version,
            ..KeyValue::default()
        };
        let put = Wire { kv: Some(held("5", 12, 2)), prev_kv: Some(held("4", 11, 1)), ..Wire::default() };
        assert!(w.take(&WatchResponse { events: vec![put], ..response(12) }).is_none());
        let Seen::Event(event) = &w.watched.log.seen[0] else { panic!("no event") };
        assert_eq!((event.revision, event.after.unwrap().value, event.before.unwrap().value), (12, 5, 4));
        let compacted = WatchResponse { compact_revision: 9, canceled: true, ..response(12) };
        assert!(matches!(w.take(&compacted), Some(Left::Broken(_))));
    }
}
