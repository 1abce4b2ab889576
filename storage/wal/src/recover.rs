//! Opening a log: what was there, made certain again.
//!
//! Only the last segment can have a torn tail, because a segment is synced
//! before the next one is made; and that one is durable before it has its name,
//! so that a segment which is missing, empty or short was damaged. What the last segment cannot prove to have been
//! synced is written once more and synced, since a process that died between
//! write and sync, or on a failed sync, leaves bytes that only the page cache
//! may hold.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use triarch_env::{Disk, DiskFile, OpenMode};
use triarch_mutants::mutant;

use crate::codec::{self, BARE_RECORD, Record, SEGMENT_HEADER, SegmentHeader, Stamp};
use crate::error::WalError;
use crate::index::{Entry, LogIndex, Place};
use crate::scan::{End, Window, probe, walk};
use crate::segment::{file_name, is_unborn, parse_name, read_full};

/// What opening had to mend. Nothing that was acknowledged is ever among it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    pub file: String,
    /// Where the unsynced remains began.
    pub offset: u64,
    /// How many bytes they spanned.
    pub bytes: u64,
}

/// A segment that will not be written again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed {
    pub id: u32,
    /// The highest entry index in it.
    pub last_index: Option<u64>,
}

/// The segment that is written.
pub(crate) struct Current {
    pub file: Box<dyn DiskFile>,
    pub header: SegmentHeader,
    pub position: u64,
    /// Up to here the file has been written, with records and zeros behind them.
    pub written: u64,
    pub last_index: Option<u64>,
}

pub(crate) struct Recovered {
    pub index: LogIndex,
    pub sealed: VecDeque<Sealed>,
    /// `None`: the directory holds no log.
    pub current: Option<Current>,
    pub next_id: u32,
    pub next_seq: u64,
    pub repair: Option<Repair>,
}

pub(crate) fn recover(disk: &Arc<dyn Disk>, dir: &Path, tail_limit: usize) -> Result<Recovered, WalError> {
    let names = disk.list(dir).map_err(|e| WalError::io("list", dir, e))?;
    let mut ids: Vec<u32> = names.iter().filter_map(|n| parse_name(n)).collect();
    ids.sort_unstable();
    if let Some(gap) = ids.windows(2).find(|w| w[0] + 1 != w[1]) {
        let file = file_name(gap[0] + 1);
        return Err(WalError::Corrupt { file, offset: 0, detail: "the file is missing".into() });
    }
    for name in names.iter().filter(|n| is_unborn(n)) {
        let path = dir.join(name);
        disk.remove_file(&path).map_err(|e| WalError::io("remove", &path, e))?;
    }

    let mut out = Recovered {
        index: LogIndex::new(tail_limit),
        sealed: VecDeque::new(),
        current: None,
        next_id: ids.last().map_or(1, |l| l + 1),
        next_seq: 1,
        repair: None,
    };
    let mut previous: Option<Previous> = None;
    for (i, id) in ids.iter().enumerate() {
        let (name, is_last) = (file_name(*id), i + 1 == ids.len());
        let path = dir.join(&name);
        let mode = if is_last { OpenMode::ReadWrite } else { OpenMode::Read };
        let mut file = disk.open(&path, mode).map_err(|e| WalError::io("open", &path, e))?;
        let mut head = [0; SEGMENT_HEADER];
        let n = read_full(&*file, &mut head, 0).map_err(|e| WalError::io("read", &path, e))?;
        let header = SegmentHeader::decode(&head[..n]).map_err(|bad| bad.at(&name, 0))?;
        let damaged = |offset, detail| Err(WalError::Corrupt { file: name.clone(), offset, detail });
        if header.id != *id {
            return damaged(0, format!("the file says that it is {}", file_name(header.id)));
        }
        if let Some(previous) = &previous {
            previous.is_followed_by(&header)?;
        }

        let mut replay = Replay { index: &mut out.index, segment: *id, name: &name, last_index: None };
        let (mut durable, mut offsets) = (0, Vec::new());
        let mut window = Window::new(&*file, &name).map_err(|e| WalError::io("read", &path, e))?;
        let len = window.len;
        let end = walk(&mut window, header.seed(), header.first_seq, &mut |stamp: Stamp, record, offset, len| {
            if is_last {
                durable = stamp.durable.max(durable);
                offsets.push(offset);
            }
            replay.apply(record, offset, len)
        })?;
        let last_index = replay.last_index;
        out.next_seq = end.next_seq;
        if is_last {
            if len < header.size {
                return damaged(len, format!("the file ends here, and was made with {} bytes", header.size));
            }
            if end.offset < SEGMENT_HEADER as u64 + u64::from(header.head) {
                return damaged(end.offset, format!("record number {} is damaged", end.next_seq));
            }
            if end.sealed {
                let (file, offset) = (file_name(id + 1), 0);
                let detail = format!("the file is missing; {name} says that it was made");
                return Err(WalError::Corrupt { file, offset, detail });
            }
            let dirty = probe(&mut window, header.seed(), end)?;
            drop(window);
            if let Some(previous) = previous.take().filter(|p| p.end.next_seq < header.first_seq) {
                previous.seal(disk, dir)?;
            }
            // Sequence numbers of a segment are consecutive, so that the first
            // uncertain record is found by counting.
            let proved = (durable + 1).checked_sub(header.first_seq).filter(|n| *n > 0);
            let from = proved.map_or(0, |n| offsets.get(n as usize).map_or(end.offset, |o| u64::from(*o)));
            make_certain(&mut *file, from, end.offset, dirty).map_err(|e| WalError::io("repair", &path, e))?;
            if let Some(dirty) = dirty {
                out.repair = Some(Repair { file: name.clone(), offset: end.offset, bytes: dirty - end.offset });
            }
            out.current = Some(Current { file, header, position: end.offset, written: end.offset, last_index });
        } else {
            out.sealed.push_back(Sealed { id: *id, last_index });
        }
        previous = Some(Previous { name, header, end });
    }
    disk.sync_dir(dir).map_err(|e| WalError::io("sync", dir, e))?;
    settle(&mut out.index, ids.first().copied())?;
    Ok(out)
}

/// A segment that another one follows.
struct Previous {
    name: String,
    header: SegmentHeader,
    end: End,
}

impl Previous {
    /// Whether `next` goes on where this one ends: behind its seal, or where a
    /// seal was to be (the process died before it wrote it).
    fn is_followed_by(&self, next: &SegmentHeader) -> Result<(), WalError> {
        let name = file_name(next.id);
        let unsealed = !self.end.sealed && next.size > 0 && next.first_seq == self.end.next_seq + 1;
        if next.first_seq != self.end.next_seq && !unsealed {
            let detail = format!("record number {} is damaged or missing; {name} follows", self.end.next_seq);
            return Err(WalError::Corrupt { file: self.name.clone(), offset: self.end.offset, detail });
        }
        if self.header.log != next.log && self.header.log != 0 {
            let detail = format!("the file is of another log than {}", self.name);
            return Err(WalError::Corrupt { file: name, offset: 0, detail });
        }
        Ok(())
    }

    /// Writes the seal that is missing, so that the loss of the segment behind
    /// it is noticed.
    fn seal(&self, disk: &Arc<dyn Disk>, dir: &Path) -> Result<(), WalError> {
        let path = dir.join(&self.name);
        let mut record = Vec::with_capacity(BARE_RECORD);
        let stamp = Stamp { seq: self.end.next_seq, durable: self.end.next_seq - 1 };
        codec::encode(&Record::Seal, stamp, self.header.seed(), &mut record).expect("a seal has no body");
        let mut file = disk.open(&path, OpenMode::ReadWrite).map_err(|e| WalError::io("open", &path, e))?;
        let written = file.write_at(&record, self.end.offset).and_then(|()| file.sync_data());
        written.map_err(|e| WalError::io("seal", &path, e))
    }
}

/// Writes `from..end` again as it is, zeros over `end..dirty`, and syncs.
fn make_certain(file: &mut dyn DiskFile, from: u64, end: u64, dirty: Option<u64>) -> std::io::Result<()> {
    let mut chunk = vec![0; 256 << 10];
    let mut at = from;
    while at < end {
        let n = chunk.len().min((end - at) as usize);
        read_full(file, &mut chunk[..n], at)?;
        file.write_at(&chunk[..n], at)?;
        at += n as u64;
    }
    chunk.fill(0);
    while at < dirty.unwrap_or(end) {
        let n = chunk.len().min((dirty.unwrap_or(end) - at) as usize);
        file.write_at(&chunk[..n], at)?;
        at += n as u64;
    }
    file.sync_data()
}

struct Replay<'a> {
    index: &'a mut LogIndex,
    segment: u32,
    name: &'a str,
    last_index: Option<u64>,
}

impl Replay<'_> {
    fn apply(&mut self, record: Record<'_>, offset: u32, len: u32) -> Result<(), WalError> {
        let small = &mut self.index.small;
        match record {
            Record::Entry(id, payload) => {
                self.last_index = self.last_index.max(Some(id.index));
                let entry = Entry { id, payload: Bytes::copy_from_slice(payload) };
                let place = Place { segment: self.segment, offset, len };
                self.index.replay(&entry, place).map_err(|e| WalError::Corrupt {
                    file: self.name.to_owned(),
                    offset: u64::from(offset),
                    detail: e.to_string(),
                })?;
            }
            Record::Vote(vote) => small.vote = Some(Bytes::copy_from_slice(vote)),
            Record::Committed(id) => small.committed = id,
            Record::Purge(upto) => self.index.purge(upto),
            Record::Truncate(_) if mutant("truncation-forgotten") => {}
            Record::Truncate(after) => self.index.truncate(after),
            Record::Mark | Record::Seal => {}
            Record::Identity(bytes) => small.identity = Some(Bytes::copy_from_slice(bytes)),
        }
        Ok(())
    }
}

/// The log as a whole: no hole behind the purge mark, no beginning lost without
/// one, nothing committed that is not there (a committed index is not synced,
/// nor are the entries it may run ahead of).
fn settle(index: &mut LogIndex, first_segment: Option<u32>) -> Result<(), WalError> {
    let (first, last) = (index.first(), index.last());
    if let Some(purged) = index.small.purged
        && first != purged.index + 1
    {
        let detail = format!("the log starts at entry {first}, but it was purged only up to {}", purged.index);
        // What is missing stood before the first that is there.
        return Err(match first_segment {
            Some(id) if id > 1 && first > purged.index => {
                let detail = format!("the file is missing: {detail}");
                WalError::Corrupt { file: file_name(id - 1), offset: 0, detail }
            }
            id => WalError::Corrupt { file: file_name(id.unwrap_or(1)), offset: 0, detail },
        });
    }
    if index.small.purged.is_none() && first_segment.is_some_and(|id| id != 1) {
        return Err(WalError::Corrupt { file: file_name(1), offset: 0, detail: "the file is missing".into() });
    }
    if index.small.committed.map(|c| c.index) > last.map(|l| l.index) {
        index.small.committed = last;
    }
    Ok(())
}
