//! The log without tasks and threads: commands in, durable after a sync.
//!
//! [`Log`] is what callers and the writer share (the index and the reader);
//! [`Wal`] is the writer's side. A command is first admitted, which changes
//! the index at once, so that its effect is readable, and then written. A
//! group of commands takes one write and at most one sync.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use parking_lot::Mutex;
use triarch_env::Disk;

use crate::codec::{LogId, MAX_PAYLOAD, MAX_SMALL, Record};
use crate::error::WalError;
use crate::index::{Entry, Found, LogIndex, Place};
use crate::metrics::WalMetrics;
use crate::recover::{Repair, recover};
use crate::segment::Reader;
use crate::writer::Writer;

/// Sizes, all in bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Reserved for each segment (4 KiB to 1 GiB); a segment ends before the
    /// record that does not fit.
    pub segment_bytes: u64,
    /// Payloads kept in memory for readers that keep up.
    pub tail_bytes: usize,
    /// Waiting to be written; callers of `append` wait beyond it.
    pub queue_bytes: usize,
    /// Written by one call at most, unless one command is larger.
    pub group_bytes: usize,
    /// Random: makes the checksums of this log its own.
    pub salt: u64,
    /// A log may begin here. Where it has begun before and none is found, it was
    /// lost: then nothing is made in its place, so that it can be put back.
    pub begins: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            segment_bytes: 64 << 20,
            tail_bytes: 8 << 20,
            queue_bytes: 32 << 20,
            group_bytes: 4 << 20,
            salt: 0,
            begins: true,
        }
    }
}

/// A change of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Adds entries behind the last one.
    Append(Vec<Entry>),
    /// Replaces the vote (opaque, at most 64 KiB).
    Vote(Bytes),
    /// Replaces who this log belongs to (opaque, at most 64 KiB).
    Identity(Bytes),
    /// Notes what is committed. Not synced: it may be older after a crash.
    Committed(Option<LogId>),
    /// Drops the entries after an index, or all.
    Truncate(Option<u64>),
    /// Drops the entries up to here, which may be beyond the last.
    Purge(LogId),
}

/// A command that the index has taken.
pub(crate) struct Admitted {
    command: Command,
    /// Of the first entry; the others follow.
    ticket: u32,
}

impl Admitted {
    pub(crate) fn bytes(&self) -> usize {
        match &self.command {
            Command::Append(entries) => entries.iter().map(|e| e.payload.len() + 64).sum(),
            Command::Vote(b) | Command::Identity(b) => b.len() + 64,
            _ => 64,
        }
    }
}

/// The readers' side.
pub(crate) struct Log {
    pub(crate) index: Mutex<LogIndex>,
    reader: Reader,
}

impl Log {
    /// Checks a command and applies it to the index. Nothing changes on an error.
    pub(crate) fn admit(&self, command: Command) -> Result<Admitted, WalError> {
        let mut index = self.index.lock();
        let mut ticket = 0;
        match &command {
            Command::Append(entries) => {
                for (i, e) in entries.iter().enumerate() {
                    let (size, limit) = (e.payload.len(), MAX_PAYLOAD);
                    if size > limit {
                        return Err(WalError::TooLarge { what: "an entry", size, limit });
                    }
                    let expected = entries[0].id.index + i as u64;
                    if e.id.index != expected {
                        return Err(WalError::NotNext { expected, got: e.id.index });
                    }
                }
                for (i, e) in entries.iter().enumerate() {
                    let t = index.push(e)?; // only the first can fail
                    if i == 0 {
                        ticket = t;
                    }
                }
            }
            Command::Vote(b) | Command::Identity(b) if b.len() > MAX_SMALL => {
                return Err(WalError::TooLarge { what: "a vote or an identity", size: b.len(), limit: MAX_SMALL });
            }
            Command::Vote(b) => index.small.vote = Some(b.clone()),
            Command::Identity(b) => index.small.identity = Some(b.clone()),
            Command::Committed(id) => index.small.committed = *id,
            Command::Truncate(after) => index.truncate(*after),
            Command::Purge(upto) => index.purge(*upto),
        }
        Ok(Admitted { command, ticket })
    }

    /// See [`crate::WalHandle::read`].
    pub(crate) fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Entry>, WalError> {
        let found = self.index.lock().find(start, end, max_bytes)?;
        let mut out = Vec::with_capacity(found.len());
        for f in found {
            out.push(match f {
                Found::Memory(entry) => entry,
                Found::Disk(id, place) => match self.reader.entry(id, place) {
                    Ok(entry) => entry,
                    // A purge may have deleted the file meanwhile.
                    Err(e) => {
                        let first = self.index.lock().first();
                        return Err(if id.index < first { WalError::Purged { index: id.index, first } } else { e });
                    }
                },
            });
        }
        Ok(out)
    }
}

/// The writer's side of a log. One at a time per directory.
pub struct Wal {
    writer: Writer,
    pub(crate) log: Arc<Log>,
    pub(crate) metrics: Arc<WalMetrics>,
    places: Vec<(u64, u32, Place)>,
}

impl Wal {
    /// Opens the log in `dir`, or starts one where it may begin. A torn tail is cut off (and
    /// reported); damage to anything that was synced is an error.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, config: &Config) -> Result<(Wal, Option<Repair>), WalError> {
        disk.create_dir_all(dir).map_err(|e| WalError::io("create", dir, e))?;
        let mut recovered = recover(&disk, dir, config.tail_bytes)?;
        if recovered.current.is_none() && !config.begins {
            return Err(WalError::Lost { dir: dir.to_path_buf() });
        }
        let repair = recovered.repair.clone();
        let small = recovered.index.small.clone();
        let index = std::mem::replace(&mut recovered.index, LogIndex::new(0));
        recovered.index.small = small;
        let metrics = Arc::new(WalMetrics::default());
        metrics.segments.store(recovered.sealed.len() as u64 + 1, Relaxed);
        let log = Arc::new(Log { index: Mutex::new(index), reader: Reader::new(disk.clone(), dir) });
        let writer = Writer::new(disk, dir, config, recovered, metrics.clone())?;
        Ok((Wal { writer, log, metrics, places: Vec::new() }, repair))
    }

    /// Admits, writes and syncs a group. For tools and tests; a replica uses
    /// [`crate::WalHandle`]. After an error other than a refused command the
    /// log must be opened again.
    pub fn run(&mut self, commands: Vec<Command>) -> Result<(), WalError> {
        let admitted = commands.into_iter().map(|c| self.log.admit(c)).collect::<Result<Vec<_>, _>>()?;
        if self.write(&admitted)? {
            self.sync()?;
        }
        Ok(())
    }

    /// Entries `start..end`, as [`crate::WalHandle::read`].
    pub fn read(&self, start: u64, end: u64) -> Result<Vec<Entry>, WalError> {
        self.log.read(start, end, usize::MAX)
    }

    pub fn state(&self) -> crate::State {
        crate::State::of(&self.log.index.lock())
    }

    /// Writes a group; whether it wants a sync before it may be acknowledged.
    pub(crate) fn write(&mut self, group: &[Admitted]) -> Result<bool, WalError> {
        let mut sync = false;
        self.metrics.groups.fetch_add(1, Relaxed);
        self.metrics.commands.fetch_add(group.len() as u64, Relaxed);
        for admitted in group {
            let record = match &admitted.command {
                Command::Append(entries) => {
                    for (i, e) in entries.iter().enumerate() {
                        let place = self.writer.stage(&Record::Entry(e.id, &e.payload))?;
                        self.places.push((e.id.index, admitted.ticket.wrapping_add(i as u32), place));
                    }
                    sync = true;
                    continue;
                }
                Command::Vote(b) => Record::Vote(b),
                Command::Identity(b) => Record::Identity(b),
                Command::Committed(id) => Record::Committed(*id),
                Command::Truncate(after) => Record::Truncate(*after),
                Command::Purge(upto) => Record::Purge(*upto),
            };
            self.writer.stage(&record)?;
            sync |= !matches!(admitted.command, Command::Committed(_) | Command::Purge(_));
        }
        self.writer.flush()?;
        if !self.places.is_empty() {
            let mut index = self.log.index.lock();
            for (i, ticket, place) in self.places.drain(..) {
                index.written(i, ticket, place);
            }
        }
        Ok(sync || self.writer.has_purged())
    }

    /// Syncs what was written, then deletes segments that are purged.
    pub(crate) fn sync(&mut self) -> Result<(), WalError> {
        self.writer.sync()?;
        if self.writer.has_purged() {
            self.log.reader.forget();
            self.writer.delete_purged()?;
        }
        Ok(())
    }

    /// For when there is nothing to do: leaves a witness of the last sync.
    pub fn idle(&mut self) -> Result<(), WalError> {
        self.writer.mark()
    }
}
