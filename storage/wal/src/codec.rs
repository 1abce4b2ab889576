//! Format 2 of the log's records: an envelope round a bincode body.
//!
//! ```text
//!  0      4       5     6         8       12      16   24       32      36
//!  │magic │format │type │head sum │key id │length │seq │durable │crc32c │body … │zeros to 8
//! ```
//!
//! Integers are little-endian. The checksum covers everything before it and
//! the body, and starts from the segment's seed, so that bytes of another
//! segment, or of a payload that looks like a record, never pass for one. It
//! is read before the format, so that a later format is refused by its name.
//! The head sum covers the envelope alone: where the body is damaged, the
//! length can still be believed (see `tail.rs`).
//!
//! Format 1 had no head sum, no seals, and less in a segment's header; it is
//! read. This file owns every byte layout of the log; `golden/` holds it to
//! its word.

use bincode::{BorrowDecode, Decode, Encode};

/// Of one record's body, bytes; an entry's payload is a little less.
pub(crate) const MAX_BODY: usize = 64 << 20;
/// The largest payload that an entry may carry, bytes.
pub const MAX_PAYLOAD: usize = MAX_BODY - 64;
/// Of vote and identity, bytes.
pub(crate) const MAX_SMALL: usize = 64 << 10;

pub(crate) const RECORD_HEADER: usize = 36;
pub(crate) const SEGMENT_HEADER: usize = 64;
pub(crate) const ALIGN: usize = 8;
pub(crate) const FORMAT: u8 = 2;
const OLDEST: u8 = 1;
/// Bytes of a record without a body.
pub(crate) const BARE_RECORD: usize = padded(RECORD_HEADER);
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"TrWr";
const SEGMENT_MAGIC: [u8; 8] = *b"TriarchW";
const BODY: bincode::config::Configuration = bincode::config::standard();

/// A position in the replicated log and the leader that put it there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct LogId {
    pub index: u64,
    pub term: u64,
    /// The leader's node id.
    pub node: u64,
}

/// One record, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    Entry(LogId, &'a [u8]),
    Vote(&'a [u8]),
    Committed(Option<LogId>),
    /// Entries up to here are no longer needed.
    Purge(LogId),
    /// Entries after this index are void; `None`: all are.
    Truncate(Option<u64>),
    /// Says only what its envelope says: up to where the log is synced.
    Mark,
    Identity(&'a [u8]),
    /// The next segment is made and durable; nothing follows in this one.
    Seal,
}

#[derive(Encode, BorrowDecode)]
struct EntryBody<'a> {
    id: LogId,
    payload: &'a [u8],
}

/// What a record's envelope says beyond its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub seq: u64,
    /// Every record up to this number was synced when this one was written.
    pub durable: u64,
}

/// Why bytes are not a record that we can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// No magic number here, or not enough bytes for what the envelope says.
    Absent,
    Checksum,
    /// A whole record that this version does not know.
    Unsupported(String),
    /// The checksum holds, but the body does not decode.
    Body(String),
}

/// Rounded up to the alignment of records.
pub(crate) const fn padded(len: usize) -> usize {
    len.div_ceil(ALIGN) * ALIGN
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

/// Appends a record to `out`, padded. On an error `out` is as before.
pub(crate) fn encode(record: &Record<'_>, stamp: Stamp, seed: u32, out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&[FORMAT, kind(record), 0, 0]);
    out.extend_from_slice(&[0; 8]); // key id, length
    out.extend_from_slice(&stamp.seq.to_le_bytes());
    out.extend_from_slice(&stamp.durable.to_le_bytes());
    out.extend_from_slice(&[0; 4]); // checksum
    let body = match *record {
        Record::Entry(id, payload) => bincode::encode_into_std_write(EntryBody { id, payload }, out, BODY),
        Record::Vote(bytes) | Record::Identity(bytes) => bincode::encode_into_std_write(bytes, out, BODY),
        Record::Committed(id) => bincode::encode_into_std_write(id, out, BODY),
        Record::Purge(id) => bincode::encode_into_std_write(id, out, BODY),
        Record::Truncate(after) => bincode::encode_into_std_write(after, out, BODY),
        Record::Mark | Record::Seal => Ok(0),
    };
    let len = out.len() - start - RECORD_HEADER;
    if let Err(e) = body.map_err(|e| e.to_string()).and_then(|_| {
        (len <= MAX_BODY).then_some(()).ok_or_else(|| format!("a record of {len} bytes; the limit is {MAX_BODY}"))
    }) {
        out.truncate(start);
        return Err(e);
    }
    out[start + 12..start + 16].copy_from_slice(&(len as u32).to_le_bytes());
    let sum = head_sum(&out[start..]);
    out[start + 6..start + 8].copy_from_slice(&sum.to_le_bytes());
    let crc = checksum(&out[start..], len, seed);
    out[start + 32..start + 36].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + padded(RECORD_HEADER + len), 0);
    Ok(())
}

fn kind(record: &Record<'_>) -> u8 {
    match record {
        Record::Entry(..) => 1,
        Record::Vote(_) => 2,
        Record::Committed(_) => 3,
        Record::Purge(_) => 4,
        Record::Truncate(_) => 5,
        Record::Mark => 6,
        Record::Identity(_) => 7,
        Record::Seal => 8,
    }
}

/// Of an envelope; never 0, which is what format 1 has in its place.
fn head_sum(b: &[u8]) -> u16 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&b[..6]), &b[8..32]);
    ((crc >> 16 ^ crc) as u16).max(1)
}

/// Whether the envelope at the start of `b` is what was written for record
/// `seq`, so that its length is true, whatever became of the body.
pub(crate) fn head_holds(b: &[u8], seq: u64) -> bool {
    let whole = b.len() >= RECORD_HEADER && b[..4] == RECORD_MAGIC && u64_at(b, 16) == seq;
    let sum = || u16::from_le_bytes([b[6], b[7]]);
    whole && if b[4] == 1 { sum() == 0 } else { sum() == head_sum(b) }
}

fn checksum(record: &[u8], len: usize, seed: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &record[..32]), &record[RECORD_HEADER..RECORD_HEADER + len])
}

/// Bytes that the record at the start of `b` claims to occupy, padded; `None`
/// when there is none, or its length is beyond the limit.
pub(crate) fn extent(b: &[u8]) -> Option<usize> {
    let len = (b.len() >= RECORD_HEADER && b[..4] == RECORD_MAGIC).then(|| u32_at(b, 12) as usize)?;
    (len <= MAX_BODY).then(|| padded(RECORD_HEADER + len))
}

/// The stamp of the record at the start of `b`, if its checksum holds: of any
/// format and type.
pub(crate) fn check(b: &[u8], seed: u32) -> Result<Stamp, Bad> {
    let whole = extent(b).filter(|n| *n <= b.len()).ok_or(Bad::Absent)?;
    let len = u32_at(b, 12) as usize;
    let padding = &b[RECORD_HEADER + len..whole];
    if checksum(b, len, seed) != u32_at(b, 32) || padding.iter().any(|p| *p != 0) {
        return Err(Bad::Checksum);
    }
    Ok(Stamp { seq: u64_at(b, 16), durable: u64_at(b, 24) })
}

/// The record at the start of `b`.
pub(crate) fn decode(b: &[u8], seed: u32) -> Result<(Stamp, Record<'_>), Bad> {
    let stamp = check(b, seed)?;
    let (format, kind, key) = (b[4], b[5], u32_at(b, 8));
    if !(OLDEST..=FORMAT).contains(&format) {
        return Err(Bad::Unsupported(format!("record format {format}; this version reads up to {FORMAT}")));
    }
    if key != 0 {
        return Err(Bad::Unsupported(format!("a record sealed with key {key}; this version reads plain records")));
    }
    let body = &b[RECORD_HEADER..RECORD_HEADER + u32_at(b, 12) as usize];
    let record = match kind {
        1 => body_of::<EntryBody<'_>>(body).map(|e| Record::Entry(e.id, e.payload))?,
        2 => Record::Vote(body_of(body)?),
        3 => Record::Committed(body_of(body)?),
        4 => Record::Purge(body_of(body)?),
        5 => Record::Truncate(body_of(body)?),
        6 if body.is_empty() => Record::Mark,
        7 => Record::Identity(body_of(body)?),
        8 if body.is_empty() => Record::Seal,
        _ => return Err(Bad::Unsupported(format!("record type {kind}, which this version does not know"))),
    };
    Ok((stamp, record))
}

fn body_of<'a, T: BorrowDecode<'a, ()>>(body: &'a [u8]) -> Result<T, Bad> {
    match bincode::borrow_decode_from_slice::<T, _>(body, BODY) {
        Ok((value, used)) if used == body.len() => Ok(value),
        Ok((_, used)) => Err(Bad::Body(format!("{} bytes after the record's end", body.len() - used))),
        Err(e) => Err(Bad::Body(e.to_string())),
    }
}

/// The first bytes of a segment.
///
/// ```text
///  0      8       12  16         24    32    40   48    52       60
///  │magic │format │id │first seq │salt │size │log │head │zeros … │crc32c
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub id: u32,
    /// Sequence number of the segment's first record.
    pub first_seq: u64,
    /// Random; makes the seed of this segment's checksums.
    pub salt: u64,
    /// Bytes that the file was made with; it is never shorter and never
    /// longer. 0 in format 1: unknown.
    pub size: u64,
    /// Random; the same in all segments of a log. 0 in format 1.
    pub log: u64,
    /// Bytes of the records that the segment was made with: the state at its
    /// start. 0 in format 1.
    pub head: u32,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut b = [0; SEGMENT_HEADER];
        b[..8].copy_from_slice(&SEGMENT_MAGIC);
        b[8..12].copy_from_slice(&u32::from(FORMAT).to_le_bytes());
        b[12..16].copy_from_slice(&self.id.to_le_bytes());
        b[16..24].copy_from_slice(&self.first_seq.to_le_bytes());
        b[24..32].copy_from_slice(&self.salt.to_le_bytes());
        b[32..40].copy_from_slice(&self.size.to_le_bytes());
        b[40..48].copy_from_slice(&self.log.to_le_bytes());
        b[48..52].copy_from_slice(&self.head.to_le_bytes());
        let crc = crc32c::crc32c(&b[..SEGMENT_HEADER - 4]);
        b[SEGMENT_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    pub(crate) fn decode(b: &[u8]) -> Result<SegmentHeader, Bad> {
        if b.len() < SEGMENT_HEADER || b[..8] != SEGMENT_MAGIC {
            return Err(Bad::Absent);
        }
        if crc32c::crc32c(&b[..SEGMENT_HEADER - 4]) != u32_at(b, SEGMENT_HEADER - 4) {
            return Err(Bad::Checksum);
        }
        let format = u32_at(b, 8);
        if !(u32::from(OLDEST)..=u32::from(FORMAT)).contains(&format) {
            return Err(Bad::Unsupported(format!("segment format {format}; this version reads up to {FORMAT}")));
        }
        // Format 1 has zeros in all that it did not know.
        Ok(SegmentHeader {
            id: u32_at(b, 12),
            first_seq: u64_at(b, 16),
            salt: u64_at(b, 24),
            size: u64_at(b, 32),
            log: u64_at(b, 40),
            head: u32_at(b, 48),
        })
    }

    /// Where the checksums of the segment's records start from.
    pub(crate) fn seed(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.salt.to_le_bytes()), &self.id.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LogId = LogId { index: 300, term: 7, node: 2 };

    fn samples() -> Vec<(&'static str, Record<'static>)> {
        vec![
            ("entry", Record::Entry(ID, b"payload")),
            ("vote", Record::Vote(b"ballot")),
            ("committed", Record::Committed(Some(ID))),
            ("committed_none", Record::Committed(None)),
            ("purge", Record::Purge(ID)),
            ("truncate", Record::Truncate(Some(299))),
            ("mark", Record::Mark),
            ("identity", Record::Identity(b"who")),
            ("seal", Record::Seal),
        ]
    }

    fn header() -> SegmentHeader {
        SegmentHeader { id: 3, first_seq: 40, salt: 0x0123_4567_89ab_cdef, size: 4096, log: 0xfeed, head: 120 }
    }

    fn hex(b: &[u8]) -> String {
        b.chunks(32).map(|l| l.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n").collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    }

    fn golden(format: u8, name: &str) -> Option<Vec<u8>> {
        let path = format!("{}/golden/v{format}-{name}.hex", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).ok().map(|text| unhex(&text))
    }

    /// A missing file of the present format is written, so that a new format
    /// starts with its fixtures; one that is there is never changed.
    fn golden_of(name: &str, bytes: &[u8]) -> Vec<u8> {
        if golden(FORMAT, name).is_none() {
            let path = format!("{}/golden/v{FORMAT}-{name}.hex", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, hex(bytes)).unwrap();
        }
        golden(FORMAT, name).expect("it is there now")
    }

    #[test]
    fn format_2_is_read_and_written_as_the_golden_files_have_it() {
        let (seed, stamp) = (header().seed(), Stamp { seq: 41, durable: 39 });
        let segment = golden_of("segment", &header().encode());
        assert_eq!(segment, header().encode());
        assert_eq!(SegmentHeader::decode(&segment), Ok(header()));
        for (name, record) in samples() {
            let mut out = Vec::new();
            encode(&record, stamp, seed, &mut out).unwrap();
            let bytes = golden_of(name, &out);
            assert_eq!(hex(&bytes), hex(&out), "{name}");
            assert_eq!(decode(&bytes, seed), Ok((stamp, record)), "{name}");
            assert_eq!(extent(&bytes), Some(bytes.len()));
            assert!(head_holds(&bytes, 41) && !head_holds(&bytes, 42));
        }
    }

    #[test]
    fn format_1_is_read_as_the_golden_files_have_it() {
        let (seed, stamp) = (header().seed(), Stamp { seq: 41, durable: 39 });
        let first = SegmentHeader { size: 0, log: 0, head: 0, ..header() };
        assert_eq!(SegmentHeader::decode(&golden(1, "segment").unwrap()), Ok(first));
        for (name, record) in samples().into_iter().filter(|(name, _)| *name != "seal") {
            let bytes = golden(1, name).unwrap();
            assert_eq!(decode(&bytes, seed), Ok((stamp, record)), "{name}");
            assert!(head_holds(&bytes, 41), "{name}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let seed = header().seed();
        for (name, record) in samples() {
            let mut good = Vec::new();
            encode(&record, Stamp { seq: 1, durable: 0 }, seed, &mut good).unwrap();
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&bad, seed).is_err(), "{name} bit {bit}");
                // The seal of the body and the body itself are none of the envelope's.
                assert_eq!(head_holds(&bad, 1), bit >= 32 * 8, "{name} bit {bit}");
            }
            for cut in 0..good.len() {
                assert_eq!(decode(&good[..cut], seed), Err(Bad::Absent), "{name} cut {cut}");
            }
            assert_eq!(decode(&good, seed ^ 1), Err(Bad::Checksum), "another segment's record");
        }
        let good = header().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err());
        }
    }

    #[test]
    fn a_later_format_or_type_or_a_sealed_record_is_refused_by_name() {
        for (at, value, want) in [(4, 3, "record format 3"), (5, 99, "record type 99"), (8, 5, "key 5")] {
            let mut b = Vec::new();
            encode(&Record::Mark, Stamp { seq: 1, durable: 0 }, 9, &mut b).unwrap();
            b[at] = value;
            let crc = checksum(&b, 0, 9);
            b[32..36].copy_from_slice(&crc.to_le_bytes());
            let Err(Bad::Unsupported(text)) = decode(&b, 9) else { panic!("accepted") };
            assert!(text.contains(want), "{text}");
        }
    }
}
