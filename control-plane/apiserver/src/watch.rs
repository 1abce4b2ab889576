//! Watch events on the wire: pulled by the connection, so that a client that
//! does not read holds nothing but a cursor.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use triarch_api::status::Status;
use triarch_env::{Env, Scope};
use triarch_registry::{Change, Kind, Watch, WatchEvent};

use crate::negotiate::View;
use crate::pretty::Indenter;
use crate::transform::{self, IncludeObject};

/// Events taken from the log at a time.
const BATCH: usize = 256;
/// Encoded events that are kept for other watchers, and their bytes.
const CACHED_EVENTS: usize = 2_048;
const CACHED_BYTES: usize = 8 * 1024 * 1024;

type CacheKey = (u64, &'static str, &'static str, &'static str, View, Change);

/// Encodings of recent events: each is made once for all watchers of its form.
/// First in, first out, bounded by count and bytes.
#[derive(Default)]
pub struct EventCache(Mutex<Cached>);

#[derive(Default)]
struct Cached {
    events: HashMap<CacheKey, Bytes>,
    order: VecDeque<CacheKey>,
    bytes: usize,
}

impl EventCache {
    fn get(&self, key: &CacheKey) -> Option<Bytes> {
        self.0.lock().events.get(key).cloned()
    }

    fn put(&self, key: CacheKey, bytes: Bytes) {
        let mut c = self.0.lock();
        c.bytes += bytes.len();
        match c.events.insert(key, bytes) {
            Some(old) => c.bytes -= old.len(),
            None => c.order.push_back(key),
        }
        while c.order.len() > CACHED_EVENTS || (c.bytes > CACHED_BYTES && c.order.len() > 1) {
            let Some(oldest) = c.order.pop_front() else { break };
            if let Some(gone) = c.events.remove(&oldest) {
                c.bytes -= gone.len();
            }
        }
    }
}

/// The form of one watch.
pub struct Encoder {
    pub kind: &'static Kind,
    pub view: View,
    pub include: IncludeObject,
    pub cache: Arc<EventCache>,
    pub env: Env,
    /// Tables show their columns in the first event only.
    pub headers: bool,
}

impl Encoder {
    fn encode(&mut self, event: &WatchEvent) -> Bytes {
        match event {
            WatchEvent::Bookmark { revision, initial_events_end } => self.bookmark(*revision, *initial_events_end),
            WatchEvent::Object { change, served, live } => {
                let k = self.kind;
                let key = (served.revision, k.group, k.version, k.kind, self.view, *change);
                let shared = *live && self.view != View::Table;
                if let Some(bytes) = shared.then(|| self.cache.get(&key)).flatten() {
                    return bytes;
                }
                let mut out = BytesMut::with_capacity(served.object.bytes.len() + 128);
                out.put_slice(b"{\"type\":\"");
                out.put_slice(change.as_str().as_bytes());
                out.put_slice(b"\",\"object\":");
                match self.view {
                    View::Object => served.write(&mut out, true),
                    View::Metadata => transform::write_partial(&mut out, served),
                    View::Table => {
                        let first = std::mem::take(&mut self.headers);
                        out.put_slice(&transform::table_one(served, self.include, self.env.wall(), first));
                    }
                }
                out.put_slice(b"}\n");
                let bytes = out.freeze();
                if shared {
                    self.cache.put(key, bytes.clone());
                }
                bytes
            }
        }
    }

    fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.view {
            View::Object => {
                json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata})
            }
            View::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            View::Table => transform::bookmark_table(&metadata, revision),
        };
        format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}\n").into()
    }
}

/// `{"type":"ERROR","object":Status}`: the last event of a watch that cannot go on.
pub fn error_event(status: &Status) -> Bytes {
    let mut out = BytesMut::from(&b"{\"type\":\"ERROR\",\"object\":"[..]);
    out.put_slice(&status.to_json());
    out.put_slice(b"}\n");
    out.freeze()
}

/// Counts one open watch for as long as it lives, and holds its place.
pub struct Open {
    gauge: Gauge,
    _place: Option<OwnedSemaphorePermit>,
}

impl Open {
    pub fn new(gauge: Gauge) -> Open {
        gauge.inc();
        Open { gauge, _place: None }
    }

    pub fn in_place(mut self, place: OwnedSemaphorePermit) -> Open {
        self._place = Some(place);
        self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

struct Running {
    watch: Watch,
    encoder: Encoder,
    /// Encoded when they are taken: until then they are the store's own bytes.
    pending: VecDeque<WatchEvent>,
    last: Option<Bytes>,
    indenter: Option<Indenter>,
    scope: Scope,
    over: bool,
    _open: Open,
}

/// The body of a watch. It ends cleanly with its time or with the server.
pub fn stream(
    watch: Watch,
    encoder: Encoder,
    indent: bool,
    scope: Scope,
    open: Open,
) -> impl Stream<Item = Result<Bytes, io::Error>> + Send {
    let indenter = indent.then(Indenter::default);
    let state =
        Running { watch, encoder, pending: VecDeque::new(), last: None, indenter, scope, over: false, _open: open };
    futures::stream::unfold(state, |mut s| async move {
        loop {
            let next = s.pending.pop_front().map(|e| s.encoder.encode(&e));
            if let Some(bytes) = next.or_else(|| s.last.take()) {
                let bytes = match &mut s.indenter {
                    Some(i) => [&i.push(&bytes)[..], b"\n"].concat().into(),
                    None => bytes,
                };
                return Some((Ok(bytes), s));
            }
            if s.over {
                return None;
            }
            let scope = s.scope.clone();
            match scope.run(s.watch.next(BATCH)).await {
                None | Some(None) => return None,
                Some(Some(Ok(events))) => s.pending.extend(events),
                Some(Some(Err(status))) => {
                    s.last = Some(error_event(&status));
                    s.over = true;
                }
            }
        }
    })
}
