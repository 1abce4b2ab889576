//! The Watch service: one stream of a client, any number of watches in it.
//!
//! The response stream itself polls the requests and the watches, so there are
//! no tasks and no queues between the store and the connection: a connection
//! that does not take its responses just does not poll, and its watches fall
//! behind on their own. Only watches that were woken are polled.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use futures::{FutureExt, Stream, StreamExt};
use parking_lot::Mutex;
use prost::Message;
use tonic::{Request, Response, Status, Streaming};
use triarch_mvcc::{Event, EventKind, FACADE_RESOURCE, FacadeEnd, FacadeRange, Prefix, WatchError, Watcher};

use crate::etcdserverpb::watch_create_request::FilterType;
use crate::etcdserverpb::watch_request::RequestUnion;
use crate::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse, watch_server};
use crate::{Facade, MAX_REQUEST_BYTES, convert, error, mvccpb};

/// Watches of one stream, at most.
const MAX_WATCHES: usize = 16_384;

/// Events taken from a watch at a time (to the end of a transaction).
const BATCH: usize = 1000;

/// A response is closed when it has grown to this, if its revision allows.
const RESPONSE_BYTES: usize = 1 << 20;

/// How often watches that asked for it are told how far they are.
const PROGRESS_PERIOD: Duration = Duration::from_secs(600);

/// Metadata of clients that would rather be told than wait while there is no leader.
const NEEDS_LEADER: &str = "hasleader";

/// In a response: no watch of the stream in particular.
const NO_WATCH: i64 = -1;

#[tonic::async_trait]
impl watch_server::Watch for Facade {
    type WatchStream = WatchStream;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<WatchStream>, Status> {
        let needs_leader = request.metadata().get(NEEDS_LEADER).is_some_and(|v| v.as_bytes() == b"true");
        let lost = if needs_leader { self.cluster.lost() } else { std::future::pending().boxed() };
        Ok(Response::new(WatchStream::new(self.clone(), request.into_inner().boxed(), lost)))
    }
}

/// Ids of watches that were woken, each once.
#[derive(Default)]
struct Ready {
    ids: Mutex<VecDeque<i64>>,
    stream: AtomicWaker,
}

/// Wakes the stream for one watch.
struct Flag {
    id: i64,
    queued: Mutex<bool>,
    ready: Arc<Ready>,
}

impl Flag {
    fn queue(&self) {
        let mut queued = self.queued.lock();
        if !*queued {
            *queued = true;
            self.ready.ids.lock().push_back(self.id);
        }
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.queue();
        self.ready.stream.wake();
    }
}

struct Watch {
    watcher: Watcher,
    range: FacadeRange,
    flag: Arc<Flag>,
    puts: bool,
    deletes: bool,
    prev_kv: bool,
    fragment: bool,
    progress_notify: bool,
    /// Something was sent since the last progress round.
    busy: bool,
}

/// A client's watch stream: its responses.
pub struct WatchStream {
    facade: Facade,
    requests: Pin<Box<dyn Stream<Item = Result<WatchRequest, Status>> + Send>>,
    closed: bool,
    watches: BTreeMap<i64, Watch>,
    next_id: i64,
    ready: Arc<Ready>,
    /// Ready to send: what one request or one batch of events led to.
    out: VecDeque<WatchResponse>,
    tick: BoxFuture<'static, ()>,
    /// The leader is lost, and the client wants to know.
    lost: BoxFuture<'static, ()>,
    /// A progress request, answered when every watch has got this far.
    progress: Option<u64>,
}

impl WatchStream {
    fn new(
        facade: Facade,
        requests: Pin<Box<dyn Stream<Item = Result<WatchRequest, Status>> + Send>>,
        lost: BoxFuture<'static, ()>,
    ) -> WatchStream {
        let tick = facade.env.sleep(PROGRESS_PERIOD);
        WatchStream {
            facade,
            requests,
            closed: false,
            watches: BTreeMap::new(),
            next_id: 0,
            ready: Arc::default(),
            out: VecDeque::new(),
            tick,
            lost,
            progress: None,
        }
    }

    fn respond(&mut self, watch_id: i64, revision: u64, fill: impl FnOnce(&mut WatchResponse)) {
        let mut response = WatchResponse { header: self.facade.header(revision), watch_id, ..WatchResponse::default() };
        fill(&mut response);
        self.out.push_back(response);
    }

    fn head(&self) -> u64 {
        self.facade.db.mvcc().facade_head().0
    }

    fn request(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(&create),
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.progress = Some(self.head()),
            None => {}
        }
    }

    /// A watch that is not there is not answered.
    fn cancel(&mut self, id: i64) {
        if self.watches.remove(&id).is_some() {
            let head = self.head();
            self.respond(id, head, |r| r.canceled = true);
        }
    }

    fn create(&mut self, r: &WatchCreateRequest) {
        let head = self.head();
        let refuse = |reason: &str| {
            let reason = reason.to_owned();
            move |r: &mut WatchResponse| (r.created, r.canceled, r.cancel_reason) = (true, true, reason)
        };
        // As in etcd, a watch of the empty key is one of the lowest key.
        let key: &[u8] = if r.key.is_empty() { &[0] } else { &r.key };
        let range = convert::range(key, &r.range_end);
        if matches!(&range.end, FacadeEnd::Before(end) if *end <= range.start) {
            return self.respond(NO_WATCH, head, refuse("mvcc: watcher range is empty"));
        }
        if self.watches.len() >= MAX_WATCHES {
            return self.respond(NO_WATCH, head, refuse(error::too_many_requests().message()));
        }
        let id = match r.watch_id {
            0 => {
                while self.watches.contains_key(&self.next_id) {
                    self.next_id += 1;
                }
                self.next_id
            }
            id if self.watches.contains_key(&id) => {
                return self.respond(NO_WATCH, head, refuse("mvcc: duplicate watch ID provided on the WatchStream"));
            }
            id => id,
        };
        self.next_id = self.next_id.max(id.saturating_add(1));
        let prefix = match &range.end {
            FacadeEnd::Single => {
                let (namespace, name) = (Some(String::new()), Some(range.start.name().to_owned()));
                Prefix { resource: FACADE_RESOURCE.into(), namespace, name }
            }
            _ => Prefix::resource(FACADE_RESOURCE),
        };
        // Before the first revision is from the first, which may be compacted.
        let after = match r.start_revision {
            0 => head,
            start => u64::try_from(start.saturating_sub(1)).unwrap_or(0),
        };
        self.respond(id, head, |r| r.created = true);
        let watcher = match self.facade.db.mvcc().watch(prefix, after) {
            Ok(watcher) => watcher,
            Err(e) => return self.fell_behind(id, head, compact_revision(e)),
        };
        let flag = Arc::new(Flag { id, queued: Mutex::new(false), ready: self.ready.clone() });
        flag.queue();
        let not = |filter: FilterType| !r.filters.contains(&(filter as i32));
        let watch = Watch {
            watcher,
            range,
            flag,
            puts: not(FilterType::Noput),
            deletes: not(FilterType::Nodelete),
            prev_kv: r.prev_kv,
            fragment: r.fragment,
            progress_notify: r.progress_notify,
            busy: false,
        };
        self.watches.insert(id, watch);
    }

    fn fell_behind(&mut self, id: i64, revision: u64, compact_revision: u64) {
        self.watches.remove(&id);
        self.respond(id, revision, |r| (r.canceled, r.compact_revision) = (true, compact_revision as i64));
    }

    /// Takes a batch from a woken watch.
    fn advance(&mut self, id: i64) {
        // A cancelled watch may still be in the queue.
        let Some(watch) = self.watches.get_mut(&id) else { return };
        *watch.flag.queued.lock() = false;
        let waker = Waker::from(watch.flag.clone());
        match watch.watcher.poll_next(&mut Context::from_waker(&waker), BATCH) {
            Poll::Pending => {}
            Poll::Ready(Ok(events)) => {
                // There may be more: after the others.
                watch.flag.queue();
                let responses = watch.responses(id, &events);
                watch.busy |= !responses.is_empty();
                for (revision, mut response) in responses {
                    response.header = self.facade.header(revision);
                    self.out.push_back(response);
                }
            }
            Poll::Ready(Err(WatchError::Compacted { floor })) => {
                let head = self.head();
                self.fell_behind(id, head, floor + 1);
            }
        }
    }

    /// Tells watches that asked for it, and sent nothing lately, how far they are.
    /// A watch whose beginning has not come is told nothing, as in etcd.
    fn tick(&mut self) {
        let head = self.head();
        let mut idle = Vec::new();
        for (id, watch) in &mut self.watches {
            let busy = std::mem::take(&mut watch.busy);
            if watch.progress_notify && !busy {
                idle.push((*id, watch.watcher.progress()));
            }
        }
        idle.retain(|(_, revision)| *revision <= head);
        for (id, revision) in idle {
            self.respond(id, revision, |_| {});
        }
    }

    /// Answers a progress request once it is true for every watch.
    fn answer_progress(&mut self) {
        let Some(wanted) = self.progress else { return };
        let head = self.head();
        if self.watches.values().any(|w| w.watcher.progress() > head) {
            return;
        }
        // The lowest is honest for all: a client may resume any watch after it.
        let lowest = self.watches.values().map(|w| w.watcher.progress()).min().unwrap_or(wanted);
        if lowest >= wanted {
            self.progress = None;
            self.respond(NO_WATCH, lowest, |_| {});
        }
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.ready.stream.register(cx.waker());
        loop {
            if let Some(response) = this.out.pop_front() {
                return Poll::Ready(Some(Ok(response)));
            }
            if !this.closed {
                match this.requests.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ok(request))) => {
                        this.request(request);
                        continue;
                    }
                    // The client has finished, or is gone.
                    Poll::Ready(Some(Err(_)) | None) => {
                        this.closed = true;
                        return Poll::Ready(None);
                    }
                    Poll::Pending => {}
                }
            }
            if this.closed {
                return Poll::Ready(None);
            }
            if this.lost.poll_unpin(cx).is_ready() {
                this.closed = true;
                return Poll::Ready(Some(Err(error::no_leader())));
            }
            let id = this.ready.ids.lock().pop_front();
            if let Some(id) = id {
                this.advance(id);
                continue;
            }
            this.answer_progress();
            if this.tick.poll_unpin(cx).is_ready() {
                this.tick = this.facade.env.sleep(PROGRESS_PERIOD);
                this.tick();
                continue;
            }
            if this.out.is_empty() {
                return Poll::Pending;
            }
        }
    }
}

impl Watch {
    fn wants(&self, e: &Event) -> bool {
        self.range.contains(&e.key) && if e.kind == EventKind::Put { self.puts } else { self.deletes }
    }

    /// A batch as responses, each with the revision up to which it brings the
    /// client. A transaction's events are in one response, unless the client
    /// accepts fragments and they are large.
    fn responses(&self, id: i64, events: &[Arc<Event>]) -> Vec<(u64, WatchResponse)> {
        let mut responses: Vec<(u64, WatchResponse)> = Vec::new();
        let (mut size, mut last) = (0, 0);
        for e in events.iter().filter(|e| self.wants(e)) {
            let event = convert::event(e, self.prev_kv);
            let more = weight(&event);
            let full = size + more > RESPONSE_BYTES && e.revision != last;
            let split = size + more > MAX_REQUEST_BYTES && self.fragment;
            let open = responses.last_mut().filter(|_| !full && !split);
            let (revision, response) = match open {
                Some(open) => open,
                None => {
                    if let Some((revision, before)) = responses.last_mut() {
                        before.fragment = e.revision == *revision;
                    }
                    size = 0;
                    responses.push((e.revision, WatchResponse { watch_id: id, ..WatchResponse::default() }));
                    responses.last_mut().expect("pushed just above")
                }
            };
            (size, last, *revision) = (size + more, e.revision, e.revision);
            response.events.push(event);
        }
        responses
    }
}

fn weight(event: &mvccpb::Event) -> usize {
    let kv = |kv: &Option<mvccpb::KeyValue>| kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len() + 40);
    debug_assert!(event.encoded_len() <= kv(&event.kv) + kv(&event.prev_kv) + 64);
    kv(&event.kv) + kv(&event.prev_kv)
}

/// The lowest revision that a new watch may start from.
fn compact_revision(e: triarch_mvcc::ReadError) -> u64 {
    match e {
        triarch_mvcc::ReadError::Compacted { floor } => floor + 1,
        triarch_mvcc::ReadError::Future { head } => head,
    }
}
