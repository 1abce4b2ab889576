//! Linearizability, with revisions as the witness.
//!
//! The store claims an order: its revisions. A history is linearizable when
//! that order is a legal sequential history (each read and each failed guard
//! says what stood at its point) and respects real time (an operation that
//! began after another had ended has no earlier point). Both are checked for
//! all keys together, which is stricter than for each.

use bytes::Bytes;
use triarch_env::Mono;
use triarch_mvcc::{Key, Revision};

use crate::history::{Answer, History};
use crate::log::Log;
use crate::tally::Tally;

/// An operation with its point in the order.
struct Point {
    invoked: Mono,
    /// `None`: it was not heard of again.
    returned: Option<Mono>,
    at: Revision,
    writes: bool,
    what: String,
}

pub fn check(log: &Log, history: &History, tally: &Tally) {
    let mut points: Vec<Point> = Vec::new();
    let at_value =
        |key: &Key, value: &Bytes| log.of(key).iter().copied().find(|r| log.entries[r].value.as_ref() == Some(value));
    for w in &history.writes {
        let at = match &w.answer {
            Answer::Done(revisions) => revisions.iter().copied().filter(|r| *r > 0).min(),
            // It may have been made: then the order must allow for it.
            Answer::Unknown => w.keys.iter().find_map(|(k, v)| at_value(k, v.as_ref()?)),
            Answer::Guard { .. } | Answer::Refused => None,
        };
        let Some(at) = at else { continue };
        let returned = w.returned.filter(|_| matches!(w.answer, Answer::Done(_)));
        points.push(Point {
            invoked: w.invoked,
            returned,
            at,
            writes: true,
            what: format!("{} wrote {:?}", w.client, w.keys),
        });
    }
    for r in &history.reads {
        tally.checked("reads", r.found.len() as u64);
        for (key, found) in &r.found {
            let there = log.at(key, r.at).map(|(rev, value)| (rev, value.clone()));
            if &there != found {
                tally.violation(
                    "reads",
                    format!("{} read {key:?}={found:?} at revision {}, where {there:?} stood", r.client, r.at),
                );
            }
        }
        let what = format!("{} read {:?}", r.client, r.found);
        points.push(Point { invoked: r.invoked, returned: Some(r.returned), at: r.at, writes: false, what });
    }
    real_time(&mut points, tally);
    guards(log, history, &points, tally);
}

/// The highest point of all operations that ended before each one began is
/// before its own.
fn real_time(points: &mut [Point], tally: &Tally) {
    points.sort_by_key(|p| p.invoked);
    let mut ended: Vec<(Mono, Revision, usize)> =
        points.iter().enumerate().filter_map(|(n, p)| Some((p.returned?, p.at, n))).collect();
    ended.sort_unstable();
    let (mut next, mut high, mut by) = (0, 0, 0);
    for p in points.iter() {
        while next < ended.len() && ended[next].0 < p.invoked {
            if ended[next].1 > high {
                (high, by) = (ended[next].1, ended[next].2);
            }
            next += 1;
        }
        tally.checked("linearizable", 1);
        if p.at < high || (p.writes && p.at == high) {
            tally.violation(
                "linearizable",
                format!(
                    "{} at revision {}, although before it began ({:?}) {} had been at {high}",
                    p.what, p.at, p.invoked.0, points[by].what
                ),
            );
        }
    }
}

/// A guard that did not hold told the truth about some moment of its request.
fn guards(log: &Log, history: &History, points: &[Point], tally: &Tally) {
    let mut ended: Vec<(Mono, Revision)> = points.iter().filter_map(|p| Some((p.returned?, p.at))).collect();
    ended.sort_unstable();
    // The highest point among the first n that ended.
    let highest: Vec<Revision> = std::iter::once(0)
        .chain(ended.iter().scan(0, |high, (_, at)| {
            *high = (*high).max(*at);
            Some(*high)
        }))
        .collect();
    for w in &history.writes {
        let Answer::Guard { key, found, head } = &w.answer else { continue };
        let low = highest[ended.partition_point(|(at, _)| *at < w.invoked)];
        let at = |r: Revision| log.at(key, r).map(|(rev, _)| rev);
        let changes = log.of(key).iter().copied().filter(|r| *r > low && r <= head);
        let told = std::iter::once(low).chain(changes).any(|r| at(r) == *found);
        tally.checked("guards", 1);
        if !told {
            tally.violation(
                "guards",
                format!(
                    "{} was told that {key:?} was last written at {found:?}, between {low} and {head} it never was",
                    w.client
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn point(invoked: u64, returned: u64, at: Revision, writes: bool) -> Point {
        let t = |s| Mono(Duration::from_secs(s));
        Point { invoked: t(invoked), returned: Some(t(returned)), at, writes, what: String::new() }
    }

    fn holds(mut points: Vec<Point>) -> bool {
        let tally = Tally::default();
        real_time(&mut points, &tally);
        tally.counts().violations.is_empty()
    }

    #[test]
    fn an_order_against_real_time_is_found_and_a_concurrent_one_is_not() {
        assert!(holds(vec![point(0, 10, 5, true), point(1, 2, 4, false)]), "concurrent");
        assert!(!holds(vec![point(0, 1, 5, true), point(2, 3, 4, false)]), "a stale read");
        assert!(!holds(vec![point(0, 1, 5, false), point(2, 3, 5, true)]), "a read from the future");
        assert!(holds(vec![point(0, 1, 5, true), point(2, 3, 5, false), point(4, 5, 6, true)]));
    }
}
