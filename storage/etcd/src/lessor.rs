//! What only a leader knows of leases: how much of their time is left.
//!
//! ```text
//!   every replica                            the leader
//!   KeepAlive ─► Cluster::ask_leader ──────► Lessor::answer ─► barrier ─► Deadlines
//!                                            Lessor::lead ─► due ─► Txn { epoch, revoke } ─► log
//! ```
//!
//! Renewing writes nothing. A renewal is answered after a read barrier that began
//! after the question, so that no other leader can have taken over before it; and
//! whoever takes over gives every lease its whole time anew. Revoking is a
//! leader-only write: it names the epoch, and the lease as it was granted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use parking_lot::Mutex;
use triarch_env::{Env, Mono};
use triarch_mvcc::{
    Db, Epoch, Event, FacadeLease, FacadeOp, FacadeTxn, Guard, LEASE_RESOURCE, Op, Prefix, Txn, TxnOutcome, Watcher,
    lease_event, lease_key,
};

use crate::deadlines::Deadlines;

/// Leases revoked at once; the next follow when these are done.
const BATCH: usize = 128;
/// Events of leases taken at a time.
const EVENTS: usize = 1024;
/// After this a revocation that was not made is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Looked at again after this, when there is no lease at all.
const IDLE: Duration = Duration::from_secs(3600);

/// What a replica asks the leader about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Renew(i64),
    Remaining(i64),
}

impl Question {
    pub fn encode(self) -> Bytes {
        let (kind, id) = match self {
            Question::Renew(id) => (0u8, id),
            Question::Remaining(id) => (1, id),
        };
        [&[kind][..], &id.to_le_bytes()].concat().into()
    }

    fn decode(bytes: &[u8]) -> Option<Question> {
        let (kind, id) = bytes.split_first()?;
        let id = i64::from_le_bytes(id.try_into().ok()?);
        match kind {
            0 => Some(Question::Renew(id)),
            1 => Some(Question::Remaining(id)),
            _ => None,
        }
    }
}

/// The leader's answer: of a lease that is there, its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    /// Whole seconds that are left.
    pub left: i64,
    /// Seconds that it was granted for.
    pub granted: i64,
}

pub(crate) fn encode(time: Option<Time>) -> Bytes {
    match time {
        Some(t) => [t.left.to_le_bytes(), t.granted.to_le_bytes()].concat().into(),
        None => Bytes::new(),
    }
}

/// `None`: the bytes are no answer.
pub(crate) fn decode(bytes: &[u8]) -> Option<Option<Time>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let (left, granted) = bytes.split_first_chunk::<8>()?;
    let granted = i64::from_le_bytes(granted.try_into().ok()?);
    Some(Some(Time { left: i64::from_le_bytes(*left), granted }))
}

/// Who keeps the time of leases while this replica leads.
pub struct Lessor {
    db: Arc<dyn Db>,
    env: Env,
    leads: Box<dyn Fn() -> Option<Epoch> + Send + Sync>,
    /// Of the leadership that is being served.
    term: Mutex<Option<(Epoch, Deadlines)>>,
}

impl Lessor {
    /// `leads` says this replica's own leadership while it may act on it.
    pub fn new(db: Arc<dyn Db>, env: Env, leads: impl Fn() -> Option<Epoch> + Send + Sync + 'static) -> Arc<Lessor> {
        Arc::new(Lessor { db, env, leads: Box::new(leads), term: Mutex::new(None) })
    }

    fn with<T>(&self, epoch: Epoch, work: impl FnOnce(&mut Deadlines, Mono) -> T) -> Option<T> {
        let mut term = self.term.lock();
        let (of, deadlines) = term.as_mut()?;
        (*of == epoch).then(|| work(deadlines, self.env.mono()))
    }

    /// Answers another replica's question, or this one's own; `None` when this
    /// replica does not lead, and another should be asked.
    pub async fn answer(&self, question: &[u8]) -> Option<Bytes> {
        let question = Question::decode(question)?;
        let epoch = (self.leads)()?;
        self.db.read_barrier().await.ok()?;
        // The barrier was this leadership's own, unless that is over.
        if (self.leads)() != Some(epoch) {
            return None;
        }
        let (Question::Renew(id) | Question::Remaining(id)) = question;
        let Some(lease) = self.db.mvcc().lease(id) else { return Some(encode(None)) };
        self.with(epoch, |deadlines, now| {
            // Its event may not have come here yet.
            deadlines.granted(lease, now);
            if question == Question::Renew(id) && !deadlines.renew(id, now) {
                return encode(None);
            }
            let left = deadlines.remaining(id, now);
            encode(left.map(|left| Time { left: left.as_secs() as i64, granted: lease.ttl }))
        })
    }

    /// Ends leases whose time is over, until the leadership `epoch` ends and
    /// this is dropped. Every lease has its whole time from when this begins.
    pub async fn lead(self: Arc<Self>, epoch: Epoch) {
        let _end = Begun::begin(&self, epoch);
        loop {
            let (leases, revision) = self.db.mvcc().leases();
            self.with(epoch, |d, now| d.replace(&leases, now));
            if let Ok(watcher) = self.db.mvcc().watch(Prefix::resource(LEASE_RESOURCE), revision) {
                self.follow(watcher, epoch).await;
            }
            tracing::debug!("the watch of leases fell behind; looking at all of them");
        }
    }

    /// Returns when the watch has lost something.
    async fn follow(&self, mut watcher: Watcher, epoch: Epoch) {
        loop {
            loop {
                match watcher.try_next(EVENTS) {
                    Ok(events) if events.is_empty() => break,
                    Ok(events) => self.learn(epoch, &events),
                    Err(_) => return,
                }
            }
            let Some((due, next)) = self.with(epoch, |d, now| (d.due(now, BATCH), d.next())) else { return };
            if !due.is_empty() {
                join_all(due.iter().map(|lease| self.end(lease, epoch))).await;
                continue;
            }
            let pause = next.map_or(IDLE, |at| at.since(self.env.mono()));
            futures::select_biased! {
                events = watcher.next(EVENTS).fuse() => match events {
                    Ok(events) => self.learn(epoch, &events),
                    Err(_) => return,
                },
                () = self.env.sleep(pause).fuse() => {}
            }
        }
    }

    fn learn(&self, epoch: Epoch, events: &[Arc<Event>]) {
        self.with(epoch, |deadlines, now| {
            for e in events {
                match lease_event(e) {
                    Some((_, Some(lease))) => deadlines.granted(lease, now),
                    Some((id, None)) => deadlines.revoked(id),
                    None => {}
                }
            }
        });
    }

    async fn end(&self, lease: &FacadeLease, epoch: Epoch) {
        let revoke = FacadeTxn { success: vec![FacadeOp::Revoke(lease.id)], ..FacadeTxn::default() };
        let txn = Txn {
            guards: vec![Guard::ModRevision(lease_key(lease.id), lease.revision)],
            ops: vec![Op::Facade(revoke)],
            epoch: Some(epoch),
        };
        match self.db.commit(txn).await.map(|c| c.outcome) {
            // Ended now, or by somebody else before: the watch tells.
            Ok(TxnOutcome::Facade(_) | TxnOutcome::GuardFailed { .. }) => {}
            other => {
                tracing::debug!(lease = lease.id, ?other, "a lease was not ended; trying again");
                self.with(epoch, |d, now| d.again(lease, now + RETRY));
            }
        }
    }
}

/// A leadership that is being served; gone with it.
struct Begun<'l>(&'l Lessor, Epoch);

impl<'l> Begun<'l> {
    fn begin(lessor: &'l Lessor, epoch: Epoch) -> Begun<'l> {
        *lessor.term.lock() = Some((epoch, Deadlines::default()));
        Begun(lessor, epoch)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut term = self.0.term.lock();
        if term.as_ref().is_some_and(|(epoch, _)| *epoch == self.1) {
            *term = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_come_over_the_wire_as_they_were() {
        for q in [Question::Renew(i64::MIN), Question::Remaining(7)] {
            assert_eq!(Question::decode(&q.encode()), Some(q));
        }
        assert_eq!(Question::decode(b""), None);
        assert_eq!(Question::decode(b"\x09aaaaaaaa"), None);
        for a in [None, Some(Time { left: 0, granted: 9 }), Some(Time { left: -1, granted: i64::MAX })] {
            assert_eq!(decode(&encode(a)), Some(a));
        }
        assert_eq!(decode(b"short"), None);
    }
}
