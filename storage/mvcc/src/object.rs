//! A stored object: canonical bytes with a slot for `resourceVersion`, and the
//! little that selectors, owners, finalizers and indexes need.

use std::sync::{Arc, LazyLock};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::Revision;

/// Width of the `resourceVersion` slot, from its opening quote: two quotes and
/// 20 digits. A shorter number is padded with spaces *after* the closing quote.
pub const RV_SLOT_LEN: usize = 22;

/// The bytes as they will be served, without what stands before `"metadata"`
/// (a header per group, version and kind is written in front), or, for system
/// state and the etcd facade, plain bytes without a slot.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// For API objects: `"metadata":{…},"spec":{…},…}` (starts at `"metadata"`,
    /// includes the final brace). The slot holds spaces.
    pub bytes: Bytes,
    /// Offset of the slot's opening quote in `bytes`.
    pub slot: Option<u32>,
    pub meta: Arc<Meta>,
}

/// The parsed metadata kept beside the bytes. It travels in the entry, so that
/// apply parses nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub uid: Box<str>,
    /// Sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    pub owners: Box<[OwnerRef]>,
    /// The kind's selectable fields beyond metadata.name and metadata.namespace,
    /// in the order in which the kind declares them, as field selectors see them.
    pub fields: Box<[Box<str>]>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    pub has_finalizers: bool,
    pub generation: i64,
}

/// An owner reference, as far as garbage collection needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRef {
    pub uid: Box<str>,
    pub controller: bool,
    pub block_deletion: bool,
}

impl Meta {
    /// Bytes that it takes, roughly.
    pub(crate) fn weight(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(k, v)| k.len() + v.len() + 4).sum();
        let owners: usize = self.owners.iter().map(|o| o.uid.len() + 4).sum();
        let fields: usize = self.fields.iter().map(|f| f.len() + 2).sum();
        self.uid.len() + labels + owners + fields
    }
}

impl Object {
    /// Plain bytes: system state and the etcd facade.
    pub fn plain(bytes: impl Into<Bytes>) -> Object {
        static NOTHING: LazyLock<Arc<Meta>> = LazyLock::new(Arc::default);
        Object { bytes: bytes.into(), slot: None, meta: NOTHING.clone() }
    }

    /// Copies the object to `out` with `revision` in its slot, at the cost of
    /// one copy and no encoding.
    pub fn write_to(&self, out: &mut BytesMut, revision: Revision) {
        let start = out.len();
        out.put_slice(&self.bytes);
        if let Some(slot) = self.slot {
            let at = start + slot as usize;
            write_slot(&mut out[at..at + RV_SLOT_LEN], revision);
        }
    }

    /// The object's bytes with `revision` in its slot.
    pub fn served(&self, revision: Revision) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes.len());
        self.write_to(&mut out, revision);
        out.freeze()
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Object({} B, {})",
            self.bytes.len(),
            String::from_utf8_lossy(&self.bytes[..self.bytes.len().min(120)])
        )
    }
}

/// Fills a slot: `"123"` and spaces.
fn write_slot(slot: &mut [u8], revision: Revision) {
    let mut digits = [0u8; 20];
    let (mut n, mut at) = (revision, digits.len());
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    let text = &digits[at..];
    slot.fill(b' ');
    slot[0] = b'"';
    slot[1..=text.len()].copy_from_slice(text);
    slot[text.len() + 1] = b'"';
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_takes_any_revision_without_moving_a_byte() {
        let text = format!("\"metadata\":{{\"resourceVersion\":{}}}}}", " ".repeat(RV_SLOT_LEN));
        let slot = text.find("  ").unwrap() as u32;
        let o = Object { bytes: text.into(), slot: Some(slot), meta: Arc::default() };
        for rev in [0, 7, 12_345, u64::MAX] {
            let v: serde_json::Value = serde_json::from_slice(&[b"{", &o.served(rev)[..]].concat()).unwrap();
            assert_eq!(v["metadata"]["resourceVersion"], rev.to_string());
            assert_eq!(o.served(rev).len(), o.bytes.len());
        }
    }
}
