//! Format 2 of the checkpoint's files ("runs").
//!
//! ```text
//!  head    0      4       5         8       12    20  28     32
//!          │magic │format │reserved │key id │from │to │crc32c│
//!  record  0           4            8       12
//!          │key length │body length │crc32c │key … │body …       body length 2^32-1: removed
//!  root    a record without a key, after all others
//!  tail    0                  8       12     16
//!          │where the root is │crc32c │magic │
//! ```
//!
//! Numbers are little-endian, bodies bincode. A record's checksum is of its
//! lengths, key and body; the root holds the number of records and a checksum of
//! their checksums in order. The key id is for encryption at rest; 0 is none.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use triarch_mvcc::{Key, Object, Revision};

use crate::error::CheckpointError;

/// Bytes of a record at most.
pub(crate) const MAX_RECORD: usize = 64 << 20;
pub(crate) const HEAD: usize = 32;
pub(crate) const TAIL: usize = 16;
/// Lengths and checksum before a record's key.
pub(crate) const PREFIX: usize = 12;
/// The length of a body that says that there is none any more.
const REMOVED: u32 = u32::MAX;
const MAGIC: [u8; 4] = *b"TrCp";
const END: [u8; 4] = *b"TrCe";
const FORMAT: u8 = 2;
const BODY: bincode::config::Configuration = bincode::config::standard();

/// The last log entry whose effects are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AppliedLog {
    pub index: u64,
    pub term: u64,
    pub node: u64,
}

/// What is true of the checkpoint as a whole; a new one comes with every advance.
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

/// What a run ends with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    pub header: Header,
    /// Checksum of the root of the run that this one goes on from; 0 for the first.
    pub previous: u32,
    pub sum: Sum,
}

/// What a run's records come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub records: u64,
    pub digest: u32,
}

impl Sum {
    pub fn add(&mut self, checksum: u32) {
        self.records += 1;
        self.digest = crc32c::crc32c_append(self.digest, &checksum.to_le_bytes());
    }
}

/// Which advances a run holds: from the first to the last, both included. A run
/// from 0 holds everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub from: u64,
    pub to: u64,
}

impl Span {
    pub fn file_name(self) -> String {
        format!("{:016x}-{:016x}.run", self.from, self.to)
    }

    pub fn parse(name: &str) -> Option<Span> {
        let (from, to) = name.strip_suffix(".run")?.split_once('-')?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16);
        let span = Span { from: number(from)?, to: number(to)? };
        (span.from <= span.to && span.file_name() == name).then_some(span)
    }
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

pub(crate) fn encode_head(span: Span) -> [u8; HEAD] {
    let mut out = [0; HEAD];
    out[..4].copy_from_slice(&MAGIC);
    out[4] = FORMAT;
    out[12..20].copy_from_slice(&span.from.to_le_bytes());
    out[20..28].copy_from_slice(&span.to.to_le_bytes());
    let crc = crc32c::crc32c(&out[..28]);
    out[28..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Whose head this is; the error says what is wrong with it.
pub(crate) fn decode_head(b: &[u8; HEAD]) -> Result<Span, Bad> {
    if b[..4] != MAGIC || crc32c::crc32c(&b[..28]) != u32_at(b, 28) {
        return Err(Bad::Damaged("the head is damaged"));
    }
    if b[4] != FORMAT || u32_at(b, 8) != 0 {
        let text = format!("format {} with key {}; this version reads format {FORMAT}", b[4], u32_at(b, 8));
        return Err(Bad::Unsupported(text));
    }
    Ok(Span { from: u64_at(b, 12), to: u64_at(b, 20) })
}

pub(crate) fn encode_tail(root_at: u64) -> [u8; TAIL] {
    let mut out = [0; TAIL];
    out[..8].copy_from_slice(&root_at.to_le_bytes());
    let crc = crc32c::crc32c(&out[..8]);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out[12..].copy_from_slice(&END);
    out
}

pub(crate) fn decode_tail(b: &[u8; TAIL]) -> Result<u64, Bad> {
    let good = b[12..] == END && crc32c::crc32c(&b[..8]) == u32_at(b, 8);
    good.then(|| u64_at(b, 0)).ok_or(Bad::Damaged("the end is missing"))
}

/// What is wrong with some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    Damaged(&'static str),
    Unsupported(String),
}

/// Lengths and checksum of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub key: usize,
    /// `None`: the key is removed.
    pub body: Option<usize>,
    pub checksum: u32,
}

impl Frame {
    pub fn read(b: &[u8; PREFIX]) -> Result<Frame, Bad> {
        let (key, body) = (u32_at(b, 0), u32_at(b, 4));
        let body = (body != REMOVED).then_some(body as usize);
        if key as usize + body.unwrap_or(0) > MAX_RECORD {
            return Err(Bad::Damaged("a record's lengths cannot be"));
        }
        Ok(Frame { key: key as usize, body, checksum: u32_at(b, 8) })
    }

    pub fn len(&self) -> usize {
        PREFIX + self.key + self.body.unwrap_or(0)
    }

    /// `record` is all of it.
    pub fn check(&self, record: &[u8]) -> Result<(), Bad> {
        let good = checksum(record) == self.checksum;
        good.then_some(()).ok_or(Bad::Damaged("a record's checksum does not match"))
    }
}

fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..8]), &record[PREFIX..])
}

/// Appends a record to `out`; `body` `None` removes the key. Returns its checksum.
pub(crate) fn encode_record(
    out: &mut Vec<u8>,
    key: &[u8],
    body: Option<&impl Serialize>,
) -> Result<u32, CheckpointError> {
    let at = out.len();
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0xff; 8]); // the body's length, checksum
    out.extend_from_slice(key);
    if let Some(body) = body {
        bincode::serde::encode_into_std_write(body, out, BODY)
            .map_err(|e| CheckpointError::Io { action: "encode a record", source: std::io::Error::other(e) })?;
        let size = out.len() - at;
        if size > MAX_RECORD {
            out.truncate(at);
            return Err(CheckpointError::TooLarge { size, limit: MAX_RECORD });
        }
        let body = (size - PREFIX - key.len()) as u32;
        out[at + 4..at + 8].copy_from_slice(&body.to_le_bytes());
    }
    let crc = checksum(&out[at..]);
    out[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
    Ok(crc)
}

/// What [`encode_record`] takes for an object's body.
pub(crate) type Body<'a> = (Revision, Revision, &'a Object);

pub(crate) fn decode_object(key: &[u8], body: &[u8]) -> Result<StoredObject, Bad> {
    let (create_revision, mod_revision, object) = decode::<(Revision, Revision, Object)>(body)?;
    let key = Key::from_bytes(Bytes::copy_from_slice(key)).ok_or(Bad::Damaged("a key is not an object's"))?;
    Ok(StoredObject { key, object, create_revision, mod_revision })
}

pub(crate) fn decode_root(body: &[u8]) -> Result<Root, Bad> {
    decode(body)
}

fn decode<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Bad> {
    match bincode::serde::decode_from_slice(body, BODY) {
        Ok((value, used)) if used == body.len() => Ok(value),
        _ => Err(Bad::Damaged("a record does not decode")),
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
        Root { header, previous: 5, sum: Sum { records: 1, digest: 7 } }
    }

    fn hex(b: &[u8]) -> String {
        b.chunks(32).map(|l| l.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n").collect()
    }

    /// Written when missing, never changed.
    fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
        let path = format!("{}/golden/v2-{name}.hex", env!("CARGO_MANIFEST_DIR"));
        if !std::path::Path::new(&path).exists() {
            std::fs::write(&path, hex(bytes)).unwrap();
        }
        let digits: Vec<u8> = std::fs::read(&path).unwrap().into_iter().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    }

    fn body(record: &[u8]) -> Result<(&[u8], Option<&[u8]>), Bad> {
        let frame = Frame::read(record[..PREFIX].try_into().unwrap())?;
        if frame.len() != record.len() {
            return Err(Bad::Damaged("its length"));
        }
        frame.check(record)?;
        let (key, body) = record[PREFIX..].split_at(frame.key);
        Ok((key, frame.body.map(|_| body)))
    }

    #[test]
    fn format_2_is_read_and_written_as_the_golden_files_have_it() {
        let (key, object) = object();
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        encode_record(&mut bytes, key.as_bytes(), Some(&(5u64, 9u64, &object))).unwrap();
        ends.push(bytes.len());
        encode_record(&mut bytes, b"gone", None::<&Body<'_>>).unwrap();
        ends.push(bytes.len());
        encode_record(&mut bytes, b"", Some(&root())).unwrap();
        let bytes = [&encode_head(Span { from: 3, to: 4 })[..], &bytes, &encode_tail(99)].concat();
        let golden = golden("run", &bytes);
        assert_eq!(hex(&golden), hex(&bytes));
        assert_eq!(decode_head(golden[..HEAD].try_into().unwrap()), Ok(Span { from: 3, to: 4 }));
        assert_eq!(decode_tail(golden[golden.len() - TAIL..].try_into().unwrap()), Ok(99));
        let records = &golden[HEAD..golden.len() - TAIL];
        let (read, one) = body(&records[..ends[0]]).unwrap();
        let want = StoredObject { key: key.clone(), object, create_revision: 5, mod_revision: 9 };
        assert_eq!(decode_object(read, one.unwrap()), Ok(want));
        assert_eq!(body(&records[ends[0]..ends[1]]), Ok((&b"gone"[..], None)));
        assert_eq!(decode_root(body(&records[ends[1]..]).unwrap().1.unwrap()), Ok(root()));
    }

    #[test]
    fn every_flipped_bit_of_a_record_a_head_and_a_tail_is_noticed() {
        let (key, object) = object();
        let mut record = Vec::new();
        encode_record(&mut record, key.as_bytes(), Some(&(5u64, 9u64, &object))).unwrap();
        let parts = [record, encode_head(Span { from: 1, to: 2 }).to_vec(), encode_tail(77).to_vec()];
        let good = |part: usize, b: &[u8]| match part {
            0 => body(b).is_ok(),
            1 => decode_head(b.try_into().unwrap()).is_ok(),
            _ => decode_tail(b.try_into().unwrap()).is_ok(),
        };
        for (part, bytes) in parts.iter().enumerate() {
            assert!(good(part, bytes));
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(!good(part, &bad), "part {part}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_later_format_is_refused_and_not_called_damaged() {
        let mut head = encode_head(Span { from: 1, to: 2 });
        head[4] = 3;
        let crc = crc32c::crc32c(&head[..28]);
        head[28..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(decode_head(&head), Err(Bad::Unsupported(why)) if why.contains("format 3")));
    }

    #[test]
    fn names_say_the_span_and_nothing_else_is_a_run() {
        let span = Span { from: 0, to: 0x1f };
        assert_eq!(span.file_name(), "0000000000000000-000000000000001f.run");
        assert_eq!(Span::parse(&span.file_name()), Some(span));
        for other in
            ["CURRENT", "1-2.run", "000000000000001f-0000000000000000.run", "0000000000000000-000000000000001F.run"]
        {
            assert_eq!(Span::parse(other), None, "{other}");
        }
    }
}
