//! A controller's queue of keys: each at most once, none while it runs, none
//! before the snapshot includes the driver's own last write for it, failed ones
//! later and later.
//!
//! ```text
//!  add ─► ready ─► running ─┬─► idle (forgotten)
//!            ▲              ├─► held until revision ≥ own write ─► ready when dirty
//!            │              ├─► cooling for a while ─► ready when dirty
//!            └── delayed ◄──┴─► failed: 5 ms · 2ⁿ, at most 1000 s
//! ```
//! Bounded by the number of objects: a key is in it once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use triarch_env::Mono;

use crate::{Key, Revision, WriteError};

/// First retry, doubled with each failure in a row.
pub const RETRY_BASE: Duration = Duration::from_millis(5);
/// Longest wait between retries.
pub const RETRY_MAX: Duration = Duration::from_secs(1000);

#[derive(Debug, Default)]
struct Entry {
    queued: bool,
    running: bool,
    /// Asked for while it was running, held or cooling.
    dirty: bool,
    hold: Revision,
    cooling: bool,
    timer: Option<Mono>,
    failures: u32,
    error: Option<WriteError>,
}

/// See the module's text. No clock of its own: `now` is given.
#[derive(Debug, Default)]
pub struct Queue {
    ready: VecDeque<Key>,
    delayed: BTreeSet<(Mono, Key)>,
    held: BTreeSet<(Revision, Key)>,
    cooling: BTreeSet<(Mono, Key)>,
    entries: BTreeMap<Key, Entry>,
    /// The snapshot's revision, as last heard: known here and nowhere else, so
    /// that it cannot pass by between a look at it and the hold that follows.
    released: Revision,
}

impl Queue {
    pub fn add(&mut self, key: Key) {
        let e = self.entries.entry(key.clone()).or_default();
        if e.running || e.hold > 0 || e.cooling {
            e.dirty = true;
        } else if !e.queued {
            e.queued = true;
            self.ready.push_back(key);
        }
    }

    /// Adds the key at `at`, or earlier when it is already waiting for an earlier time.
    pub fn add_at(&mut self, key: Key, at: Mono) {
        let e = self.entries.entry(key.clone()).or_default();
        if let Some(t) = e.timer {
            if t <= at {
                return;
            }
            self.delayed.remove(&(t, key.clone()));
        }
        e.timer = Some(at);
        self.delayed.insert((at, key));
    }

    /// Moves what is due at `now` to the ready keys; answers when the next is due.
    pub fn tick(&mut self, now: Mono) -> Option<Mono> {
        while let Some((at, key)) = self.cooling.first().cloned() {
            if at > now {
                break;
            }
            self.cooling.pop_first();
            if let Some(e) = self.entries.get_mut(&key) {
                e.cooling = false;
                self.settle(&key);
            }
        }
        let cool = self.cooling.first().map(|c| c.0);
        while let Some((at, key)) = self.delayed.first().cloned() {
            if at > now {
                return Some(cool.map_or(at, |c| c.min(at)));
            }
            self.delayed.pop_first();
            if let Some(e) = self.entries.get_mut(&key) {
                e.timer = None;
            }
            self.add(key);
        }
        cool
    }

    /// Lets go of keys whose own writes are in the snapshot at `revision`.
    pub fn release(&mut self, revision: Revision) {
        self.released = revision.max(self.released);
        while let Some((at, _)) = self.held.first() {
            if *at > revision {
                break;
            }
            let Some((_, key)) = self.held.pop_first() else { break };
            let Some(e) = self.entries.get_mut(&key) else { continue };
            e.hold = 0;
            self.settle(&key);
        }
    }

    /// The key rests until `at`: changes until then bring it back only after.
    /// To be called before [`Queue::done`].
    pub fn cool(&mut self, key: &Key, at: Mono) {
        if let Some(e) = self.entries.get_mut(key)
            && !e.cooling
        {
            e.cooling = true;
            self.cooling.insert((at, key.clone()));
        }
    }

    /// Makes a key ready that was asked for and is free, or forgets it.
    fn settle(&mut self, key: &Key) {
        let Some(e) = self.entries.get_mut(key) else { return };
        if e.running || e.hold > 0 || e.cooling || e.queued {
            return;
        }
        if std::mem::take(&mut e.dirty) {
            e.queued = true;
            self.ready.push_back(key.clone());
        } else {
            self.forget_idle(key);
        }
    }

    /// The next key to work on and the error of its last attempt.
    pub fn pop(&mut self) -> Option<(Key, Option<WriteError>)> {
        let key = self.ready.pop_front()?;
        let e = self.entries.entry(key.clone()).or_default();
        e.queued = false;
        e.running = true;
        let error = e.error.clone();
        Some((key, error))
    }

    /// The key's work is over. `own` is the highest revision it wrote (0: none).
    pub fn done(&mut self, key: &Key, result: Result<(), WriteError>, own: Revision, now: Mono) {
        let Some(e) = self.entries.get_mut(key) else { return };
        e.running = false;
        if own > self.released {
            e.hold = own;
            self.held.insert((own, key.clone()));
        }
        match result {
            Ok(()) => {
                e.failures = 0;
                e.error = None;
                self.settle(key);
            }
            Err(error) => {
                let delay = RETRY_BASE.saturating_mul(1u32 << e.failures.min(18)).min(RETRY_MAX);
                e.failures = e.failures.saturating_add(1);
                e.error = Some(error);
                // The retry looks at everything anew.
                e.dirty = false;
                self.add_at(key.clone(), now + delay);
            }
        }
    }

    /// Ready, delayed and held keys.
    pub fn depth(&self) -> (usize, usize, usize) {
        (self.ready.len(), self.delayed.len(), self.held.len())
    }

    pub fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    fn forget_idle(&mut self, key: &Key) {
        if let Some(e) = self.entries.get(key)
            && !e.queued
            && !e.running
            && !e.dirty
            && e.hold == 0
            && !e.cooling
            && e.timer.is_none()
            && e.failures == 0
        {
            self.entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;

    fn key(n: &str) -> Key {
        Key::new("pods", Name::new("d", n))
    }

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    #[test]
    fn a_key_is_queued_once_and_again_when_it_changed_while_it_ran() {
        let mut q = Queue::default();
        q.add(key("a"));
        q.add(key("a"));
        assert_eq!(q.pop(), Some((key("a"), None)));
        assert_eq!(q.pop(), None);
        q.add(key("a"));
        assert_eq!(q.pop(), None, "it is running");
        q.done(&key("a"), Ok(()), 0, at(0));
        assert_eq!(q.pop(), Some((key("a"), None)));
        q.done(&key("a"), Ok(()), 0, at(0));
        assert!(q.entries.is_empty());
    }

    #[test]
    fn a_key_is_held_back_until_its_own_write_is_in_the_snapshot() {
        let mut q = Queue::default();
        q.add(key("a"));
        q.pop();
        q.done(&key("a"), Ok(()), 7, at(0));
        q.add(key("a"));
        q.release(6);
        assert_eq!(q.pop(), None);
        q.release(7);
        assert_eq!(q.pop(), Some((key("a"), None)));
        q.done(&key("a"), Ok(()), 7, at(0));
        assert!(q.entries.is_empty());
    }

    #[test]
    fn a_key_whose_write_reached_the_snapshot_while_it_ran_is_not_held() {
        let mut q = Queue::default();
        q.add(key("a"));
        q.pop();
        // The write's event is faster than its answer, and somebody else's change came with it.
        q.add(key("a"));
        q.release(7);
        q.done(&key("a"), Ok(()), 7, at(0));
        assert_eq!((q.depth(), q.pop()), ((1, 0, 0), Some((key("a"), None))));
    }

    #[test]
    fn retries_double_from_5_ms_to_1000_s_and_start_again_after_success() {
        let mut q = Queue::default();
        let failed = || Err(WriteError::Other("no".into()));
        let mut now = at(0);
        q.add(key("a"));
        let mut delays = Vec::new();
        for _ in 0..25 {
            assert!(q.pop().is_some());
            q.done(&key("a"), failed(), 0, now);
            let due = q.tick(now).unwrap();
            delays.push((due - now).as_millis());
            now = due;
            q.tick(now);
        }
        assert_eq!(delays[..4], [5, 10, 20, 40]);
        assert_eq!(delays[24], 1_000_000);
        assert_eq!(q.pop(), Some((key("a"), Some(WriteError::Other("no".into())))));
        q.done(&key("a"), Ok(()), 0, now);
        q.add(key("a"));
        q.pop();
        q.done(&key("a"), failed(), 0, now);
        assert_eq!(q.tick(now).unwrap() - now, RETRY_BASE);
    }

    #[test]
    fn a_key_that_cools_comes_back_once_for_all_that_happened_meanwhile() {
        let mut q = Queue::default();
        q.add(key("a"));
        q.pop();
        q.cool(&key("a"), at(100));
        q.done(&key("a"), Ok(()), 7, at(0));
        q.add(key("a"));
        q.add(key("a"));
        q.release(7);
        assert_eq!((q.pop(), q.tick(at(50))), (None, Some(at(100))));
        assert_eq!(q.tick(at(100)), None);
        assert_eq!((q.pop(), q.pop()), (Some((key("a"), None)), None));
        q.done(&key("a"), Ok(()), 0, at(100));
        assert!(q.entries.is_empty());
    }

    #[test]
    fn a_timer_is_only_ever_brought_forward() {
        let mut q = Queue::default();
        q.add_at(key("a"), at(100));
        q.add_at(key("a"), at(200));
        assert_eq!(q.tick(at(0)), Some(at(100)));
        q.add_at(key("a"), at(50));
        assert_eq!(q.tick(at(0)), Some(at(50)));
        assert_eq!(q.tick(at(60)), None);
        assert_eq!(q.depth(), (1, 0, 0));
    }
}
