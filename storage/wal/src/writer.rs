//! The writing half: stages records in one buffer, writes it with one call,
//! syncs, starts segments and deletes them.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use triarch_env::{Disk, OpenMode};

use crate::codec::{self, Record, SEGMENT_HEADER, SegmentHeader, Stamp};
use crate::error::WalError;
use crate::index::{Place, Small};
use crate::metrics::WalMetrics;
use crate::recover::{Current, Recovered, Sealed};
use crate::segment::file_name;
use crate::wal::Config;

/// A buffer larger than this is not kept for the next group.
const KEEP_BUFFER: usize = 1 << 20;
/// What is written ahead of the records at a time.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    salt: u64,
    sealed: VecDeque<Sealed>,
    current: Current,
    /// Staged, to be written at `current.position`.
    buf: Vec<u8>,
    next_seq: u64,
    /// The highest number that is synced, and the highest that a record says so of.
    durable: u64,
    witnessed: u64,
    /// What every segment starts with: the state after the last staged record.
    small: Small,
    metrics: Arc<WalMetrics>,
}

impl Writer {
    /// Goes on behind what was recovered, or starts the first segment.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: &Config,
        recovered: Recovered,
        metrics: Arc<WalMetrics>,
    ) -> Result<Writer, WalError> {
        let Recovered { index, sealed, current, next_id, mut next_seq, repair } = recovered;
        let (segment_bytes, salt) = (config.segment_bytes.clamp(4 << 10, 1 << 30), config.salt);
        let fresh = current.is_none();
        let current = match current {
            Some(current) => current,
            None => create(&disk, dir, next_id, segment_bytes, salt, &mut next_seq, &index.small)?,
        };
        let mut w = Writer {
            disk,
            dir: dir.to_path_buf(),
            segment_bytes,
            salt,
            sealed,
            current,
            buf: Vec::new(),
            next_seq,
            durable: next_seq - 1,
            witnessed: 0,
            small: index.small,
            metrics,
        };
        if repair.is_some() && !fresh {
            // The cut may have taken the state at the segment's start with it.
            for record in head_records(&w.small.clone()) {
                w.stage(&record)?;
            }
            w.flush()?;
            w.sync()?;
        }
        Ok(w)
    }

    fn path(&self) -> PathBuf {
        self.dir.join(file_name(self.current.header.id))
    }

    /// Adds a record to the buffer; writes, syncs and starts a segment when the
    /// present one is full.
    pub(crate) fn stage(&mut self, record: &Record<'_>) -> Result<Place, WalError> {
        let (before, last_index) = (self.buf.len(), self.current.last_index);
        let place = self.stage_here(record)?;
        let end = self.current.position + self.buf.len() as u64;
        let holds_records = self.current.position + before as u64 > SEGMENT_HEADER as u64;
        if end <= self.segment_bytes || !holds_records {
            return Ok(place);
        }
        self.buf.truncate(before);
        self.next_seq -= 1;
        self.current.last_index = last_index;
        self.rotate()?;
        self.stage_here(record)
    }

    fn stage_here(&mut self, record: &Record<'_>) -> Result<Place, WalError> {
        let start = self.buf.len();
        let stamp = Stamp { seq: self.next_seq, durable: self.durable };
        codec::encode(record, stamp, self.current.header.seed(), &mut self.buf)
            .map_err(|detail| WalError::io("encode a record for", &self.path(), std::io::Error::other(detail)))?;
        self.next_seq += 1;
        self.witnessed = self.durable;
        match *record {
            Record::Entry(id, _) => self.current.last_index = self.current.last_index.max(Some(id.index)),
            Record::Vote(b) => self.small.vote = Some(b.to_vec().into()),
            Record::Identity(b) => self.small.identity = Some(b.to_vec().into()),
            Record::Committed(id) => self.small.committed = id,
            Record::Purge(id) => self.small.purged = Some(id),
            Record::Truncate(_) | Record::Mark => {}
        }
        Ok(Place {
            segment: self.current.header.id,
            offset: u32::try_from(self.current.position + start as u64)
                .expect("segments end before 1 GiB plus one record"),
            len: (self.buf.len() - start) as u32,
        })
    }

    /// Writes what is staged.
    pub(crate) fn flush(&mut self) -> Result<(), WalError> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let at = self.current.position;
        self.current.file.write_at(&self.buf, at).map_err(|e| WalError::io("write", &self.path(), e))?;
        self.current.position += self.buf.len() as u64;
        self.zero_ahead()?;
        self.metrics.writes.fetch_add(1, Relaxed);
        self.metrics.bytes.fetch_add(self.buf.len() as u64, Relaxed);
        self.buf.clear();
        if self.buf.capacity() > KEEP_BUFFER {
            self.buf = Vec::new();
        }
        Ok(())
    }

    /// Writes zeros behind the records, some way ahead, whenever these have
    /// reached the end of the last such stretch.
    ///
    /// Space that is allocated and was never written costs its file system a
    /// transaction of its journal with the first sync that covers it. So one
    /// sync in many pays for that, instead of each.
    fn zero_ahead(&mut self) -> Result<(), WalError> {
        let Current { position, written, .. } = self.current;
        if position <= written {
            return Ok(());
        }
        let stretch = (self.segment_bytes / 16).min(ZEROS.len() as u64);
        let end = (position + stretch).min(self.segment_bytes).max(position);
        let zeros = &ZEROS[..(end - position) as usize];
        match self.current.file.write_at(zeros, position) {
            Ok(()) => self.current.written = end,
            // It helps and need not be: where space is not allocated ahead, the records may still fit.
            Err(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                self.current.written = u64::MAX;
            }
            Err(e) => return Err(WalError::io("write", &self.path(), e)),
        }
        Ok(())
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&mut self) -> Result<(), WalError> {
        debug_assert!(self.buf.is_empty(), "flushed first");
        self.current.file.sync_data().map_err(|e| WalError::io("sync", &self.path(), e))?;
        self.metrics.fsyncs.fetch_add(1, Relaxed);
        self.durable = self.next_seq - 1;
        Ok(())
    }

    /// Leaves a witness of the last sync behind, unsynced, unless there is one
    /// or the segment is full.
    pub(crate) fn mark(&mut self) -> Result<(), WalError> {
        let room = self.current.position + 64 <= self.segment_bytes;
        if self.witnessed < self.durable && room && self.next_seq - 1 == self.durable {
            self.stage_here(&Record::Mark)?;
            self.flush()?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), WalError> {
        self.flush()?;
        self.sync()?;
        let id = self.current.header.id + 1;
        let next = create(&self.disk, &self.dir, id, self.segment_bytes, self.salt, &mut self.next_seq, &self.small)?;
        let old = std::mem::replace(&mut self.current, next);
        self.sealed.push_back(Sealed { id: old.header.id, last_index: old.last_index });
        self.durable = self.next_seq - 1;
        self.witnessed = 0;
        self.metrics.segments.store(self.sealed.len() as u64 + 1, Relaxed);
        Ok(())
    }

    /// Whether [`Writer::delete_purged`] would delete something.
    pub(crate) fn has_purged(&self) -> bool {
        let upto = self.small.purged.map(|p| p.index);
        self.sealed.front().is_some_and(|s| s.last_index.is_none_or(|last| upto.is_some_and(|u| last <= u)))
            && upto.is_some()
    }

    /// Deletes the leading segments whose entries are all purged. The purge
    /// mark must have been synced. Whether any were deleted.
    pub(crate) fn delete_purged(&mut self) -> Result<bool, WalError> {
        let mut any = false;
        while self.has_purged() {
            let Some(sealed) = self.sealed.pop_front() else { break };
            let path = self.dir.join(file_name(sealed.id));
            self.disk.remove_file(&path).map_err(|e| WalError::io("remove", &path, e))?;
            any = true;
        }
        if any {
            self.disk.sync_dir(&self.dir).map_err(|e| WalError::io("sync", &self.dir, e))?;
            self.metrics.segments.store(self.sealed.len() as u64 + 1, Relaxed);
        }
        Ok(any)
    }
}

/// The small state as records; at least one.
fn head_records(small: &Small) -> Vec<Record<'_>> {
    let mut records = vec![Record::Mark];
    records.extend(small.identity.as_deref().map(Record::Identity));
    records.extend(small.vote.as_deref().map(Record::Vote));
    records.extend(small.purged.map(Record::Purge));
    records.extend(small.committed.map(|c| Record::Committed(Some(c))));
    records
}

/// A new segment, durable with its name, its header and the state at its start.
fn create(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    id: u32,
    size: u64,
    salt: u64,
    next_seq: &mut u64,
    small: &Small,
) -> Result<Current, WalError> {
    let path = dir.join(file_name(id));
    let header = SegmentHeader { id, first_seq: *next_seq, salt };
    let mut bytes = header.encode().to_vec();
    for record in head_records(small) {
        let stamp = Stamp { seq: *next_seq, durable: header.first_seq - 1 };
        codec::encode(&record, stamp, header.seed(), &mut bytes)
            .map_err(|e| WalError::io("encode a record for", &path, std::io::Error::other(e)))?;
        *next_seq += 1;
    }
    let mut file = disk.open(&path, OpenMode::CreateNew).map_err(|e| WalError::io("create", &path, e))?;
    file.allocate(size).map_err(|e| WalError::io("allocate", &path, e))?;
    file.write_at(&bytes, 0).map_err(|e| WalError::io("write", &path, e))?;
    file.sync_data().map_err(|e| WalError::io("sync", &path, e))?;
    disk.sync_dir(dir).map_err(|e| WalError::io("sync", dir, e))?;
    let position = bytes.len() as u64;
    Ok(Current { file, header, position, written: position, last_index: None })
}
