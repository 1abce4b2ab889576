//! Format 1 of the checkpoint's records: an envelope round a bincode body.
//!
//! ```text
//!  0      4       5     6         8       12      16      20
//!  │magic │format │type │reserved │key id │length │crc32c │body …
//! ```
//!
//! The checksum starts from the record's key, so that a value under another key
//! is noticed. Records longer than [`CHUNK`] are cut, because sled puts values
//! above about 100 KiB into files that it leaks. Keys:
//!
//! ```text
//!  0x00 chunk:u32be                    the header
//!  0x01 resource NUL ns NUL name NUL chunk:u32be   an object
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use triarch_mvcc::{Key, Object, Revision};

use crate::error::CheckpointError;

/// Bytes of a value at most.
pub(crate) const CHUNK: usize = 16 << 10;
/// Bytes of a record at most.
pub(crate) const MAX_RECORD: usize = 64 << 20;
const ENVELOPE: usize = 20;
const MAGIC: [u8; 4] = *b"TrCp";
const FORMAT: u8 = 1;
const BODY: bincode::config::Configuration = bincode::config::standard();

/// The last log entry whose effects are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AppliedLog {
    pub index: u64,
    pub term: u64,
    pub node: u64,
}

/// What is true of the checkpoint as a whole; replaced with every batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub cluster_id: String,
    pub node_id: u64,
    /// The store's revision counter at this state.
    pub revision: Revision,
    /// The compaction floor at this state.
    pub compacted: Revision,
    pub applied: Option<AppliedLog>,
    /// Opaque here.
    pub membership: Bytes,
    pub dedup: Bytes,
    pub feature_level: u32,
    pub chain_hash: u64,
}

/// A live object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    pub key: Key,
    pub object: Object,
    pub create_revision: Revision,
    pub mod_revision: Revision,
}

/// The header and what the store itself keeps with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    pub header: Header,
    pub totals: Totals,
}

/// Sums over all objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub objects: u64,
    /// Of records with their keys.
    pub bytes: u64,
    pub digest: u64,
}

/// One object's part of the totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weight {
    pub bytes: u64,
    pub digest: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, w: Weight) {
        self.objects = self.objects.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(w.bytes);
        self.digest = self.digest.wrapping_add(w.digest);
    }

    pub(crate) fn remove(&mut self, w: Weight) {
        self.objects = self.objects.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub(w.bytes);
        self.digest = self.digest.wrapping_sub(w.digest);
    }
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum Type {
    Root = 1,
    Object = 2,
}

pub(crate) const ROOT_PREFIX: &[u8] = &[0];

/// The key of an object's records, without the chunk.
pub(crate) fn object_prefix(key: &Key) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.as_bytes().len() + 6);
    out.push(1);
    out.extend_from_slice(key.as_bytes());
    out.push(0);
    out
}

pub(crate) fn chunk_key(prefix: &[u8], chunk: u32) -> Vec<u8> {
    [prefix, &chunk.to_be_bytes()].concat()
}

/// Splits a stored key; `None` when it is not one.
pub(crate) fn split_key(key: &[u8]) -> Option<(&[u8], u32)> {
    let (prefix, chunk) = key.split_last_chunk::<4>()?;
    Some((prefix, u32::from_be_bytes(*chunk)))
}

pub(crate) fn encode_object(
    prefix: &[u8],
    create: Revision,
    modified: Revision,
    object: &Object,
) -> Result<Vec<u8>, CheckpointError> {
    encode(Type::Object, prefix, &(create, modified, object))
}

pub(crate) fn encode_root(root: &Root) -> Result<Vec<u8>, CheckpointError> {
    encode(Type::Root, ROOT_PREFIX, root)
}

fn encode(kind: Type, prefix: &[u8], body: &impl Serialize) -> Result<Vec<u8>, CheckpointError> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[FORMAT, kind as u8, 0, 0]);
    out.extend_from_slice(&[0; 12]); // key id, length, checksum
    bincode::serde::encode_into_std_write(body, &mut out, BODY)
        .map_err(|e| CheckpointError::Io { action: "encode a record", source: std::io::Error::other(e) })?;
    if out.len() > MAX_RECORD {
        return Err(CheckpointError::TooLarge { size: out.len(), limit: MAX_RECORD });
    }
    let len = (out.len() - ENVELOPE) as u32;
    out[12..16].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(prefix, &out);
    out[16..20].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

fn checksum(prefix: &[u8], record: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(prefix), &record[..16]);
    crc32c::crc32c_append(crc, &record[ENVELOPE..])
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

/// Length of the whole record whose first chunk is `b`.
pub(crate) fn record_len(b: &[u8]) -> Option<usize> {
    let len = (b.len() >= ENVELOPE && b[..4] == MAGIC).then(|| u32_at(b, 12) as usize + ENVELOPE)?;
    (len <= MAX_RECORD).then_some(len)
}

/// An object's part of the totals, from the first chunk of its record.
pub(crate) fn weight(prefix: &[u8], first_chunk: &[u8]) -> Option<Weight> {
    let len = record_len(first_chunk)?;
    let mut x = u64::from(crc32c::crc32c(prefix)) << 32 | u64::from(u32_at(first_chunk, 16));
    // Spread, so that sums of related checksums do not cancel out.
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(Weight { bytes: (len + prefix.len()) as u64, digest: x ^ x >> 31 })
}

pub(crate) fn decode_root(record: &[u8]) -> Result<Root, CheckpointError> {
    decode(Type::Root, ROOT_PREFIX, record)
}

pub(crate) fn decode_object(prefix: &[u8], record: &[u8]) -> Result<StoredObject, CheckpointError> {
    let (create_revision, mod_revision, object) = decode::<(Revision, Revision, Object)>(Type::Object, prefix, record)?;
    let key = prefix.strip_prefix(&[1]).and_then(|k| k.strip_suffix(&[0])).map(Bytes::copy_from_slice);
    let key = key.and_then(Key::from_bytes).ok_or_else(|| lost("a key is not an object's", prefix))?;
    Ok(StoredObject { key, object, create_revision, mod_revision })
}

pub(crate) fn lost(what: &str, prefix: &[u8]) -> CheckpointError {
    CheckpointError::Lost(format!("{what} (record {})", String::from_utf8_lossy(prefix).escape_debug()))
}

fn decode<T: for<'de> Deserialize<'de>>(kind: Type, prefix: &[u8], record: &[u8]) -> Result<T, CheckpointError> {
    if record_len(record) != Some(record.len()) {
        return Err(lost("a record is incomplete", prefix));
    }
    if checksum(prefix, record) != u32_at(record, 16) {
        return Err(lost("a record's checksum does not match", prefix));
    }
    if record[4] != FORMAT {
        let text = format!("record format {}; this version reads format {FORMAT}", record[4]);
        return Err(CheckpointError::Unsupported(text));
    }
    if u32_at(record, 8) != 0 || record[5] != kind as u8 {
        let text = format!("a record of type {}, key {}", record[5], u32_at(record, 8));
        return Err(CheckpointError::Unsupported(text));
    }
    match bincode::serde::decode_from_slice(&record[ENVELOPE..], BODY) {
        Ok((value, used)) if used == record.len() - ENVELOPE => Ok(value),
        _ => Err(lost("a record does not decode", prefix)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use triarch_mvcc::{Meta, OwnerRef};

    fn object() -> (Key, Object) {
        let meta = Meta {
            uid: "u-1".into(),
            labels: Box::new([("app".into(), "web".into())]),
            owners: Box::new([OwnerRef { uid: "o-1".into(), controller: true, block_deletion: false }]),
            fields: Box::new(["node-1".into()]),
            deleting: false,
            has_finalizers: true,
            generation: 3,
        };
        let object = Object { bytes: b"\"metadata\":{}}".as_slice().into(), slot: Some(4), meta: Arc::new(meta) };
        (Key::new("pods", "default", "a"), object)
    }

    fn root() -> Root {
        let header = Header {
            cluster_id: "c".into(),
            node_id: 2,
            revision: 1000,
            compacted: 500,
            applied: Some(AppliedLog { index: 40, term: 3, node: 1 }),
            membership: b"m".as_slice().into(),
            dedup: b"d".as_slice().into(),
            feature_level: 1,
            chain_hash: 0xfeed,
        };
        Root { header, totals: Totals { objects: 1, bytes: 90, digest: 7 } }
    }

    fn hex(b: &[u8]) -> String {
        b.chunks(32).map(|l| l.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n").collect()
    }

    /// Written when missing, never changed.
    fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
        let path = format!("{}/golden/v1-{name}.hex", env!("CARGO_MANIFEST_DIR"));
        if !std::path::Path::new(&path).exists() {
            std::fs::write(&path, hex(bytes)).unwrap();
        }
        let digits: Vec<u8> = std::fs::read(&path).unwrap().into_iter().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn format_1_is_read_and_written_as_the_golden_files_have_it() {
        let bytes = encode_root(&root()).unwrap();
        assert_eq!(hex(&golden("root", &bytes)), hex(&bytes));
        assert_eq!(decode_root(&golden("root", &bytes)).unwrap(), root());
        let (key, object) = object();
        let prefix = object_prefix(&key);
        let bytes = encode_object(&prefix, 5, 9, &object).unwrap();
        assert_eq!(hex(&golden("object", &bytes)), hex(&bytes));
        let read = decode_object(&prefix, &golden("object", &bytes)).unwrap();
        assert_eq!(read, StoredObject { key, object, create_revision: 5, mod_revision: 9 });
    }

    #[test]
    fn every_flipped_bit_and_a_record_under_another_key_are_noticed() {
        let (key, object) = object();
        let prefix = object_prefix(&key);
        let good = encode_object(&prefix, 5, 9, &object).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_object(&prefix, &bad).is_err(), "bit {bit}");
        }
        let other = object_prefix(&Key::new("pods", "default", "b"));
        assert!(matches!(decode_object(&other, &good), Err(CheckpointError::Lost(_))));
        let mut later = good;
        later[4] = 2;
        let crc = checksum(&prefix, &later);
        later[16..20].copy_from_slice(&crc.to_le_bytes());
        let error = decode_object(&prefix, &later).unwrap_err().to_string();
        assert!(error.contains("record format 2"), "{error}");
    }
}
