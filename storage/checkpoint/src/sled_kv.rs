//! sled as the key-value store; the only file that knows it.
//!
//! What was measured and is worked around here: `flush` does not fsync on
//! Linux (so the `db` file is fdatasynced after it), a damaged store may panic
//! when it is opened or read (caught, and reported as an error), the file never
//! shrinks (the checkpoint rotates to a fresh directory), and threads of its
//! own may hold its lock for a while after it is closed (waited for).
//!
//! ```text
//!  <dir>/CURRENT      the number of the current generation
//!  <dir>/sled-<n>/    a sled each
//! ```

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use triarch_env::{Disk, RealDisk};

use crate::kv::{Batch, Generations, Kv};

/// Bytes of sled's page cache.
const CACHE: u64 = 2 << 20;
const CURRENT: &str = "CURRENT";
/// Looks at a closed store's lock before it is left to itself, and the time between two.
const RELEASE_LOOKS: usize = 5000;
const RELEASE_PAUSE: Duration = Duration::from_millis(1);

/// Generations under a directory.
#[derive(Clone, Debug)]
pub struct SledGenerations {
    dir: PathBuf,
}

impl SledGenerations {
    /// Creates `dir` when it is missing.
    pub fn new(dir: &Path) -> io::Result<SledGenerations> {
        fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            RealDisk.sync_dir(parent)?;
        }
        Ok(SledGenerations { dir: dir.to_path_buf() })
    }

    fn path(&self, generation: u64) -> PathBuf {
        self.dir.join(format!("sled-{generation}"))
    }

    fn start(&self, generation: u64) -> io::Result<Box<dyn Kv>> {
        let path = self.path(generation);
        let config =
            sled::Config::new().path(&path).cache_capacity(CACHE).mode(sled::Mode::LowSpace).flush_every_ms(None);
        let db = guarded("opened", || config.open().map_err(to_io))?;
        let file = File::open(path.join("db"))?;
        Ok(Box::new(SledKv { db, file: Released(file) }))
    }
}

/// What sled answers; a panic, which damage may bring about, is an error.
fn guarded<T>(what: &str, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let panicked = |_| io::Error::new(io::ErrorKind::InvalidData, format!("sled panicked while it {what} the store"));
    catch_unwind(AssertUnwindSafe(f)).map_err(panicked)?
}

fn to_io(e: sled::Error) -> io::Error {
    match e {
        // sled hides the kind of its lock's error in a text.
        sled::Error::Io(e) if e.to_string().starts_with("could not acquire lock") => {
            io::Error::new(io::ErrorKind::WouldBlock, e.to_string())
        }
        sled::Error::Io(e) => e,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

impl Generations for SledGenerations {
    fn current(&self) -> io::Result<Option<u64>> {
        match RealDisk.read(&self.dir.join(CURRENT)) {
            Ok(bytes) => match String::from_utf8_lossy(&bytes).trim().parse() {
                Ok(n) => Ok(Some(n)),
                Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "CURRENT holds no number")),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn list(&self) -> io::Result<Vec<u64>> {
        let mut out = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            out.extend(name.to_str().and_then(|n| n.strip_prefix("sled-")).and_then(|n| n.parse::<u64>().ok()));
        }
        Ok(out)
    }

    fn open(&self, generation: u64) -> io::Result<Box<dyn Kv>> {
        // sled would make a missing store, and an empty one is not this one.
        if !self.path(generation).join("db").exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.start(generation)
    }

    fn create(&self, generation: u64) -> io::Result<Box<dyn Kv>> {
        self.remove(generation)?;
        self.start(generation)
    }

    fn switch(&self, generation: u64) -> io::Result<()> {
        // The generation's own names first, then the file that points to it.
        RealDisk.sync_dir(&self.path(generation))?;
        if let Ok(conf) = File::open(self.path(generation).join("conf")) {
            conf.sync_all()?;
        }
        RealDisk.sync_dir(&self.dir)?;
        RealDisk.write_atomic(&self.dir.join(CURRENT), format!("{generation}\n").as_bytes())
    }

    fn remove(&self, generation: u64) -> io::Result<()> {
        match fs::remove_dir_all(self.path(generation)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

struct SledKv {
    // Dropped before the file, which waits for its lock.
    db: sled::Db,
    file: Released,
}

/// The store's file; whoever has dropped it can open the store again.
struct Released(File);

impl Drop for Released {
    fn drop(&mut self) {
        for _ in 0..RELEASE_LOOKS {
            if !matches!(self.0.try_lock(), Err(fs::TryLockError::WouldBlock)) {
                return;
            }
            std::thread::sleep(RELEASE_PAUSE);
        }
    }
}

impl Kv for SledKv {
    fn apply(&self, batch: Batch) -> io::Result<()> {
        let mut out = sled::Batch::default();
        for (key, value) in batch.changes {
            match value {
                Some(value) => out.insert(key, value),
                None => out.remove(key),
            }
        }
        guarded("wrote to", || self.db.apply_batch(out).map_err(to_io))
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        guarded("read", || Ok(self.db.get(key).map_err(to_io)?.map(|v| v.to_vec())))
    }

    fn scan(&self, after: Option<&[u8]>, max_bytes: usize) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut out, mut bytes) = (Vec::new(), 0);
        guarded("read", || {
            for pair in self.db.range::<&[u8], _>((from, Bound::Unbounded)) {
                let (k, v) = pair.map_err(to_io)?;
                bytes += k.len() + v.len();
                if bytes > max_bytes && !out.is_empty() {
                    break;
                }
                out.push((k.to_vec(), v.to_vec()));
            }
            Ok(())
        })?;
        Ok(out)
    }

    fn sync(&self) -> io::Result<()> {
        guarded("flushed", || self.db.flush().map_err(to_io))?;
        self.file.0.sync_data()
    }

    fn size_on_disk(&self) -> io::Result<u64> {
        guarded("measured", || self.db.size_on_disk().map_err(to_io))
    }
}
