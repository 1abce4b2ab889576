//! Reading a segment from front to back, and judging what stands behind the
//! last good record: nothing, a torn tail, or proof of damage.

use std::io;

use triarch_env::DiskFile;

use crate::codec::{self, ALIGN, Bad, RECORD_HEADER, RECORD_MAGIC, Record, SEGMENT_HEADER, Stamp};
use crate::error::WalError;
use crate::segment::read_full;
use crate::tail;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Bytes that [`probe`] checksums before it gives up on a file full of things
/// that look like records.
const PROBE_BUDGET: usize = 1 << 30;

impl Bad {
    /// As an error of the log.
    pub(crate) fn at(self, file: &str, offset: u64) -> WalError {
        let file = file.to_owned();
        match self {
            Bad::Absent => WalError::Corrupt { file, offset, detail: "there is no record here".into() },
            Bad::Checksum => WalError::Corrupt { file, offset, detail: "the checksum does not match".into() },
            Bad::Body(detail) => WalError::Corrupt { file, offset, detail },
            Bad::Unsupported(detail) => WalError::Unsupported { file, offset, detail },
        }
    }
}

/// A file seen through a buffer that moves forward.
pub(crate) struct Window<'f> {
    file: &'f dyn DiskFile,
    pub(crate) name: &'f str,
    pub(crate) len: u64,
    base: u64,
    buf: Vec<u8>,
}

impl<'f> Window<'f> {
    pub(crate) fn new(file: &'f dyn DiskFile, name: &'f str) -> io::Result<Window<'f>> {
        Ok(Window { len: file.len()?, file, name, base: 0, buf: Vec::new() })
    }

    /// `n` bytes from `offset`; fewer at the end of the file.
    pub(crate) fn at(&mut self, offset: u64, n: usize) -> io::Result<&[u8]> {
        let n = n.min(usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX));
        if offset < self.base || offset + n as u64 > self.base + self.buf.len() as u64 {
            let want = n.max(CHUNK).min(usize::try_from(self.len - offset.min(self.len)).unwrap_or(usize::MAX));
            self.buf.resize(want, 0);
            let got = read_full(self.file, &mut self.buf, offset)?;
            self.buf.truncate(got);
            self.base = offset;
        }
        let start = (offset - self.base) as usize;
        Ok(&self.buf[start.min(self.buf.len())..(start + n).min(self.buf.len())])
    }
}

/// Where the good records of a segment end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub offset: u64,
    pub next_seq: u64,
    /// The last of them says that the next segment is there.
    pub sealed: bool,
}

/// Visits the good records in order: (stamp, record, offset, length).
pub(crate) fn walk(
    w: &mut Window<'_>,
    seed: u32,
    first_seq: u64,
    visit: &mut dyn FnMut(Stamp, Record<'_>, u32, u32) -> Result<(), WalError>,
) -> Result<End, WalError> {
    let (mut at, mut seq, mut sealed, name) = (SEGMENT_HEADER as u64, first_seq, false, w.name);
    let io = |e| WalError::io("read", name.as_ref(), e);
    loop {
        let end = End { offset: at, next_seq: seq, sealed };
        let Some(whole) = codec::extent(w.at(at, RECORD_HEADER).map_err(io)?) else { return Ok(end) };
        match codec::decode(w.at(at, whole).map_err(io)?, seed) {
            Ok((stamp, record)) if stamp.seq == seq => {
                sealed = record == Record::Seal;
                visit(stamp, record, at as u32, whole as u32)?;
            }
            Ok((stamp, _)) => {
                let detail = format!("record number {} stands where {seq} was expected", stamp.seq);
                return Err(WalError::Corrupt { file: name.to_owned(), offset: at, detail });
            }
            Err(Bad::Absent | Bad::Checksum) => return Ok(end),
            Err(bad) => return Err(bad.at(name, at)),
        }
        at += whole as u64;
        seq += 1;
    }
}

/// Looks behind the last good record of the last segment. `None`: only zeros.
/// `Some(end)`: unsynced remains up to `end`. An error when a later record
/// says that the record missing at `from` had been synced, or when what stands
/// there is no torn write.
pub(crate) fn probe(w: &mut Window<'_>, seed: u32, from: End) -> Result<Option<u64>, WalError> {
    let (name, mut at, mut dirty, mut budget) = (w.name, from.offset, None, PROBE_BUDGET);
    let io = |e| WalError::io("read", name.as_ref(), e);
    let damaged = |detail: String| WalError::Corrupt { file: name.to_owned(), offset: from.offset, detail };
    while at < w.len {
        let chunk = w.at(at, CHUNK).map_err(io)?;
        let n = chunk.len() as u64;
        if n == 0 {
            break;
        }
        let Some(last) = chunk.iter().rposition(|b| *b != 0) else {
            at += n;
            continue;
        };
        dirty = Some(at + last as u64 + 1);
        let candidates: Vec<u64> = (0..chunk.len())
            .step_by(ALIGN)
            .filter(|i| chunk[*i..].starts_with(&RECORD_MAGIC))
            .map(|i| at + i as u64)
            .collect();
        for offset in candidates {
            let Some(whole) = codec::extent(w.at(offset, RECORD_HEADER).map_err(io)?) else { continue };
            budget = budget
                .checked_sub(whole)
                .ok_or_else(|| damaged("the bytes behind it look like a great many records".into()))?;
            let Ok(stamp) = codec::check(w.at(offset, whole).map_err(io)?, seed) else { continue };
            if stamp.durable >= from.next_seq {
                return Err(damaged(format!(
                    "record number {} is damaged, and record number {} at byte {offset} says that it was synced",
                    from.next_seq, stamp.seq
                )));
            }
        }
        at += n;
    }
    if let Some(dirty) = dirty {
        let len = tail::extent(w.at(from.offset, RECORD_HEADER).map_err(io)?);
        let bytes = w.at(from.offset, len).map_err(io)?;
        if !tail::may_be_torn(bytes, from.offset, from.next_seq, seed, dirty) {
            return Err(damaged(format!("record number {} was written whole and is damaged", from.next_seq)));
        }
    }
    Ok(dirty)
}
