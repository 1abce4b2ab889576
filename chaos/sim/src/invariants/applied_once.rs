//! A proposal is applied at most once, however often it was sent: no value that
//! a client sent in one request stands at two revisions, and no write stands in
//! the log that was certainly refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use triarch_mvcc::{Key, Revision};

use crate::history::{Answer, History};
use crate::log::Log;
use crate::tally::Tally;

pub fn check(log: &Log, history: &History, tally: &Tally) {
    let mut seen: BTreeMap<(&Key, &Bytes), Vec<Revision>> = BTreeMap::new();
    for (revision, entry) in &log.entries {
        if let Some(value) = &entry.value {
            seen.entry((&entry.key, value)).or_default().push(*revision);
        }
    }
    for write in &history.writes {
        for (key, value) in &write.keys {
            let Some(value) = value else { continue };
            let at = seen.get(&(key, value)).map_or(&[][..], Vec::as_slice);
            tally.checked("applied-once", 1);
            if at.len() > 1 {
                tally.violation("applied-once", format!("{key:?}={value:?} of {} stands at {at:?}", write.client));
            }
            let refused = matches!(write.answer, Answer::Refused | Answer::Guard { .. });
            if refused && !at.is_empty() {
                tally.violation(
                    "applied-once",
                    format!(
                        "{key:?}={value:?} of {} was refused ({:?}) and stands at {at:?}",
                        write.client, write.answer
                    ),
                );
            }
        }
    }
}
