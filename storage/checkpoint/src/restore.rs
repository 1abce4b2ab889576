//! Reading a whole checkpoint back, and believing it only when it adds up.

use std::sync::Arc;

use crate::codec::{self, StoredObject, Totals};
use crate::error::CheckpointError;
use crate::kv::Kv;

/// Objects in the order of their keys. What was read may be used only when the
/// last page has come without an error.
pub struct Pages {
    kv: Option<Arc<dyn Kv>>,
    after: Vec<u8>,
    partial: Option<Partial>,
    expected: Totals,
    seen: Totals,
}

/// A record of which some chunks have come.
struct Partial {
    prefix: Vec<u8>,
    record: Vec<u8>,
    len: usize,
    next: u32,
}

impl Pages {
    pub(crate) fn new(kv: Arc<dyn Kv>, expected: Totals) -> Pages {
        // Behind every key of the header.
        let after = codec::chunk_key(codec::ROOT_PREFIX, u32::MAX);
        Pages { kv: Some(kv), after, partial: None, expected, seen: Totals::default() }
    }

    pub(crate) fn empty() -> Pages {
        let (expected, seen) = (Totals::default(), Totals::default());
        Pages { kv: None, after: Vec::new(), partial: None, expected, seen }
    }

    /// About `max_bytes` of objects; `None` after the last, when the totals agree.
    pub fn next_page(&mut self, max_bytes: usize) -> Result<Option<Vec<StoredObject>>, CheckpointError> {
        let mut page = Vec::new();
        while let Some(kv) = &self.kv {
            let pairs = kv.scan(Some(&self.after), max_bytes).map_err(CheckpointError::io("read a page"))?;
            let Some((last, _)) = pairs.last() else {
                self.kv = None;
                if let Some(p) = &self.partial {
                    return Err(codec::lost("a record lacks a part", &p.prefix));
                }
                self.expected.check(&self.seen)?;
                break;
            };
            self.after = last.clone();
            for (key, value) in pairs {
                page.extend(self.take(&key, value)?);
            }
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    fn take(&mut self, key: &[u8], value: Vec<u8>) -> Result<Option<StoredObject>, CheckpointError> {
        let (prefix, chunk) = codec::split_key(key).ok_or_else(|| codec::lost("a key is no record's", key))?;
        match &mut self.partial {
            Some(p) if p.prefix == prefix && p.next == chunk => {
                p.next += 1;
                p.record.extend(value);
            }
            Some(p) => return Err(codec::lost("a record lacks a part", &p.prefix)),
            None if chunk == 0 => {
                let len = codec::record_len(&value).ok_or_else(|| codec::lost("a record has no envelope", prefix))?;
                self.partial = Some(Partial { prefix: prefix.to_vec(), record: value, len, next: 1 });
            }
            None => return Err(codec::lost("a record lacks its beginning", prefix)),
        }
        let Some(whole) = self.partial.take_if(|p| p.record.len() >= p.len) else { return Ok(None) };
        let object = codec::decode_object(&whole.prefix, &whole.record)?;
        codec::weight(&whole.prefix, &whole.record).into_iter().for_each(|w| self.seen.add(w));
        Ok(Some(object))
    }
}
