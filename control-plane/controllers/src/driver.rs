//! The driver: everything that controllers do to the world outside happens here.
//!
//! ```text
//!  store ─► Feed ─► World ─► keys() ─► Queue ─► reconcile() ─► Plan ─► Writer ─► store
//! ```
//! One manager per epoch, all of it a child of the epoch's scope. Each
//! controller has its own queue and task, so a slow one delays nobody, and at
//! most [`Controller::concurrency`] plans of it are being written at a time.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use triarch_env::{Env, Scope, Wall};
use triarch_mvcc::Mvcc;

use crate::queue::Queue;
use crate::recorder::Recorder;
use crate::resources;
use crate::store::Lookup;
use crate::world::{Change, World};
use crate::{Feed, Key, Kinds, Listener, Note, Plan, Revision, Step, Write, WriteError, Writer};

/// What a reconciler may look at: one snapshot, one moment.
pub struct Context<'a> {
    pub world: &'a World,
    pub store: &'a dyn Lookup,
    pub kinds: &'a Kinds,
    pub now: Wall,
    /// Why the last attempt for this key failed.
    pub failure: Option<&'a WriteError>,
}

/// A reconciler. Pure: the same context and key give the same plan.
pub trait Controller: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// Which keys a change may concern. Called in revision order, cheap.
    fn keys(&self, world: &World, change: &Change, out: &mut Vec<Key>);

    /// Keys that are looked at once when an epoch begins, whatever the store holds.
    fn first(&self) -> Vec<Key> {
        Vec::new()
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan;

    /// Keys at work at a time.
    fn concurrency(&self) -> usize {
        5
    }
}

/// What a manager is made of.
pub struct Setup {
    pub env: Env,
    /// The epoch's scope; everything started here ends with it.
    pub scope: Scope,
    pub mvcc: Arc<Mvcc>,
    pub writer: Arc<dyn Writer>,
    pub kinds: Kinds,
    pub controllers: Vec<Arc<dyn Controller>>,
    /// Others that follow the same snapshot: the scheduler.
    pub listeners: Vec<Arc<dyn Listener>>,
}

/// The running controllers of one epoch.
pub struct Manager {
    feed: Arc<Feed>,
    recorder: Recorder,
    lanes: Vec<Arc<Lane>>,
}

/// A controller with its queue.
struct Lane {
    controller: Arc<dyn Controller>,
    queue: Mutex<Queue>,
    wake: Notify,
}

impl Listener for Lane {
    fn changed(&self, world: &World, changes: &[Change]) {
        let mut keys = Vec::new();
        for c in changes {
            self.controller.keys(world, c, &mut keys);
        }
        let mut queue = self.queue.lock();
        for k in keys {
            queue.add(k);
        }
        queue.release(world.revision);
        // The first batch wakes everybody: keys that were there from the start wait for it.
        let work = queue.depth().0 > 0;
        drop(queue);
        if work {
            self.wake.notify_one();
        }
    }
}

struct Shared {
    env: Env,
    mvcc: Arc<Mvcc>,
    writer: Arc<dyn Writer>,
    kinds: Kinds,
    feed: Arc<Feed>,
    recorder: Recorder,
}

impl Manager {
    /// Starts everything under the scope.
    pub fn start(setup: Setup) -> Manager {
        let Setup { env, scope, mvcc, writer, kinds, controllers, listeners } = setup;
        let recorder = Recorder::start(&env, &scope, writer.clone());
        let lanes: Vec<Arc<Lane>> = controllers
            .into_iter()
            .map(|controller| {
                let mut queue = Queue::default();
                controller.first().into_iter().for_each(|k| queue.add(k));
                Arc::new(Lane { controller, queue: Mutex::new(queue), wake: Notify::new() })
            })
            .collect();
        let mut all: Vec<Arc<dyn Listener>> = lanes.iter().map(|l| l.clone() as Arc<dyn Listener>).collect();
        all.extend(listeners);
        // Events own nothing and nobody waits for them, and in a busy cluster they are half of all writes.
        let followed = kinds.resources().into_iter().filter(|r| *r != resources::EVENTS).collect();
        let feed = Arc::new(Feed::new(mvcc.clone(), followed, all));
        let shared =
            Arc::new(Shared { env: env.clone(), mvcc, writer, kinds, feed: feed.clone(), recorder: recorder.clone() });
        for lane in &lanes {
            let (lane, shared) = (lane.clone(), shared.clone());
            env.spawn_in(&scope, "controller", async move { run(&lane, &shared).await });
        }
        let follow = feed.clone();
        env.spawn_in(&scope, "controllers-feed", async move { follow.run().await });
        Manager { feed, recorder, lanes }
    }

    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// For Events of others in the same epoch (the scheduler).
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// `(controller, ready, delayed, held)` for metrics.
    pub fn depths(&self) -> Vec<(&'static str, usize, usize, usize)> {
        self.lanes
            .iter()
            .map(|l| {
                let (ready, delayed, held) = l.queue.lock().depth();
                (l.controller.name(), ready, delayed, held)
            })
            .collect()
    }

    /// Asks a controller to look at a key soon: for wake-ups from outside the
    /// store (a node's heartbeat stopped). Unknown controllers are ignored.
    pub fn poke(&self, controller: &str, key: Key) {
        if let Some(lane) = self.lanes.iter().find(|l| l.controller.name() == controller) {
            lane.queue.lock().add(key);
            lane.wake.notify_one();
        }
    }
}

/// Keys looked at before others get their turn.
const TURN: usize = 256;

/// A controller's loop.
async fn run(lane: &Lane, shared: &Shared) {
    let limit = lane.controller.concurrency().max(1);
    let mut running: FuturesUnordered<BoxFuture<'_, (Key, Result<(), WriteError>, Revision)>> = FuturesUnordered::new();
    loop {
        let now = shared.env.mono();
        lane.queue.lock().tick(now);
        let mut looked = 0;
        while running.len() < limit && looked < TURN && shared.feed.ready() {
            looked += 1;
            let Some((key, failure)) = lane.queue.lock().pop() else { break };
            let world = shared.feed.world();
            let cx = Context {
                world: &world,
                store: &shared.mvcc,
                kinds: &shared.kinds,
                now: shared.env.wall(),
                failure: failure.as_ref(),
            };
            let plan = lane.controller.reconcile(&cx, &key);
            {
                let mut queue = lane.queue.lock();
                for (k, delay) in &plan.requeue {
                    queue.add_at(k.clone(), now + *delay);
                }
                if !plan.cooldown.is_zero() {
                    queue.cool(&key, now + plan.cooldown);
                }
                if plan.is_empty() {
                    queue.done(&key, Ok(()), 0, now);
                    continue;
                }
            }
            running.push(
                async move {
                    let mut own = 0;
                    let result = execute(shared, plan, &mut own).await;
                    (key, result, own)
                }
                .boxed(),
            );
        }
        // Plans may have asked for keys right now.
        let due = {
            let mut queue = lane.queue.lock();
            let due = queue.tick(now);
            if queue.depth().0 > 0 && running.len() < limit && shared.feed.ready() { Err(()) } else { Ok(due) }
        };
        let Ok(due) = due else {
            crate::feed::yield_once().await;
            continue;
        };
        let sleep = async {
            match due {
                Some(at) => shared.env.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let mut sleep = std::pin::pin!(sleep.fuse());
        let mut wake = std::pin::pin!(lane.wake.notified().fuse());
        futures::select_biased! {
            ended = running.select_next_some() => {
                let (key, result, own) = ended;
                if let Err(error) = &result
                    && !matches!(error, WriteError::Conflict(_) | WriteError::Fenced)
                {
                    tracing::warn!(controller = lane.controller.name(), ?key, %error, "a reconcile failed and is retried");
                }
                let mut queue = lane.queue.lock();
                queue.done(&key, result, own, shared.env.mono());
                let held = queue.holds_any();
                drop(queue);
                // After the hold: the feed answers by releasing what is held by then.
                if held {
                    shared.feed.nudge();
                }
            }
            () = wake => {}
            () = sleep => {}
        }
    }
}

/// Writes a plan. `own` is raised to the highest revision written.
async fn execute(shared: &Shared, plan: Plan, own: &mut Revision) -> Result<(), WriteError> {
    for step in plan.steps {
        match step {
            Step::Note(n) => shared.recorder.record(n),
            Step::Sequence(writes) => {
                for w in writes {
                    let r = write(shared, w).await?;
                    *own = r.max(*own);
                }
            }
            Step::All(writes) => together(shared, writes, own).await?,
            Step::SlowStart(writes) => {
                let mut rest = writes.into_iter();
                let mut size = 1;
                loop {
                    let batch: Vec<_> = rest.by_ref().take(size).collect();
                    if batch.is_empty() {
                        break;
                    }
                    together(shared, batch, own).await?;
                    size = size.saturating_mul(2).min(BATCH_MAX);
                }
            }
        }
    }
    Ok(())
}

/// Most writes of one plan in flight.
const BATCH_MAX: usize = 512;

/// Writes all, [`BATCH_MAX`] at a time; the first error is answered after all were tried.
async fn together(shared: &Shared, writes: Vec<Write>, own: &mut Revision) -> Result<(), WriteError> {
    let mut first = Ok(());
    let mut rest = writes.into_iter().peekable();
    while rest.peek().is_some() {
        let batch: Vec<_> = rest.by_ref().take(BATCH_MAX).map(|w| write(shared, w)).collect();
        for r in join_all(batch).await {
            match r {
                Ok(revision) => *own = revision.max(*own),
                Err(e) if first.is_ok() => first = Err(e),
                Err(_) => {}
            }
        }
    }
    first
}

async fn write(shared: &Shared, write: Write) -> Result<Revision, WriteError> {
    // Hundreds of writes are prepared at once: others get their turn between them.
    crate::feed::yield_once().await;
    match shared.writer.write(&write.op).await {
        Ok(done) => {
            if let Some(note) = write.on_ok {
                shared.recorder.record(fill(note, &done.name, ""));
            }
            Ok(done.revision)
        }
        // What should be gone is gone; what should be there is there: the next
        // look at the snapshot tells whether anything is left to do.
        Err(WriteError::NotFound(_)) if matches!(write.op, crate::Op::Delete { .. }) => Ok(0),
        // Nothing may be made in a namespace that is going, and nothing needs to be.
        Err(WriteError::NamespaceTerminating(_)) if matches!(write.op, crate::Op::Create { .. }) => Ok(0),
        Err(error) => {
            if let Some(note) = write.on_err {
                shared.recorder.record(fill(note, "", &error.to_string()));
            }
            Err(error)
        }
    }
}

fn fill(mut note: Note, name: &str, error: &str) -> Note {
    if note.message.contains('{') {
        note.message = note.message.replace("{name}", name).replace("{error}", error);
    }
    note
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
