//! watch: a cursor into the store's log, seen through selectors.
//!
//! ```text
//!   list at R ──► synthetic ADDED ──► (bookmark) ──► log after R ──► selectors ──► events
//! ```
//! Nothing is buffered here: a watcher that is not polled holds only its
//! cursor, and is told 410 when the log has moved past it.

use std::collections::VecDeque;
use std::time::Duration;

use futures::FutureExt;
use triarch_api::status::{ErrorList, FieldError, Status};
use triarch_env::{Env, Mono};
use triarch_mvcc::{Event, EventKind, ListRequest, Object, ReadError, Revision, Stored, WatchError, Watcher};

use crate::{Filter, Kind, ListOptions, Registry, RequestContext, RevisionMatch, Served, Target, options, read};

/// Between two bookmarks of an idle watch.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A bookmark is sent so long before the watch's own end.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Initial objects handed out at a time.
const INITIAL_PAGE: usize = 500;

/// What happened to an object, as the watcher's selectors see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Added => "ADDED",
            Change::Modified => "MODIFIED",
            Change::Deleted => "DELETED",
        }
    }
}

/// One watch event.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// `live`: from the log, so that its encoding is worth sharing among watchers.
    Object { change: Change, served: Served, live: bool },
    /// Every event up to `revision` has been sent.
    Bookmark { revision: Revision, initial_events_end: bool },
}

/// A running watch.
pub struct Watch {
    kind: &'static Kind,
    filter: Filter,
    initial: VecDeque<Stored>,
    /// The end of the initial events is marked with this revision.
    initial_end: Option<Revision>,
    watcher: Watcher,
    bookmarks: bool,
    sent: Revision,
    next_bookmark: Mono,
    end: Option<Mono>,
    env: Env,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watch({:?}, sent {})", self.kind, self.sent)
    }
}

impl Registry {
    /// Starts a watch. Errors in the options are answered here; a revision that
    /// is gone is the stream's first and last event, as upstream does it.
    pub async fn watch(
        &self,
        _ctx: &RequestContext,
        target: &Target<'_>,
        options: &ListOptions,
    ) -> Result<Watch, Status> {
        check_watch_options(options)?;
        let kind = target.kind;
        let filter = Filter::parse(kind, &options.label_selector, &options.field_selector)?;
        let mut prefix = read::narrow(self.prefix(target), &filter, kind.namespaced());
        if !target.name.is_empty() {
            prefix.name = Some(target.name.to_owned());
        }
        let asked = options::parse_revision(&options.resource_version)?;
        let synthetic = match options.send_initial_events {
            Some(wanted) => wanted,
            None => asked.is_none_or(|n| n == 0),
        };
        let (mut initial, mut start) = (VecDeque::new(), asked.unwrap_or(0));
        if synthetic {
            self.settle(asked).await?;
            let list = self.mvcc().list(&ListRequest::all(prefix.clone())).map_err(|e| gone(&e))?;
            start = list.revision;
            initial = list.items.into();
        } else if asked.is_none_or(|n| n == 0) {
            start = self.barrier().await?;
        }
        let watcher = self.mvcc().watch(prefix, start).map_err(|e| gone(&e))?;
        initial.retain(|s| filter.matches(&s.key, &s.object));
        let now = self.env.mono();
        Ok(Watch {
            kind,
            filter,
            initial,
            initial_end: (synthetic && options.send_initial_events == Some(true) && options.allow_watch_bookmarks)
                .then_some(start),
            watcher,
            bookmarks: options.allow_watch_bookmarks,
            sent: start,
            next_bookmark: now + self.env.jitter(BOOKMARK_EVERY, 15),
            end: options.timeout_seconds.map(|s| now + Duration::from_secs(s)),
            env: self.env.clone(),
        })
    }
}

impl Watch {
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// The next events, at least one; `None` when the watch's time is over.
    /// May be dropped and called again: no event is lost.
    pub async fn next(&mut self, max: usize) -> Option<Result<Vec<WatchEvent>, Status>> {
        if !self.initial.is_empty() {
            let n = self.initial.len().min(INITIAL_PAGE).min(max.max(1));
            let kind = self.kind;
            let page = self.initial.drain(..n);
            return Some(Ok(page
                .map(|s| WatchEvent::Object { change: Change::Added, served: Served::stored(kind, &s), live: false })
                .collect()));
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(Ok(vec![WatchEvent::Bookmark { revision, initial_events_end: true }]));
        }
        loop {
            let now = self.env.mono();
            if self.end.is_some_and(|end| end <= now) {
                return None;
            }
            let wake = match self.end {
                Some(end) => end.min(self.next_bookmark),
                None => self.next_bookmark,
            };
            let woken = {
                let mut timer = self.env.sleep_until(wake).fuse();
                let mut next = Box::pin(self.watcher.next(max)).fuse();
                futures::select_biased! {
                    events = next => Some(events),
                    () = timer => None,
                }
            };
            match woken {
                Some(Ok(events)) => {
                    let seen: Vec<WatchEvent> = events.iter().filter_map(|e| self.see(e)).collect();
                    if !seen.is_empty() {
                        self.sent = events.last().map_or(self.sent, |e| e.revision);
                        return Some(Ok(seen));
                    }
                }
                Some(Err(WatchError::Compacted { floor })) => {
                    return Some(Err(Status::expired(format!("too old resource version: {} ({floor})", self.sent))));
                }
                None => {
                    if let Some(bookmark) = self.bookmark() {
                        return Some(Ok(vec![bookmark]));
                    }
                }
            }
        }
    }

    fn bookmark(&mut self) -> Option<WatchEvent> {
        let now = self.env.mono();
        if now < self.next_bookmark {
            return None;
        }
        self.next_bookmark = now + self.env.jitter(BOOKMARK_EVERY, 15);
        if let Some(end) = self.end
            && end.since(now) > BOOKMARK_BEFORE_END
        {
            self.next_bookmark = self.next_bookmark.min(Mono(end.0.saturating_sub(BOOKMARK_BEFORE_END)));
        }
        let revision = self.watcher.progress();
        (self.bookmarks && revision > self.sent).then(|| {
            self.sent = revision;
            WatchEvent::Bookmark { revision, initial_events_end: false }
        })
    }

    /// The event through the selectors: what enters is ADDED, what leaves is
    /// DELETED with the object as it was and the event's own revision.
    fn see(&self, event: &Event) -> Option<WatchEvent> {
        let matches = |o: &Option<Object>| o.as_ref().filter(|o| self.filter.matches(&event.key, o)).cloned();
        let (now, before) =
            (if event.kind == EventKind::Put { matches(&event.object) } else { None }, matches(&event.prev));
        let (change, object) = match (now, before) {
            (Some(now), Some(_)) => (Change::Modified, now),
            (Some(now), None) => (Change::Added, now),
            (None, Some(before)) => (Change::Deleted, before),
            (None, None) => return None,
        };
        Some(WatchEvent::Object {
            change,
            served: Served { kind: self.kind, object, revision: event.revision },
            live: true,
        })
    }
}

fn gone(e: &ReadError) -> Status {
    match e {
        ReadError::Compacted { floor } => Status::expired(format!("too old resource version: ({floor})")),
        ReadError::Future { head } => Status::too_large_rv(Revision::MAX, *head, 1),
    }
}

fn check_watch_options(o: &ListOptions) -> Result<(), Status> {
    let mut errors = ErrorList::new();
    let field = "resourceVersionMatch";
    if o.send_initial_events.is_some() && o.resource_version_match != RevisionMatch::NotOlderThan {
        errors.push(FieldError::forbidden(
            field,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    if o.resource_version_match != RevisionMatch::Unset {
        if o.send_initial_events.is_none() {
            errors.push(FieldError::forbidden(
                field,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        if o.resource_version_match == RevisionMatch::Exact {
            errors.push(FieldError::not_supported(field, "Exact", &["NotOlderThan"]));
        }
        if !o.continue_token.is_empty() {
            errors.push(FieldError::forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(("meta.k8s.io", "ListOptions"), "", &errors)) }
}
