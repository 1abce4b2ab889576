//! Segment files: their names, and reading one record back by its place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use triarch_env::{Disk, DiskFile, OpenMode};

use crate::codec::{self, LogId, Record, SEGMENT_HEADER, SegmentHeader};
use crate::error::WalError;
use crate::index::{Entry, Place};

const UNBORN: &str = ".tmp";

pub(crate) fn file_name(id: u32) -> String {
    format!("{id:08}.wal")
}

/// A segment that is being made; it gets its name when it is durable.
pub(crate) fn unborn_name(id: u32) -> String {
    file_name(id) + UNBORN
}

/// Whether a file is what a process left that died while it made a segment.
pub(crate) fn is_unborn(name: &str) -> bool {
    name.strip_suffix(UNBORN).is_some_and(|n| parse_name(n).is_some())
}

/// The id in a segment's file name; `None` for other files.
pub(crate) fn parse_name(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".wal")?;
    let id = digits.parse().ok()?;
    (file_name(id) == name).then_some(id)
}

/// Reads as much of `buf` as there is; the number of bytes read.
pub(crate) fn read_full(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

struct Opened {
    segment: u32,
    seed: u32,
    file: Box<dyn DiskFile>,
}

/// Reads entries that have left memory. The segment read last stays open.
pub(crate) struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    open: Mutex<Option<Arc<Opened>>>,
}

impl Reader {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path) -> Reader {
        Reader { disk, dir: dir.to_path_buf(), open: Mutex::new(None) }
    }

    /// Closes the segment that is open, so that deleting it frees its space.
    pub(crate) fn forget(&self) {
        *self.open.lock() = None;
    }

    fn segment(&self, id: u32) -> Result<Arc<Opened>, WalError> {
        if let Some(open) = self.open.lock().as_ref().filter(|o| o.segment == id) {
            return Ok(open.clone());
        }
        let path = self.dir.join(file_name(id));
        let file = self.disk.open(&path, OpenMode::Read).map_err(|e| WalError::io("open", &path, e))?;
        let mut head = [0; SEGMENT_HEADER];
        read_full(&*file, &mut head, 0).map_err(|e| WalError::io("read", &path, e))?;
        let header = SegmentHeader::decode(&head).map_err(|bad| bad.at(&file_name(id), 0))?;
        let opened = Arc::new(Opened { segment: id, seed: header.seed(), file });
        *self.open.lock() = Some(opened.clone());
        Ok(opened)
    }

    /// The entry at `place`, its checksum verified again.
    pub(crate) fn entry(&self, id: LogId, place: Place) -> Result<Entry, WalError> {
        let (segment, offset) = (self.segment(place.segment)?, u64::from(place.offset));
        let name = file_name(place.segment);
        let mut record = vec![0; place.len as usize];
        let n = read_full(&*segment.file, &mut record, offset)
            .map_err(|e| WalError::io("read", &self.dir.join(&name), e))?;
        match codec::decode(&record[..n], segment.seed).map_err(|bad| bad.at(&name, offset))? {
            (_, Record::Entry(found, payload)) if found == id => {
                let start = payload.as_ptr().addr() - record.as_ptr().addr();
                let end = start + payload.len();
                Ok(Entry { id, payload: Bytes::from(record).slice(start..end) })
            }
            (_, other) => Err(WalError::Corrupt {
                file: name,
                offset,
                detail: format!("expected the entry {id:?}, found {}", brief(&other)),
            }),
        }
    }
}

fn brief(record: &Record<'_>) -> String {
    match record {
        Record::Entry(id, _) => format!("the entry {id:?}"),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_segment_name_as_written_is_a_segment() {
        assert_eq!(parse_name(&file_name(7)), Some(7));
        assert_eq!(parse_name("123456789.wal"), Some(123_456_789));
        for other in ["7.wal", "00000007.wal.tmp", "+0000007.wal", "CURRENT", ".wal"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
        assert!(is_unborn(&unborn_name(7)) && !is_unborn("notes.tmp") && !is_unborn("00000007.wal"));
    }
}
