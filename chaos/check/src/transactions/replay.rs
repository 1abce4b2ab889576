//! Each answer against the state that its revision names, and their order
//! against the clock: strict serializability over all keys.

use std::collections::HashMap;

use super::timeline::Timeline;
use super::{Answer, Kept, Request};
use crate::history::Violation;

/// Most violations that are reported.
const MAX_REPORTED: usize = 100;

/// Place of a request: its revision, and reads after the write there.
type Place = (u64, bool);

/// Checks what clients were told.
pub fn check_requests(requests: &[Request], timeline: &Timeline) -> Vec<Violation> {
    let mut found = Vec::new();
    answers(requests, timeline, &mut found);
    order(requests, timeline, &mut found);
    found.truncate(MAX_REPORTED);
    found
}

/// Replays, and stops at each revision to look at the answers that name it.
fn answers(requests: &[Request], timeline: &Timeline, found: &mut Vec<Violation>) {
    let mut by_revision: Vec<(u64, &Request)> =
        requests.iter().filter_map(|r| Some((timeline.revision_of(r).or_else(|| r.revision())?, r))).collect();
    by_revision.sort_by_key(|(revision, r)| (*revision, r.start));
    let mut steps = timeline.steps.iter().peekable();
    let mut held: HashMap<&str, Kept> = HashMap::new();
    for (revision, request) in by_revision {
        while let Some((_, changes)) = steps.next_if(|(at, _)| **at <= revision) {
            for step in changes {
                match step.after {
                    Some(kept) => held.insert(&step.key, kept),
                    None => held.remove(&*step.key),
                };
            }
        }
        match &request.answer {
            Answer::Saw { revision, found: saw } => {
                if *revision > timeline.last() {
                    let what = format!("answered at revision {revision}; the last one is {}", timeline.last());
                    found.push(Violation::Broken { watch: format!("client {}", request.client), what });
                }
                for (key, shown) in saw.iter().filter(|(key, shown)| held.get(&**key) != shown.as_ref()) {
                    let (watch, truth) = (format!("client {}", request.client), format!("{:?}", held.get(&**key)));
                    let shown = format!("{key} holding {shown:?}");
                    found.push(Violation::Untrue { watch, revision: *revision, shown, truth });
                }
                if let Some((key, guard)) = &request.guard
                    && held.get(&**key).map_or(0, |k| k.modified) == *guard
                {
                    found.push(Violation::Refused { key: key.to_string(), revision: *revision, guard: *guard });
                }
            }
            Answer::Wrote { .. } | Answer::Unknown => {
                let Some((key, guard)) = &request.guard else { continue };
                let Some(step) = timeline.step(revision, key) else { continue };
                let before = step.before.map_or(0, |k| k.modified);
                if before != *guard {
                    let (key, from) = (key.to_string(), *guard);
                    found.push(Violation::LostUpdate { key, from, revision, found: before });
                }
            }
        }
    }
}

/// Nothing comes before what was answered before it was asked.
fn order(requests: &[Request], timeline: &Timeline, found: &mut Vec<Violation>) {
    let mut placed: Vec<(Place, &Request)> = Vec::with_capacity(requests.len());
    for request in requests {
        match request.answer {
            Answer::Saw { revision, .. } => placed.push(((revision, true), request)),
            _ => placed.extend(timeline.revision_of(request).map(|revision| ((revision, false), request))),
        }
    }
    let mut ended: Vec<(Place, &Request)> =
        placed.iter().copied().filter(|(_, r)| r.answer != Answer::Unknown).collect();
    ended.sort_by_key(|(_, r)| r.end);
    placed.sort_by_key(|(_, r)| r.start);
    let mut ended = ended.into_iter().peekable();
    let mut last: Option<(Place, &Request)> = None;
    for (place, request) in placed {
        while let Some(e) = ended.next_if(|(_, e)| e.end < request.start) {
            if last.is_none_or(|(l, _)| l < e.0) {
                last = Some(e);
            }
        }
        if let Some((l, earlier)) = last
            && (place < l || (place == l && !place.1))
        {
            let key = request.writes.first().map_or_else(|| "a read".to_owned(), |(key, _)| key.to_string());
            found.push(Violation::Order { key, earlier: earlier.describe(), later: request.describe() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{history, kept, put, read, timeline, write};
    use super::*;

    fn check(extra: &[Request]) -> Vec<Violation> {
        let mut requests = history();
        requests.extend_from_slice(extra);
        let (timeline, _) = Timeline::collect(1, &requests, &[]);
        check_requests(&requests, &timeline)
    }

    #[test]
    fn reads_of_what_was_there_at_their_revision_are_right() {
        let old = read("a", Some(kept(1, 2, 2, 1)), 2, 5);
        let now = read("b", None, 5, 40);
        assert_eq!(check(&[old, now]), []);
    }

    #[test]
    fn a_read_that_shows_something_else_is_untrue() {
        let wrong = read("b", Some(kept(4, 4, 4, 1)), 5, 40);
        assert!(matches!(check(&[wrong])[..], [Violation::Untrue { revision: 5, .. }]));
        let version = read("a", Some(kept(3, 2, 4, 2)), 5, 40);
        assert!(matches!(check(&[version])[..], [Violation::Untrue { revision: 5, .. }]));
    }

    #[test]
    fn a_read_of_an_older_revision_than_one_answered_before_is_stale() {
        let stale = read("a", Some(kept(2, 2, 3, 2)), 3, 40);
        assert!(matches!(check(&[stale])[..], [Violation::Order { .. }]));
    }

    #[test]
    fn a_write_asked_after_a_later_revision_was_answered_is_out_of_order() {
        let mut requests = history();
        (requests[0].start, requests[0].end) = (50, 51);
        let timeline = timeline(&requests, &[]);
        assert!(matches!(check_requests(&requests, &timeline)[..], [Violation::Order { .. }]));
    }

    #[test]
    fn a_guard_that_did_not_hold_and_one_that_did_are_each_found() {
        let swap = |guard| Request { guard: Some(("a".into(), guard)), ..put("a", 9, 6, 40) };
        assert_eq!(check(&[swap(4)]), []);
        let lost = Violation::LostUpdate { key: "a".into(), from: 3, revision: 6, found: 4 };
        assert_eq!(check(&[swap(3)]), [lost]);
        let refused = |guard| Request {
            answer: Answer::Saw { revision: 5, found: vec![("a".into(), Some(kept(3, 2, 4, 3)))] },
            ..swap(guard)
        };
        assert_eq!(check(&[refused(3)]), []);
        assert_eq!(check(&[refused(4)]), [Violation::Refused { key: "a".into(), revision: 5, guard: 4 }]);
    }

    #[test]
    fn a_transaction_is_one_step_for_every_reader() {
        let half = write(&[], 0, 40);
        let answer = Answer::Saw { revision: 4, found: vec![("a".into(), Some(kept(3, 2, 4, 3))), ("b".into(), None)] };
        let half = Request { answer, start: 22, end: 23, ..half };
        assert!(matches!(check(&[half])[..], [Violation::Untrue { revision: 4, .. }]));
    }
}
