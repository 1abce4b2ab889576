//! Pods that wait for a node, in three places:
//!
//! ```text
//!  new ─► active (by priority, then age) ─► popped
//!            ▲                                 │ no node fits
//!            ├── back-off 1 s … 10 s ◄─────────┼─► unschedulable
//!            └──────── an event that may help, or 5 minutes ◄──┘
//! ```
//! Bounded by the number of pods without a node: a pod is in one place only.
//! No clock of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use triarch_controllers::Name;
use triarch_env::Mono;

use crate::pod_info::PodInfo;

pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// An unschedulable pod is tried again after this even when nothing happened.
pub const FLUSH_AFTER: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    /// Until.
    Backoff(Mono),
    /// Since.
    Unschedulable(Mono),
    /// Popped; `moved`: an event came meanwhile that may help.
    Busy {
        moved: bool,
    },
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    attempts: u32,
    /// Order of arrival.
    sequence: u64,
    tried: Mono,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Queue {
    entries: BTreeMap<Name, Entry>,
    active: BTreeSet<(Reverse<i32>, u64, Name)>,
    backoff: BTreeSet<(Mono, Name)>,
    unschedulable: BTreeSet<(Mono, Name)>,
    next: u64,
}

impl Queue {
    /// A new pod, or one that changed. One whose spec and labels are as before
    /// stays where it is; a change may make it schedulable.
    pub fn put(&mut self, pod: PodInfo, now: Mono) {
        let name = pod.name.clone();
        if let Some(e) = self.entries.get_mut(&name) {
            let same = e.pod.pod.spec == pod.pod.spec
                && e.pod.pod.metadata.labels == pod.pod.metadata.labels
                && e.pod.uid() == pod.uid();
            if e.place == Place::Active && e.pod.priority != pod.priority {
                self.active.remove(&(Reverse(e.pod.priority), e.sequence, name.clone()));
                self.active.insert((Reverse(pod.priority), e.sequence, name.clone()));
            }
            e.pod = Arc::new(pod);
            if !same {
                self.wake(&name, now);
            }
            return;
        }
        self.next += 1;
        self.active.insert((Reverse(pod.priority), self.next, name.clone()));
        let entry = Entry { pod: Arc::new(pod), place: Place::Active, attempts: 0, sequence: self.next, tried: now };
        self.entries.insert(name, entry);
    }

    /// The pod is gone or has a node.
    pub fn remove(&mut self, name: &Name) {
        if let Some(e) = self.entries.remove(name) {
            self.unlink(name, &e);
        }
    }

    /// The next pod to place. It stays known until it is removed or put back.
    pub fn pop(&mut self, now: Mono) -> Option<Arc<PodInfo>> {
        let (_, _, name) = self.active.pop_first()?;
        let e = self.entries.get_mut(&name)?;
        e.place = Place::Busy { moved: false };
        e.attempts = e.attempts.saturating_add(1);
        e.tried = now;
        Some(e.pod.clone())
    }

    /// No node fits: wait for an event that may change that.
    pub fn unschedulable(&mut self, name: &Name, now: Mono) {
        match self.entries.get_mut(name) {
            Some(e) if e.place == (Place::Busy { moved: true }) => self.back_off(name, now),
            Some(e) => {
                e.place = Place::Unschedulable(now);
                self.unschedulable.insert((now, name.clone()));
            }
            None => {}
        }
    }

    /// The bind of this very pod failed: again after the back-off.
    pub fn bind_failed(&mut self, pod: &PodInfo, now: Mono) {
        if self.is_busy_with(pod) {
            self.back_off(&pod.name, now);
        }
    }

    /// This very pod has its node.
    pub fn bound(&mut self, pod: &PodInfo) {
        if self.is_busy_with(pod) {
            self.remove(&pod.name);
        }
    }

    /// `false` when the pod is gone, whoever has its name now.
    fn is_busy_with(&self, pod: &PodInfo) -> bool {
        let e = self.entries.get(&pod.name);
        e.is_some_and(|e| matches!(e.place, Place::Busy { .. }) && e.pod.uid() == pod.uid())
    }

    fn back_off(&mut self, name: &Name, now: Mono) {
        let Some(e) = self.entries.get_mut(name) else { return };
        let wait = BACKOFF_FIRST.saturating_mul(1 << e.attempts.saturating_sub(1).min(8)).min(BACKOFF_MAX);
        let until = e.tried + wait;
        if until <= now {
            e.place = Place::Active;
            self.active.insert((Reverse(e.pod.priority), e.sequence, name.clone()));
        } else {
            e.place = Place::Backoff(until);
            self.backoff.insert((until, name.clone()));
        }
    }

    /// Something happened that may help any pod: a node came or changed, a pod left one.
    pub fn wake_all(&mut self, now: Mono) {
        for (_, name) in std::mem::take(&mut self.unschedulable) {
            self.back_off(&name, now);
        }
        for e in self.entries.values_mut() {
            if let Place::Busy { moved } = &mut e.place {
                *moved = true;
            }
        }
    }

    /// Moves what is due; answers when the next is.
    pub fn tick(&mut self, now: Mono) -> Option<Mono> {
        while let Some((until, name)) = self.backoff.first().cloned() {
            if until > now {
                break;
            }
            self.backoff.pop_first();
            if let Some(e) = self.entries.get_mut(&name) {
                e.place = Place::Active;
                self.active.insert((Reverse(e.pod.priority), e.sequence, name));
            }
        }
        while let Some((since, name)) = self.unschedulable.first().cloned() {
            if since + FLUSH_AFTER > now {
                break;
            }
            self.unschedulable.pop_first();
            self.back_off(&name, now);
        }
        let next = [self.backoff.first().map(|b| b.0), self.unschedulable.first().map(|u| u.0 + FLUSH_AFTER)];
        next.into_iter().flatten().min()
    }

    /// Active, backing off, unschedulable.
    pub fn depth(&self) -> (usize, usize, usize) {
        (self.active.len(), self.backoff.len(), self.unschedulable.len())
    }

    pub fn contains(&self, name: &Name) -> bool {
        self.entries.contains_key(name)
    }

    fn wake(&mut self, name: &Name, now: Mono) {
        let Some(e) = self.entries.get_mut(name) else { return };
        match &mut e.place {
            Place::Unschedulable(since) => {
                let at = *since;
                self.unschedulable.remove(&(at, name.clone()));
                self.back_off(name, now);
            }
            Place::Busy { moved } => *moved = true,
            Place::Active | Place::Backoff(_) => {}
        }
    }

    fn unlink(&mut self, name: &Name, e: &Entry) {
        match e.place {
            Place::Active => drop(self.active.remove(&(Reverse(e.pod.priority), e.sequence, name.clone()))),
            Place::Backoff(at) => drop(self.backoff.remove(&(at, name.clone()))),
            Place::Unschedulable(at) => drop(self.unschedulable.remove(&(at, name.clone()))),
            Place::Busy { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn pod(name: &str, priority: i32) -> PodInfo {
        let p: Pod = serde_json::from_value(
            json!({"metadata": {"name": name}, "spec": {"priority": priority, "containers": []}}),
        )
        .unwrap();
        PodInfo::new(Name::new("d", name), Arc::new(p))
    }

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    fn pop(q: &mut Queue, now: Mono) -> Option<String> {
        q.pop(now).map(|p| p.name.name.to_string())
    }

    #[test]
    fn higher_priority_goes_first_and_then_the_older() {
        let mut q = Queue::default();
        for (n, p) in [("a", 0), ("b", 10), ("c", 0)] {
            q.put(pod(n, p), at(0));
        }
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut q, at(0))).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn an_unschedulable_pod_waits_for_an_event_and_its_back_off() {
        let mut q = Queue::default();
        q.put(pod("a", 0), at(0));
        let name = Name::new("d", "a");
        for (now, wait) in [(0, 1), (10_000, 2), (20_000, 4), (40_000, 8), (60_000, 10), (90_000, 10)] {
            q.tick(at(now));
            assert!(pop(&mut q, at(now)).is_some());
            q.unschedulable(&name, at(now));
            q.put(pod("a", 0), at(now));
            assert_eq!(q.depth(), (0, 0, 1), "a status that changed does not help");
            q.wake_all(at(now));
            assert_eq!(q.tick(at(now)), Some(at(now + wait * 1000)));
        }
    }

    #[test]
    fn an_event_during_the_attempt_is_not_lost() {
        let mut q = Queue::default();
        q.put(pod("a", 0), at(0));
        pop(&mut q, at(0));
        q.wake_all(at(0));
        q.unschedulable(&Name::new("d", "a"), at(1));
        assert_eq!(q.depth(), (0, 1, 0));
    }

    #[test]
    fn five_minutes_without_an_event_are_enough() {
        let mut q = Queue::default();
        q.put(pod("a", 0), at(0));
        pop(&mut q, at(0));
        q.unschedulable(&Name::new("d", "a"), at(0));
        assert_eq!(q.tick(at(299_999)), Some(at(300_000)));
        q.tick(at(300_000));
        assert_eq!(pop(&mut q, at(300_000)), Some("a".into()));
    }

    #[test]
    fn a_removed_pod_is_in_no_place() {
        let mut q = Queue::default();
        let name = Name::new("d", "a");
        for step in 0..3 {
            q.put(pod("a", 0), at(0));
            if step > 0 {
                pop(&mut q, at(0));
                q.unschedulable(&name, at(0));
            }
            if step > 1 {
                q.wake_all(at(0));
            }
            q.remove(&name);
            assert_eq!((q.depth(), q.contains(&name)), ((0, 0, 0), false));
        }
    }
}
