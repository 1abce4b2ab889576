//! Requests as operations of single keys, for the search that does not trust
//! revisions.

use super::{Answer, Request};
use crate::history::{Action, Operation, Outcome};

/// What each request did to the keys that `wanted` names.
pub fn operations(requests: &[Request], wanted: impl Fn(&str) -> bool) -> Vec<Operation> {
    let mut all = Vec::new();
    for request in requests {
        let operation = |key: &str, action, outcome| {
            let (client, start, end) = (request.client, request.start, request.end);
            Operation { client, key: key.to_owned(), action, outcome, start, end }
        };
        if let Answer::Saw { found, .. } = &request.answer {
            for (key, kept) in found.iter().filter(|(key, _)| wanted(key)) {
                let outcome = Outcome::Ok { revision: kept.map_or(0, |k| k.modified), value: kept.map(|k| k.value) };
                all.push(operation(key, Action::Read, outcome));
            }
            continue;
        }
        let outcome = match request.answer {
            Answer::Wrote { revision } => Outcome::Ok { revision, value: None },
            _ => Outcome::Unknown,
        };
        // In a transaction a removal may have found nothing: it tells no more than an unknown one.
        let alone = request.writes.len() == 1;
        for (key, value) in request.writes.iter().filter(|(key, _)| wanted(key)) {
            let guard = request.guard.as_ref().filter(|(guarded, _)| guarded == key);
            all.push(match (value, guard) {
                (Some(v), Some((_, 0))) => operation(key, Action::Create(*v), outcome),
                (Some(v), Some((_, from))) => operation(key, Action::Swap { from: *from, to: *v }, outcome),
                (Some(v), None) => operation(key, Action::Write(*v), outcome),
                (None, _) if alone => operation(key, Action::Delete, outcome),
                (None, _) => operation(key, Action::Delete, Outcome::Unknown),
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::examples::{history, kept, put, read};
    use super::*;
    use crate::search::{self, Verdict};

    fn verdicts(extra: Request) -> BTreeMap<String, Verdict> {
        let mut requests = history();
        requests.push(extra);
        search::check(&operations(&requests, |_| true), &BTreeMap::new(), 10_000)
    }

    #[test]
    fn the_search_reads_transactions_key_by_key() {
        let good = verdicts(read("b", None, 5, 40));
        assert!(good.len() == 2 && good.values().all(|v| *v == Verdict::Linearizable), "{good:?}");
        let stale = verdicts(read("a", Some(kept(2, 2, 3, 2)), 3, 40));
        assert_eq!((stale["a"], stale["b"]), (Verdict::Not, Verdict::Linearizable));
    }

    #[test]
    fn a_creation_where_something_is_has_no_order() {
        let create = Request { guard: Some(("a".into(), 0)), ..put("a", 9, 6, 40) };
        assert_eq!(verdicts(create)["a"], Verdict::Not);
    }

    #[test]
    fn keys_that_are_not_wanted_are_left_out() {
        assert!(operations(&history(), |key| key == "b").iter().all(|o| o.key == "b"));
    }
}
