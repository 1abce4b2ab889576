//! Keeps the snapshot in step with the store.
//!
//! One cursor per resource; their events are merged by revision, so
//! what is decoded always stands at one revision of the whole store. Listeners are
//! called with each batch of changes after the snapshot that includes it is in
//! place, and must only take notes (wake-ups carry no data that is not in the
//! snapshot). A cursor that fell behind is answered by listing again.
//!
//! What is decoded is listed first, and work begins with it. The rest, of which
//! only uids are kept, is listed page by page between the steps: a new leader
//! does not wait for a hundred thousand ConfigMaps before it binds a pod.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use parking_lot::Mutex;
use tokio::sync::Notify;
use triarch_mvcc::{Event, ListRequest, Mvcc, Prefix, ReadError, WatchError, Watcher};

use crate::world::{Any, Change, TYPED, World};
use crate::{Name, Revision};

/// Objects of a page while listing, and events of one read from a cursor.
const PAGE: usize = 500;

/// Revisions that the snapshot moves by at a time.
const STEP: Revision = 128;

/// A resource whose events are taken from a cursor.
struct Followed {
    resource: &'static str,
    cursor: Watcher,
    /// The newest event that was taken from it.
    taken: Revision,
}

/// How far the first listing of a resource has come.
struct Listing {
    resource: &'static str,
    at: Revision,
    after: Option<triarch_mvcc::Key>,
}

/// Told of every change, in revision order.
pub trait Listener: Send + Sync + 'static {
    fn changed(&self, world: &World, changes: &[Change]);
}

/// The snapshot and those who follow it.
pub struct Feed {
    mvcc: Arc<Mvcc>,
    resources: Vec<&'static str>,
    world: Mutex<World>,
    listed: AtomicBool,
    nudge: Notify,
    listeners: Vec<Arc<dyn Listener>>,
}

impl Feed {
    /// `resources` are the stores to follow; see [`crate::world::TYPED`] for those that are decoded.
    pub fn new(mvcc: Arc<Mvcc>, resources: Vec<&'static str>, listeners: Vec<Arc<dyn Listener>>) -> Feed {
        Feed { mvcc, resources, world: Mutex::default(), listed: false.into(), nudge: Notify::new(), listeners }
    }

    /// The present snapshot, O(1).
    pub fn world(&self) -> World {
        self.world.lock().clone()
    }

    pub fn revision(&self) -> Revision {
        self.world.lock().revision
    }

    /// Whether what is decoded is in the snapshot: nothing may be decided before.
    pub fn ready(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// Runs until dropped.
    pub async fn run(&self) {
        loop {
            match self.list() {
                Ok(mut followed) => self.follow(&mut followed).await,
                // Compaction went past the revision while it was listed: again, from the head.
                Err(ReadError::Compacted { .. } | ReadError::Future { .. }) => {
                    yield_once().await;
                    continue;
                }
            }
            tracing::warn!("the controllers' cursors fell behind the event log: listing again");
        }
    }

    /// Builds the snapshot of what is decoded at the head and opens a cursor per
    /// resource just after it.
    fn list(&self) -> Result<Vec<Followed>, ReadError> {
        let at = self.mvcc.revision();
        let before = self.world();
        let mut world = World::default();
        world.revision = at;
        let mut changes = Vec::new();
        let mut followed = Vec::new();
        for &resource in self.resources.iter().filter(|r| TYPED.contains(r)) {
            let mut listing = Listing { resource, at, after: None };
            while !self.page(&mut listing, &mut world, &mut changes)? {}
            followed.push(self.open(resource, at)?);
        }
        for change in &mut changes {
            change.old = before.find(change.resource, &change.name);
        }
        for &resource in TYPED {
            for (name, old, meta) in before.gone(resource, &world) {
                changes.push(Change { resource, name, old: Some(old), new: None, meta });
            }
        }
        self.put(world, &changes);
        Ok(followed)
    }

    /// Adds a page to `world`; whether it was the last one.
    fn page(&self, listing: &mut Listing, world: &mut World, changes: &mut Vec<Change>) -> Result<bool, ReadError> {
        let Listing { resource, at, ref mut after } = *listing;
        let prefix = Prefix::resource(resource);
        let page = self.mvcc.list(&ListRequest { prefix, after: after.take(), limit: PAGE, at: Some(at) })?;
        *after = page.items.last().map(|s| s.key.clone());
        for s in page.items {
            let name = Name::new(s.key.namespace(), s.key.name());
            if let Some(new) = decode(resource, &name, &s.object, s.mod_revision) {
                changes.push(world.apply(resource, name, Some(new), s.object.meta.clone()));
            }
        }
        Ok(!page.more)
    }

    fn open(&self, resource: &'static str, at: Revision) -> Result<Followed, ReadError> {
        let cursor = self.mvcc.watch(Prefix::resource(resource), at)?;
        Ok(Followed { resource, cursor, taken: 0 })
    }

    fn put(&self, world: World, changes: &[Change]) {
        *self.world.lock() = world.clone();
        self.listed.store(true, Ordering::Release);
        self.listeners.iter().for_each(|l| l.changed(&world, changes));
    }

    /// Follows the cursors until one of them has been overtaken, and takes up
    /// the resources that are not decoded one after the other.
    async fn follow(&self, followed: &mut Vec<Followed>) {
        let mut rest = self.resources.iter().copied().filter(|r| !TYPED.contains(r));
        let mut listing = None;
        let mut pending: Vec<(&'static str, Arc<Event>)> = Vec::new();
        loop {
            if listing.is_none() {
                listing = rest.next().map(|resource| Listing { resource, at: self.revision(), after: None });
            }
            if let Some(of) = &mut listing {
                let (mut world, mut changes) = (self.world(), Vec::new());
                let Ok(last) = self.page(of, &mut world, &mut changes) else { return };
                self.put(world, &changes);
                if last {
                    let Ok(opened) = self.open(of.resource, of.at) else { return };
                    followed.push(opened);
                    listing = None;
                }
                yield_once().await;
            } else if pending.is_empty() && self.wait(followed, &mut pending).await.is_err() {
                return;
            }
            // Everything up to `target` is in the cursors by now, whatever their order.
            // A step is bounded, so that others get their turn between two.
            let head = self.mvcc.revision();
            let target = head.min(self.revision() + STEP);
            for Followed { resource, cursor, taken } in followed.iter_mut() {
                while *taken <= target {
                    match cursor.try_next(PAGE) {
                        Ok(events) if events.is_empty() => break,
                        Ok(events) => {
                            *taken = events.last().map_or(0, |e| e.revision);
                            pending.extend(events.into_iter().map(|e| (*resource, e)));
                        }
                        Err(_) => return,
                    }
                }
            }
            pending.sort_by_key(|(_, e)| e.revision);
            let later = pending.split_off(pending.partition_point(|(_, e)| e.revision <= target));
            self.apply(&pending, target);
            pending = later;
            if target < head {
                yield_once().await;
                if pending.is_empty() {
                    // The head is ahead, and nobody will say so again.
                    self.nudge();
                }
            }
        }
    }

    /// Waits for the first events of any cursor, or for [`Feed::nudge`].
    async fn wait(
        &self,
        followed: &mut [Followed],
        pending: &mut Vec<(&'static str, Arc<Event>)>,
    ) -> Result<(), WatchError> {
        let mut nudged = std::pin::pin!(self.nudge.notified());
        poll_fn(|cx| {
            for Followed { resource, cursor, .. } in followed.iter_mut() {
                if let Poll::Ready(events) = cursor.poll_next(cx, PAGE) {
                    pending.extend(events?.into_iter().map(|e| (*resource, e)));
                    return Poll::Ready(Ok(()));
                }
            }
            nudged.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Brings the snapshot's revision to the head even when no followed
    /// resource has changed: somebody waits for it.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    fn apply(&self, events: &[(&'static str, Arc<Event>)], target: Revision) {
        let mut world = self.world();
        let mut changes = Vec::with_capacity(events.len());
        for (resource, e) in events {
            let name = Name::new(e.key.namespace(), e.key.name());
            let new = match &e.object {
                Some(o) => match decode(resource, &name, o, e.revision) {
                    Some(new) => Some(new),
                    None => continue,
                },
                None => None,
            };
            let Some(meta) = e.object.as_ref().or(e.prev.as_ref()).map(|o| o.meta.clone()) else { continue };
            changes.push(world.apply(resource, name, new, meta));
        }
        world.revision = target;
        self.put(world, &changes);
    }
}

/// An object that cannot be decoded is left out and said, never fatal: one bad
/// object must not stop every controller.
fn decode(resource: &str, name: &Name, object: &triarch_mvcc::Object, revision: Revision) -> Option<Any> {
    match Any::decode(resource, object, revision) {
        Ok(any) => Some(any),
        Err(error) => {
            tracing::error!(resource, ?name, %error, "a stored object cannot be decoded and is left alone");
            None
        }
    }
}

/// Lets others run once.
pub async fn yield_once() {
    let mut yielded = false;
    futures::future::poll_fn(move |cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
