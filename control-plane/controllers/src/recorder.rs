//! Records Events: repeated ones raise a count, similar ones are combined, and
//! one source can say only so much about one object.
//!
//! Recording never waits: notes go to a bounded queue that drops the newest
//! when it is full. Numbers are those of client-go's correlator.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use triarch_env::{Env, Mono, Scope, Wall};

use crate::{Name, Note, ObjectRef, Op, Writer, resources};

const QUEUE_MAX: usize = 4096;
const CACHE_MAX: usize = 4096;
/// Similar events (all but the message equal) inside [`SIMILAR_WINDOW`] before they are combined.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// Events about one object from one source: a burst, then one per five minutes.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// Writes in flight.
const IN_FLIGHT: usize = 16;

/// Hands notes to the recording task. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    queue: Mutex<VecDeque<Note>>,
    wake: Notify,
}

impl Recorder {
    pub fn start(env: &Env, scope: &Scope, writer: Arc<dyn Writer>) -> Recorder {
        let recorder = Recorder(Arc::new(Inner { queue: Mutex::default(), wake: Notify::new() }));
        let (this, task_env) = (recorder.clone(), env.clone());
        env.spawn_in(scope, "events", async move { this.run(task_env, writer).await });
        recorder
    }

    pub fn record(&self, note: Note) {
        let mut queue = self.0.queue.lock();
        if queue.len() < QUEUE_MAX {
            queue.push_back(note);
            drop(queue);
            self.0.wake.notify_one();
        }
    }

    async fn run(&self, env: Env, writer: Arc<dyn Writer>) {
        let mut correlator = Correlator::default();
        loop {
            let batch: Vec<Note> = {
                let mut queue = self.0.queue.lock();
                let n = queue.len().min(CACHE_MAX / 8);
                queue.drain(..n).collect()
            };
            if batch.is_empty() {
                self.0.wake.notified().await;
                continue;
            }
            let ops: Vec<Op> = batch
                .into_iter()
                .filter_map(|n| correlator.observe(n, env.mono(), env.wall(), env.random_u64()))
                .collect();
            // Several writes may be of one Event (created, then counted): those keep their order.
            let mut by_name: BTreeMap<Name, Vec<Op>> = BTreeMap::new();
            for op in ops {
                by_name.entry(event_name(&op)).or_default().push(op);
            }
            stream::iter(by_name.into_values())
                .for_each_concurrent(IN_FLIGHT, |ops| {
                    let writer = &writer;
                    async move {
                        for op in ops {
                            // An Event that could not be written is not worth a second try.
                            if let Err(error) = writer.write(&op).await {
                                tracing::debug!(%error, "an Event was not recorded");
                            }
                        }
                    }
                })
                .await;
        }
    }
}

fn event_name(op: &Op) -> Name {
    match op {
        Op::Patch { name, .. } => name.clone(),
        Op::Create { object, .. } => Name::new(
            object["metadata"]["namespace"].as_str().unwrap_or_default(),
            object["metadata"]["name"].as_str().unwrap_or_default(),
        ),
        _ => Name::cluster(""),
    }
}

type Group = (ObjectRef, &'static str, &'static str, &'static str);

#[derive(Debug)]
struct Seen {
    name: Name,
    count: u64,
    last: Mono,
}

#[derive(Debug)]
struct Similar {
    messages: BTreeMap<String, ()>,
    last: Mono,
}

/// Decides what becomes of a note. Pure but for its own bounded memory.
#[derive(Debug, Default)]
pub struct Correlator {
    seen: BTreeMap<(Group, String), Seen>,
    similar: BTreeMap<Group, Similar>,
    spam: BTreeMap<(ObjectRef, &'static str), (f64, Mono)>,
}

impl Correlator {
    /// The write for a note; `None` when its source has said too much.
    pub fn observe(&mut self, note: Note, now: Mono, wall: Wall, unique: u64) -> Option<Op> {
        let mut about = note.about;
        let at_revision = std::mem::take(&mut about.resource_version);
        let tokens = self.spam.entry((about.clone(), note.component)).or_insert((BURST, now));
        let earned = now.since(tokens.1).as_secs_f64() / REFILL.as_secs_f64();
        *tokens = ((tokens.0 + earned).min(BURST), now);
        if tokens.0 < 1.0 {
            return None;
        }
        tokens.0 -= 1.0;

        let group: Group = (about.clone(), note.kind, note.reason, note.component);
        let similar = self.similar.entry(group.clone()).or_insert(Similar { messages: BTreeMap::new(), last: now });
        if now.since(similar.last) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = now;
        let mut message = note.message;
        let known = if similar.messages.len() >= SIMILAR_MAX && !similar.messages.contains_key(&message) {
            message = format!("(combined from similar events): {message}");
            String::new()
        } else {
            similar.messages.insert(message.clone(), ());
            message.clone()
        };

        let time = wall.rfc3339();
        let entry = self.seen.get_mut(&(group.clone(), known.clone()));
        let op = match entry {
            Some(seen) => {
                seen.count += 1;
                seen.last = now;
                let patch = json!({"count": seen.count, "lastTimestamp": time, "message": message});
                Op::Patch { resource: resources::EVENTS, name: seen.name.clone(), subresource: None, patch }
            }
            None => {
                let namespace = if about.namespace.is_empty() { "default" } else { &about.namespace };
                // Upstream's suffix is nanoseconds; the low digits keep two of one microsecond apart.
                let suffix = (wall.micros.max(0) as u64).wrapping_mul(1000) + unique % 1000;
                let name = Name::new(namespace, format!("{}.{suffix:x}", about.name));
                self.seen.insert((group, known), Seen { name: name.clone(), count: 1, last: now });
                let mut involved = json!({
                    "kind": about.kind, "apiVersion": about.api_version, "name": about.name,
                    "uid": about.uid, "resourceVersion": at_revision, "namespace": about.namespace,
                });
                if let Some(m) = involved.as_object_mut() {
                    m.retain(|_, v| v != "");
                }
                let object = json!({
                    "apiVersion": "v1", "kind": "Event",
                    "metadata": {"name": &*name.name, "namespace": namespace},
                    "involvedObject": involved, "reason": note.reason, "message": message,
                    "source": {"component": note.component}, "reportingComponent": note.component,
                    "reportingInstance": "", "type": note.kind, "count": 1,
                    "firstTimestamp": time, "lastTimestamp": time, "eventTime": null,
                });
                Op::Create { resource: resources::EVENTS, object }
            }
        };
        self.bound();
        Some(op)
    }

    /// Forgets the older half of what is remembered when a map is full.
    fn bound(&mut self) {
        fn halve<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, last: impl Fn(&V) -> Mono) {
            if map.len() > CACHE_MAX {
                let mut times: Vec<Mono> = map.values().map(&last).collect();
                times.sort();
                let cut = times[times.len() / 2];
                let mut spare = CACHE_MAX / 2;
                map.retain(|_, v| {
                    let keep = last(v) >= cut && spare > 0;
                    spare -= usize::from(keep);
                    keep
                });
            }
        }
        halve(&mut self.seen, |s| s.last);
        halve(&mut self.similar, |s| s.last);
        halve(&mut self.spam, |s| s.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str) -> Note {
        let about = ObjectRef { kind: "Pod".into(), namespace: "d".into(), name: "p".into(), ..ObjectRef::default() };
        Note { about, kind: "Normal", reason: "Pulled", message: message.into(), component: "kubelet" }
    }

    #[test]
    fn a_repeated_event_raises_the_count_of_the_first() {
        let mut c = Correlator::default();
        let Some(Op::Create { object, .. }) = c.observe(note("a"), Mono::default(), Wall::from_secs(1), 1) else {
            panic!("the first is created")
        };
        let Some(Op::Patch { name, patch, .. }) = c.observe(note("a"), Mono::default(), Wall::from_secs(2), 2) else {
            panic!("the second is counted")
        };
        assert_eq!(object["metadata"]["name"], *name.name);
        assert_eq!((patch["count"].as_u64(), patch["lastTimestamp"].as_str()), (Some(2), Some("1970-01-01T00:00:02Z")));
    }

    #[test]
    fn the_eleventh_similar_message_is_combined() {
        let mut c = Correlator::default();
        for i in 0..10 {
            assert!(matches!(
                c.observe(note(&i.to_string()), Mono::default(), Wall::default(), i),
                Some(Op::Create { .. })
            ));
        }
        let Some(Op::Create { object, .. }) = c.observe(note("x"), Mono::default(), Wall::default(), 11) else {
            panic!()
        };
        assert_eq!(object["message"], "(combined from similar events): x");
        let Some(Op::Patch { patch, .. }) = c.observe(note("y"), Mono::default(), Wall::default(), 12) else {
            panic!()
        };
        assert_eq!(patch["message"], "(combined from similar events): y");
    }

    #[test]
    fn one_source_says_at_most_25_things_about_an_object_and_then_one_per_five_minutes() {
        let mut c = Correlator::default();
        let made = (0..100).filter(|_| c.observe(note("a"), Mono::default(), Wall::default(), 1).is_some()).count();
        assert_eq!(made, 25);
        assert!(c.observe(note("a"), Mono(REFILL), Wall::default(), 1).is_some());
        assert!(c.observe(note("a"), Mono(REFILL), Wall::default(), 1).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let mut c = Correlator::default();
        for i in 0..CACHE_MAX as u64 * 3 {
            let mut n = note("a");
            n.about.name = format!("p{i}");
            c.observe(n, Mono(Duration::from_secs(i)), Wall::default(), i);
        }
        assert!(c.seen.len() <= CACHE_MAX && c.spam.len() <= CACHE_MAX && c.similar.len() <= CACHE_MAX);
    }
}
