//! No acknowledged write is lost: at the revision that its client was told
//! stands exactly what it wrote.

use crate::history::{Answer, History};
use crate::log::Log;
use crate::tally::Tally;

pub fn check(log: &Log, history: &History, tally: &Tally) {
    for write in &history.writes {
        let Answer::Done(revisions) = &write.answer else { continue };
        for ((key, value), revision) in write.keys.iter().zip(revisions) {
            tally.checked("acked", 1);
            let found = log.entries.get(revision);
            // A delete of nothing is told 0 and leaves no trace.
            let nothing = *revision == 0 && value.is_none();
            if !nothing && found.is_none_or(|e| (&e.key, &e.value) != (key, value)) {
                tally.violation(
                    "acked",
                    format!(
                        "{} was told that {key:?}={value:?} is revision {revision}, where {found:?} is",
                        write.client
                    ),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::WriteOp;
    use crate::log::Entry;
    use triarch_env::Mono;
    use triarch_mvcc::Key;

    #[test]
    fn a_write_that_was_acknowledged_and_is_not_there_is_found() {
        let (mut log, mut history, tally) = (Log::default(), History::default(), Tally::default());
        let key = Key::new("r", "d", "k");
        let value = Some(bytes::Bytes::from_static(b"1"));
        let (at, written) = (key.clone(), value.clone());
        let entry = Entry { key: at, value: written, slot: None, prev: None, prev_revision: 0, create_revision: 1 };
        log.entries.insert(1, entry);
        let op = |revision| WriteOp {
            client: "c".into(),
            invoked: Mono::default(),
            returned: Some(Mono::default()),
            keys: vec![(key.clone(), value.clone())],
            answer: Answer::Done(vec![revision]),
        };
        history.writes.push(op(1));
        check(&log, &history, &tally);
        assert!(tally.counts().violations.is_empty());
        history.writes.push(op(2));
        check(&log, &history, &tally);
        assert_eq!(tally.counts().violations.len(), 1);
    }
}
