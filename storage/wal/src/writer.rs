//! The writing half: stages records in one buffer, writes it with one call,
//! syncs, starts segments and deletes them.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use triarch_env::{Disk, OpenMode};

use crate::codec::{self, BARE_RECORD, Record, SEGMENT_HEADER, SegmentHeader, Stamp};
use crate::error::WalError;
use crate::index::{Place, Small};
use crate::metrics::WalMetrics;
use crate::recover::{Current, Recovered, Sealed};
use crate::segment::{file_name, unborn_name};
use crate::tail;
use crate::wal::Config;

/// A buffer larger than this is not kept for the next group.
const KEEP_BUFFER: usize = 1 << 20;
/// Kept free at a segment's end, for its seal and a mark.
const END_ROOM: u64 = 2 * BARE_RECORD as u64;
/// Segments smaller than this are made in no time, bytes.
const STAGGERED: u64 = 1 << 20;
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
    /// What was staged since the last sync has a sector of nothing but zeros.
    blank: bool,
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
            None => {
                let size = reserved(segment_bytes, salt, next_id);
                let first = SegmentHeader { id: next_id, first_seq: next_seq, salt, size, log: salt, head: 0 };
                create(&disk, dir, first, 0, &mut next_seq, &index.small)?
            }
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
            blank: false,
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

    /// Where the segment's records end at latest. In format 1 it is not known
    /// how much was allocated, and the configuration says how much is used.
    fn limit(&self) -> u64 {
        match self.current.header.size {
            0 => self.segment_bytes,
            size => size,
        }
    }

    /// Adds a record to the buffer; writes, syncs and starts a segment when the
    /// present one is full.
    pub(crate) fn stage(&mut self, record: &Record<'_>) -> Result<Place, WalError> {
        let (before, last_index, blank) = (self.buf.len(), self.current.last_index, self.blank);
        let place = self.stage_here(record)?;
        let end = self.current.position + self.buf.len() as u64;
        if end + END_ROOM <= self.limit() {
            return Ok(place);
        }
        self.buf.truncate(before);
        self.next_seq -= 1;
        (self.current.last_index, self.blank) = (last_index, blank);
        self.rotate(u64::from(place.len) + END_ROOM)?;
        self.stage_here(record)
    }

    fn stage_here(&mut self, record: &Record<'_>) -> Result<Place, WalError> {
        let start = self.buf.len();
        let stamp = Stamp { seq: self.next_seq, durable: self.durable };
        codec::encode(record, stamp, self.current.header.seed(), &mut self.buf)
            .map_err(|detail| WalError::io("encode a record for", &self.path(), std::io::Error::other(detail)))?;
        self.next_seq += 1;
        self.witnessed = self.durable;
        self.blank |= tail::has_blank_part(&self.buf[start..], self.current.position + start as u64);
        match *record {
            Record::Entry(id, _) => self.current.last_index = self.current.last_index.max(Some(id.index)),
            Record::Vote(b) => self.small.vote = Some(b.to_vec().into()),
            Record::Identity(b) => self.small.identity = Some(b.to_vec().into()),
            Record::Committed(id) => self.small.committed = id,
            Record::Purge(id) => self.small.purged = Some(id),
            Record::Truncate(_) | Record::Mark | Record::Seal => {}
        }
        Ok(Place {
            segment: self.current.header.id,
            offset: u32::try_from(self.current.position + start as u64)
                .expect("segments end before 1 GiB, or behind one record"),
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
        let end = (position + stretch).min(self.limit()).max(position);
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

    /// Makes everything written durable, and certain: a record that looks like
    /// a torn one by its own zeros is witnessed before this returns.
    pub(crate) fn sync(&mut self) -> Result<(), WalError> {
        self.sync_file()?;
        if std::mem::take(&mut self.blank) {
            self.stage_here(&Record::Mark)?;
            self.flush()?;
            self.sync_file()?;
        }
        Ok(())
    }

    fn sync_file(&mut self) -> Result<(), WalError> {
        debug_assert!(self.buf.is_empty(), "flushed first");
        self.current.file.sync_data().map_err(|e| WalError::io("sync", &self.path(), e))?;
        self.metrics.fsyncs.fetch_add(1, Relaxed);
        self.durable = self.next_seq - 1;
        Ok(())
    }

    /// Leaves a witness of the last sync behind, unsynced, unless there is one
    /// or the segment is full.
    pub(crate) fn mark(&mut self) -> Result<(), WalError> {
        let room = self.current.position + END_ROOM <= self.limit();
        if self.witnessed < self.durable && room && self.next_seq - 1 == self.durable {
            self.stage_here(&Record::Mark)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Starts the next segment, with room for `record` bytes. Its name is
    /// durable before the present one is sealed, and the seal before anything
    /// is written to it.
    fn rotate(&mut self, record: u64) -> Result<(), WalError> {
        self.flush()?;
        self.sync()?;
        let SegmentHeader { id, log, .. } = self.current.header;
        let seal = Stamp { seq: self.next_seq, durable: self.durable };
        self.next_seq += 1;
        let header = SegmentHeader {
            id: id + 1,
            first_seq: self.next_seq,
            salt: self.salt,
            size: reserved(self.segment_bytes, self.salt, id + 1),
            // A log of format 1 gets its number with its first segment of format 2.
            log: if log == 0 { self.salt } else { log },
            head: 0,
        };
        let next = create(&self.disk, &self.dir, header, record, &mut self.next_seq, &self.small)?;
        let mut bytes = Vec::with_capacity(BARE_RECORD);
        codec::encode(&Record::Seal, seal, self.current.header.seed(), &mut bytes).expect("a seal has no body");
        let old = &mut self.current;
        let sealed = old.file.write_at(&bytes, old.position).and_then(|()| old.file.sync_data());
        sealed.map_err(|e| WalError::io("seal", &self.path(), e))?;
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

/// What segment `id` reserves: up to a quarter less than `segment_bytes`, as the
/// salt has it. The logs of all replicas hold the same, and a new segment costs
/// the file system a moment (100 to 280 ms without a write were measured): so
/// they do not all start theirs at the same record, and a majority goes on.
fn reserved(segment_bytes: u64, salt: u64, id: u32) -> u64 {
    if salt == 0 || segment_bytes < STAGGERED {
        return segment_bytes;
    }
    let mixed = (salt ^ u64::from(id) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    segment_bytes - (((segment_bytes / 4) * mixed) >> 32)
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

/// A new segment with room for `more` bytes behind the state at its start. It
/// is durable before it gets its name, and its name is when this returns.
fn create(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    mut header: SegmentHeader,
    more: u64,
    next_seq: &mut u64,
    small: &Small,
) -> Result<Current, WalError> {
    let (path, unborn) = (dir.join(file_name(header.id)), dir.join(unborn_name(header.id)));
    let mut head = Vec::new();
    for record in head_records(small) {
        let stamp = Stamp { seq: *next_seq, durable: header.first_seq - 1 };
        codec::encode(&record, stamp, header.seed(), &mut head)
            .map_err(|e| WalError::io("encode a record for", &path, std::io::Error::other(e)))?;
        *next_seq += 1;
    }
    header.head = u32::try_from(head.len()).expect("a vote and an identity of 64 KiB");
    header.size = header.size.max((SEGMENT_HEADER + head.len()) as u64 + more + END_ROOM);
    let bytes = [&header.encode()[..], &head].concat();
    let mut file = disk.open(&unborn, OpenMode::CreateNew).map_err(|e| WalError::io("create", &path, e))?;
    file.allocate(header.size).map_err(|e| WalError::io("allocate", &path, e))?;
    file.write_at(&bytes, 0).map_err(|e| WalError::io("write", &path, e))?;
    file.sync_data().map_err(|e| WalError::io("sync", &path, e))?;
    disk.rename(&unborn, &path).map_err(|e| WalError::io("name", &path, e))?;
    disk.sync_dir(dir).map_err(|e| WalError::io("sync", dir, e))?;
    let position = bytes.len() as u64;
    Ok(Current { file, header, position, written: position, last_index: None })
}

#[cfg(test)]
mod tests {
    use super::reserved;

    #[test]
    fn segments_of_different_logs_end_at_different_places_and_are_nearly_as_large_as_they_may_be() {
        let full = 64 << 20;
        assert_eq!(reserved(full, 0, 1), full);
        let mut sizes: Vec<u64> = (1..=50).flat_map(|salt| (1..=4).map(move |id| reserved(full, salt, id))).collect();
        assert!(sizes.iter().all(|size| (full * 3 / 4..=full).contains(size)), "{sizes:?}");
        sizes.sort_unstable();
        sizes.dedup();
        assert_eq!(sizes.len(), 200);
        let spread = sizes[199] - sizes[0];
        assert!(spread > full / 5, "{spread}");
    }
}
