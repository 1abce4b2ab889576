//! The disk seam. All IO of the WAL and the data directory goes through
//! [`Disk`], so that a test can crash it (unsynced bytes lost), tear a write,
//! flip bits, fill it (ENOSPC) and fail it (EIO).

pub mod damage;
mod real;
mod sim;

use std::io;
use std::path::{Path, PathBuf};

pub use real::RealDisk;
pub use sim::{Injected, SECTOR, SimDisk};

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing file, reads only.
    Read,
    /// Existing file, reads and writes.
    ReadWrite,
    /// New file; fails with `AlreadyExists` when it is there.
    CreateNew,
}

/// A file system as the store sees it. Durability is the caller's business:
/// bytes are safe after [`DiskFile::sync_data`], names after [`Disk::sync_dir`].
pub trait Disk: Send + Sync + 'static {
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// File names (not paths) in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Writes a whole file so that a crash leaves either the old or the new one.
    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut tmp: PathBuf = path.to_path_buf();
        tmp.as_mut_os_string().push(".tmp");
        match self.remove_file(&tmp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut f = self.open(&tmp, OpenMode::CreateNew)?;
        f.write_at(bytes, 0)?;
        f.sync_data()?;
        drop(f);
        self.rename(&tmp, path)?;
        self.sync_dir(dir)
    }

    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let f = self.open(path, OpenMode::Read)?;
        let len = usize::try_from(f.len()?).map_err(|_| io::Error::other("file too large"))?;
        let mut buf = vec![0; len];
        let mut done = 0;
        while done < len {
            match f.read_at(&mut buf[done..], done as u64)? {
                0 => {
                    buf.truncate(done);
                    break;
                }
                n => done += n,
            }
        }
        Ok(buf)
    }
}

/// An open file. Offsets are bytes from its start.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buf.len()` bytes; 0 at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf`.
    fn write_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Reserves space up to `len` bytes (zero-filled), so that later writes
    /// inside it change no metadata.
    fn allocate(&mut self, len: u64) -> io::Result<()>;
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Makes the file's bytes (and its size) durable: fdatasync.
    fn sync_data(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}
