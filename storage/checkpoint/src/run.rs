//! One run: records in the order of their keys, written once, read from the
//! beginning to the end.
//!
//! A run has its name only when all of it is durable, so one that does not read
//! back was damaged later.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use triarch_env::{Disk, DiskFile, OpenMode};

use crate::codec::{self, Bad, Frame, HEAD, Header, MAX_RECORD, PREFIX, Root, Span, Sum, TAIL};
use crate::error::CheckpointError;

/// Bytes handed to the disk at once.
const BLOCK: usize = 256 << 10;
/// Bytes that wait for a sync at most, so that a large run does not hold up the
/// log's syncs on the same disk at its end.
const UNSYNCED: u64 = 8 << 20;
/// Bytes read at once.
const READ: usize = 64 << 10;

/// Where runs are.
#[derive(Clone)]
pub(crate) struct Place {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
}

impl Place {
    pub fn path(&self, span: Span) -> PathBuf {
        self.dir.join(span.file_name())
    }

    /// A run that is removed is in no chain any more: whether it is gone after a
    /// crash does not matter.
    pub fn remove(&self, span: Span) {
        let _ = self.disk.remove_file(&self.path(span));
    }
}

/// A finished run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub span: Span,
    pub root: Root,
    /// The checksum of its root: what the next run refers to.
    pub mark: u32,
    /// Where the records end.
    pub root_at: u64,
    pub bytes: u64,
}

/// A run being written. Dropped unfinished, it is removed.
pub(crate) struct Writer {
    place: Place,
    span: Span,
    file: Option<Box<dyn DiskFile>>,
    tmp: PathBuf,
    buffer: Vec<u8>,
    /// Of the file, what is written.
    written: u64,
    unsynced: u64,
    sum: Sum,
    last: Vec<u8>,
    durable: bool,
}

impl Writer {
    /// Not `durable` is a mistake on purpose.
    pub fn create(place: &Place, span: Span, durable: bool) -> Result<Writer, CheckpointError> {
        let create = || {
            let mut tmp = place.path(span);
            tmp.as_mut_os_string().push(".tmp");
            match place.disk.remove_file(&tmp) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let file = place.disk.open(&tmp, OpenMode::CreateNew)?;
            Ok((file, tmp))
        };
        let (file, tmp) = create().map_err(CheckpointError::io("create a file"))?;
        let buffer = codec::encode_head(span).to_vec();
        let (place, sum, last) = (place.clone(), Sum::default(), Vec::new());
        Ok(Writer { place, span, file: Some(file), tmp, buffer, written: 0, unsynced: 0, sum, last, durable })
    }

    /// Adds a record; keys must come in their order. `body` `None` removes.
    pub fn put(&mut self, key: &[u8], body: Option<&impl Serialize>) -> Result<(), CheckpointError> {
        self.in_order(key)?;
        let checksum = codec::encode_record(&mut self.buffer, key, body)?;
        self.sum.add(checksum);
        self.spill()
    }

    /// Adds a record as another run has it.
    pub fn copy(&mut self, record: &Record<'_>) -> Result<(), CheckpointError> {
        self.in_order(record.key)?;
        self.buffer.extend_from_slice(record.bytes);
        self.sum.add(record.checksum);
        self.spill()
    }

    fn in_order(&mut self, key: &[u8]) -> Result<(), CheckpointError> {
        if key <= &self.last[..] {
            let text = format!("{} is not after {}", key.escape_ascii(), self.last.escape_ascii());
            let source = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(CheckpointError::Io { action: "take objects in another order than their keys'", source });
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        Ok(())
    }

    fn spill(&mut self) -> Result<(), CheckpointError> {
        if self.buffer.len() < BLOCK {
            return Ok(());
        }
        self.write().map_err(CheckpointError::io("write a file"))
    }

    fn write(&mut self) -> io::Result<()> {
        let file = self.file.as_mut().expect("taken only when it is finished");
        file.write_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.unsynced += self.buffer.len() as u64;
        self.buffer.clear();
        if self.unsynced >= UNSYNCED && self.durable {
            file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Makes it a run of the chain, durably.
    pub fn finish(mut self, header: Header, previous: u32) -> Result<Run, CheckpointError> {
        let root_at = self.written + self.buffer.len() as u64;
        let root = Root { header, previous, sum: self.sum };
        let mark = codec::encode_record(&mut self.buffer, b"", Some(&root))?;
        self.buffer.extend_from_slice(&codec::encode_tail(root_at));
        let mut finish = || {
            self.write()?;
            if let Some(file) = self.file.as_ref().filter(|_| self.durable) {
                file.sync_data()?;
            }
            self.place.disk.rename(&self.tmp, &self.place.path(self.span))?;
            self.place.disk.sync_dir(&self.place.dir)
        };
        finish().map_err(CheckpointError::io("write a file"))?;
        self.file = None;
        Ok(Run { span: self.span, root, mark, root_at, bytes: self.written })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = self.place.disk.remove_file(&self.tmp); // the next opening removes it
        }
    }
}

/// A record as it stands in its file.
pub(crate) struct Record<'a> {
    pub key: &'a [u8],
    /// `None`: the key is removed.
    pub body: Option<&'a [u8]>,
    pub bytes: &'a [u8],
    pub checksum: u32,
}

/// Reads bytes of one file and says of which file they are wrong.
struct Source {
    file: Box<dyn DiskFile>,
    path: PathBuf,
}

impl Source {
    fn open(place: &Place, span: Span) -> Result<Source, CheckpointError> {
        let path = place.path(span);
        let file = place.disk.open(&path, OpenMode::Read).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => missing(&path),
            _ => CheckpointError::io("open a file")(e),
        })?;
        Ok(Source { file, path })
    }

    fn bad(&self, bad: Bad, at: u64) -> CheckpointError {
        let place = format!("{}, byte {at}", self.path.display());
        match bad {
            Bad::Damaged(what) => CheckpointError::Lost(format!("{place}: {what}")),
            Bad::Unsupported(what) => CheckpointError::Unsupported(format!("{place}: {what}")),
        }
    }

    /// All of `buffer`, or as much as there is.
    fn read(&self, buffer: &mut [u8], at: u64) -> Result<usize, CheckpointError> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) => return Err(CheckpointError::io("read a file")(e)),
            }
        }
        Ok(done)
    }

    fn exactly<const N: usize>(&self, at: u64) -> Result<[u8; N], CheckpointError> {
        let mut out = [0; N];
        match self.read(&mut out, at)? {
            n if n == N => Ok(out),
            _ => Err(self.bad(Bad::Damaged("the file is cut off"), at)),
        }
    }
}

pub(crate) fn missing(path: &Path) -> CheckpointError {
    CheckpointError::Lost(format!("{} is missing", path.display()))
}

/// Reads what a run says of itself; its records are read later.
pub(crate) fn inspect(place: &Place, span: Span) -> Result<Run, CheckpointError> {
    let source = Source::open(place, span)?;
    let bytes = source.file.len().map_err(CheckpointError::io("read a file"))?;
    let found = codec::decode_head(&source.exactly(0)?).map_err(|bad| source.bad(bad, 0))?;
    if found != span {
        return Err(source.bad(Bad::Damaged("it is another file under this name"), 0));
    }
    let tail_at = bytes.saturating_sub(TAIL as u64);
    let root_at = codec::decode_tail(&source.exactly(tail_at)?).map_err(|bad| source.bad(bad, tail_at))?;
    let frame = Frame::read(&source.exactly(root_at)?).map_err(|bad| source.bad(bad, root_at))?;
    if root_at < HEAD as u64 || frame.key != 0 || root_at + frame.len() as u64 != tail_at {
        return Err(source.bad(Bad::Damaged("its root is not where it should be"), root_at));
    }
    let mut record = vec![0; frame.len()];
    source.read(&mut record, root_at)?;
    frame.check(&record).map_err(|bad| source.bad(bad, root_at))?;
    let root = codec::decode_root(&record[PREFIX..]).map_err(|bad| source.bad(bad, root_at))?;
    Ok(Run { span, root, mark: frame.checksum, root_at, bytes })
}

/// The records of a run, one after the other, each checked, and all of them in
/// the end.
pub(crate) struct Reader {
    source: Source,
    /// Where the records end, and what they come to.
    end: u64,
    wanted: Sum,
    seen: Sum,
    buffer: Vec<u8>,
    /// Of the buffer: where the present record begins, and how much is filled.
    start: usize,
    filled: usize,
    /// Where in the file the buffer begins.
    offset: u64,
    current: Option<Frame>,
}

impl Reader {
    /// Stands before the first record.
    pub fn open(place: &Place, run: &Run) -> Result<Reader, CheckpointError> {
        let source = Source::open(place, run.span)?;
        Ok(Reader {
            source,
            end: run.root_at,
            wanted: run.root.sum,
            seen: Sum::default(),
            buffer: Vec::new(),
            start: 0,
            filled: 0,
            offset: HEAD as u64,
            current: None,
        })
    }

    fn at(&self) -> u64 {
        self.offset + self.start as u64
    }

    /// `n` bytes from the present place are in the buffer.
    fn fill(&mut self, n: usize) -> Result<(), CheckpointError> {
        if self.filled - self.start >= n {
            return Ok(());
        }
        self.buffer.copy_within(self.start..self.filled, 0);
        self.offset += self.start as u64;
        self.filled -= self.start;
        self.start = 0;
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        if left < n {
            return Err(self.source.bad(Bad::Damaged("a record is cut off"), self.offset));
        }
        self.buffer.resize(n.max(READ).min(left), 0);
        let at = self.offset + self.filled as u64;
        self.filled += self.source.read(&mut self.buffer[self.filled..], at)?;
        match self.filled >= n {
            true => Ok(()),
            false => Err(self.source.bad(Bad::Damaged("the file is cut off"), at)),
        }
    }

    /// Goes to the next record; `false` after the last.
    pub fn step(&mut self) -> Result<bool, CheckpointError> {
        if let Some(frame) = self.current.take() {
            self.start += frame.len();
        }
        let at = self.at();
        if at == self.end {
            return match self.seen == self.wanted {
                true => Ok(false),
                false => Err(self.source.bad(Bad::Damaged("its records are not those that its root counts"), at)),
            };
        }
        self.fill(PREFIX)?;
        let prefix = self.buffer[self.start..self.start + PREFIX].try_into().expect("as long");
        let frame = Frame::read(prefix).map_err(|bad| self.source.bad(bad, at))?;
        debug_assert!(frame.len() <= MAX_RECORD + PREFIX);
        self.fill(frame.len())?;
        frame.check(&self.buffer[self.start..self.start + frame.len()]).map_err(|bad| self.source.bad(bad, at))?;
        self.seen.add(frame.checksum);
        self.current = Some(frame);
        Ok(true)
    }

    /// The record it stands at.
    pub fn record(&self) -> Option<Record<'_>> {
        let frame = self.current?;
        let bytes = &self.buffer[self.start..self.start + frame.len()];
        let (key, body) = bytes[PREFIX..].split_at(frame.key);
        Some(Record { key, body: frame.body.map(|_| body), bytes, checksum: frame.checksum })
    }

    /// What is wrong with the record it stands at.
    pub fn bad(&self, bad: Bad) -> CheckpointError {
        self.source.bad(bad, self.at())
    }
}
