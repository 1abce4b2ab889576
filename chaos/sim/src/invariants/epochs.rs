//! Leader-only writes never go back to an older epoch, an epoch is acted on by
//! one scope at a time, and a replica that was overtaken stops acting soon.

use std::time::Duration;

use triarch_env::Mono;

use crate::history::{Acting, History};
use crate::log::Log;
use crate::tally::Tally;
use crate::workloads::leader::{self, epoch_of};

pub fn check(log: &Log, history: &History, tally: &Tally, max_age: Duration) {
    let mut highest = None;
    for (revision, entry) in log.entries.iter().filter(|(_, e)| e.key.resource() == leader::RESOURCE) {
        let Some(epoch) = entry.value.as_ref().and_then(|v| epoch_of(v)) else { continue };
        tally.checked("epoch-fence", 1);
        if Some(epoch) < highest {
            tally.violation("epoch-fence", format!("revision {revision} is of {epoch:?}, after one of {highest:?}"));
        }
        highest = highest.max(Some(epoch));
    }
    one_leader(history, tally, max_age);
}

/// How long process `life` was not paused between two moments.
fn awake(history: &History, life: u64, from: Mono, until: Mono) -> Duration {
    let mut awake = until - from;
    for (_, start, end) in history.pauses.iter().filter(|p| p.0 == life) {
        let (start, end) = ((*start).max(from), end.unwrap_or(until).min(until));
        awake = awake.saturating_sub(end - start);
    }
    awake
}

fn one_leader(history: &History, tally: &Tally, max_age: Duration) {
    let end = |a: &Acting| a.until.unwrap_or(Mono(Duration::MAX));
    for (n, new) in history.acting.iter().enumerate() {
        tally.checked("one-leader", 1);
        for old in &history.acting[..n] {
            let overlap = end(old).min(end(new)).since(new.from);
            if overlap.is_zero() {
                continue;
            }
            if old.epoch >= new.epoch || (old.replica, old.life) == (new.replica, new.life) {
                tally.violation("one-leader", format!("{old:?} and {new:?} at once"));
                continue;
            }
            // The old one may act until its last quorum ack is too old; the
            // quorum that elected the new one has given it none since.
            let limit = max_age + max_age / 2;
            let acted = awake(history, old.life, new.from, end(old).min(new.from + max_age * 20));
            if acted > limit {
                tally.violation("one-leader", format!("{old:?} acts {acted:?} beside {new:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use triarch_mvcc::Epoch;

    #[test]
    fn a_leader_that_acts_on_beside_its_successor_is_found_and_a_paused_one_is_not() {
        let t = |ms| Mono(Duration::from_millis(ms));
        let acting = |replica, term, from, until| Acting {
            replica,
            life: replica,
            epoch: Epoch { term, node: replica },
            from: t(from),
            until: Some(t(until)),
        };
        let violations = |acting: Vec<Acting>, pauses| {
            let (history, tally) = (History { acting, pauses, ..History::default() }, Tally::default());
            one_leader(&history, &tally, Duration::from_millis(500));
            tally.counts().violations.len()
        };
        let both = || vec![acting(1, 1, 0, 2000), acting(2, 2, 1000, 3000)];
        assert_eq!(violations(both(), vec![]), 1);
        assert_eq!(violations(both(), vec![(1, t(900), Some(t(1900)))]), 0);
        assert_eq!(violations(vec![acting(1, 1, 0, 1400), acting(2, 2, 1000, 3000)], vec![]), 0);
        assert_eq!(violations(vec![acting(1, 1, 0, 1400), acting(2, 1, 1000, 3000)], vec![]), 0, "ordered by node");
        assert_eq!(
            violations(vec![acting(2, 2, 0, 1400), acting(1, 2, 1000, 3000)], vec![]),
            1,
            "an older epoch later"
        );
    }
}
