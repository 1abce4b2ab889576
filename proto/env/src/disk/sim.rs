//! A disk in memory that fails on purpose.
//!
//! What it promises is the least that POSIX does: bytes survive a crash after
//! [`DiskFile::sync_data`], names after [`Disk::sync_dir`], everything else
//! survives in part or not at all, as the seed decides. A write that was not
//! synced may be kept, lost, or torn at 512-byte sectors; of the names changed
//! since the last `sync_dir` a prefix survives. After a failed sync the dirty
//! bytes are as good as lost, as on Linux, although reads still show them.
//!
//! The same seed and the same calls give the same faults.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::damage::Image;
use super::{Disk, DiskFile, OpenMode};

/// The unit in which a device writes atomically.
pub const SECTOR: usize = 512;

/// What was injected so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    pub crashes: u64,
    /// Unsynced writes that a crash lost whole, or kept in part.
    pub lost_writes: u64,
    pub torn_writes: u64,
    /// Creations, renames and removals that a crash undid.
    pub lost_names: u64,
    pub flipped_bits: u64,
    pub enospc: u64,
    pub eio: u64,
}

/// A simulated disk; clones share it. A clone made before a crash belongs to
/// the process that crashed and fails for ever: take a new one from
/// [`SimDisk::restart`].
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<State>>,
    life: u64,
}

type Inode = Arc<Mutex<Content>>;

struct State {
    rng: ChaCha8Rng,
    life: u64,
    names: BTreeMap<PathBuf, Inode>,
    durable_names: BTreeMap<PathBuf, Inode>,
    /// Per directory, changes of names since its last `sync_dir`, in order.
    dir_ops: BTreeMap<PathBuf, Vec<DirOp>>,
    capacity: u64,
    fail_syncs: u32,
    fail_writes: u32,
    /// Operations until the power fails; `None`: it does not.
    fuse: Option<u64>,
    injected: Injected,
}

#[derive(Default)]
struct Content {
    /// What reads see.
    live: Vec<u8>,
    /// What a crash keeps for certain.
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

enum DirOp {
    Create(PathBuf, Inode),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn put(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if to.len() < offset + bytes.len() {
        to.resize(offset + bytes.len(), 0);
    }
    to[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Content {
    fn sync(&mut self) {
        for op in self.pending.drain(..) {
            match op {
                Pending::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
                Pending::SetLen(len) => self.durable.resize(len, 0),
            }
        }
    }

    /// Decides what becomes of the unsynced operations; `durable` is the result.
    fn lose(&mut self, rng: &mut ChaCha8Rng, injected: &mut Injected) {
        for op in self.pending.drain(..) {
            match op {
                Pending::SetLen(len) => {
                    if rng.random() {
                        self.durable.resize(len, 0);
                    }
                }
                Pending::Write { offset, bytes } => match rng.random_range(0..3) {
                    0 => put(&mut self.durable, offset, &bytes),
                    1 => injected.lost_writes += 1,
                    _ => {
                        let (mut at, mut kept, mut all) = (0, 0u32, 0u32);
                        while at < bytes.len() {
                            let end = bytes.len().min(at + SECTOR - (offset + at) % SECTOR);
                            all += 1;
                            if rng.random() {
                                kept += 1;
                                put(&mut self.durable, offset + at, &bytes[at..end]);
                            }
                            at = end;
                        }
                        match kept {
                            0 => injected.lost_writes += 1,
                            k if k < all => injected.torn_writes += 1,
                            _ => {}
                        }
                    }
                },
            }
        }
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names.values().map(|f| f.lock().live.len() as u64).sum()
    }

    fn crash(&mut self) {
        self.life += 1;
        self.fuse = None;
        self.injected.crashes += 1;
        for ops in std::mem::take(&mut self.dir_ops).into_values() {
            let survive = self.rng.random_range(0..=ops.len());
            self.injected.lost_names += (ops.len() - survive) as u64;
            for op in ops.into_iter().take(survive) {
                op.apply(&mut self.durable_names);
            }
        }
        for file in self.durable_names.values() {
            let file = &mut *file.lock();
            file.lose(&mut self.rng, &mut self.injected);
            file.live.clone_from(&file.durable);
        }
        self.names = self.durable_names.clone();
    }
}

impl DirOp {
    fn apply(self, names: &mut BTreeMap<PathBuf, Inode>) {
        match self {
            DirOp::Create(path, inode) => {
                names.insert(path, inode);
            }
            DirOp::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            DirOp::Remove(path) => {
                names.remove(&path);
            }
        }
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_path_buf()
}

impl SimDisk {
    /// An empty disk without a limit.
    pub fn new(seed: u64) -> SimDisk {
        let state = State {
            rng: ChaCha8Rng::seed_from_u64(seed),
            life: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            dir_ops: BTreeMap::new(),
            capacity: u64::MAX,
            fail_syncs: 0,
            fail_writes: 0,
            fuse: None,
            injected: Injected::default(),
        };
        SimDisk { shared: Arc::new(Mutex::new(state)), life: 0 }
    }

    /// A disk with these files on it, durable, without a limit.
    pub fn holding(seed: u64, image: &Image) -> SimDisk {
        let disk = SimDisk::new(seed);
        let mut s = disk.shared.lock();
        for (path, bytes) in image {
            let content = Content { live: bytes.clone(), durable: bytes.clone(), pending: Vec::new() };
            s.names.insert(path.clone(), Arc::new(Mutex::new(content)));
        }
        s.durable_names = s.names.clone();
        drop(s);
        disk
    }

    /// All files as reads see them.
    pub fn image(&self) -> Image {
        self.shared.lock().names.iter().map(|(path, f)| (path.clone(), f.lock().live.clone())).collect()
    }

    /// The power fails. Every handle and open file of before fails from now on.
    pub fn crash(&self) {
        self.shared.lock().crash();
    }

    /// The disk as the next process sees it.
    pub fn restart(&self) -> SimDisk {
        let life = self.shared.lock().life;
        SimDisk { shared: self.shared.clone(), life }
    }

    /// [`SimDisk::crash`] before the `n`-th changing operation from now (0: the next).
    pub fn crash_after(&self, n: u64) {
        self.shared.lock().fuse = Some(n);
    }

    /// Whether this handle is of a process that has crashed.
    pub fn crashed(&self) -> bool {
        self.shared.lock().life != self.life
    }

    /// Flips one bit at rest; `false` when there is no such byte.
    pub fn flip(&self, path: &Path, offset: u64, bit: u8) -> bool {
        let mut s = self.shared.lock();
        let Some(file) = s.names.get(path).cloned() else { return false };
        let (mut file, at, mask) = (file.lock(), offset as usize, 1 << (bit & 7));
        let Some(byte) = file.live.get_mut(at) else { return false };
        *byte ^= mask;
        if let Some(byte) = file.durable.get_mut(at) {
            *byte ^= mask;
        }
        s.injected.flipped_bits += 1;
        true
    }

    /// Bytes that all files together may have; beyond it ENOSPC.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.lock().capacity = bytes;
    }

    /// The next `n` syncs (of files or directories) fail with EIO.
    pub fn fail_syncs(&self, n: u32) {
        self.shared.lock().fail_syncs = n;
    }

    /// The next `n` writes fail with EIO.
    pub fn fail_writes(&self, n: u32) {
        self.shared.lock().fail_writes = n;
    }

    pub fn injected(&self) -> Injected {
        self.shared.lock().injected
    }

    /// Bytes in all files.
    pub fn used(&self) -> u64 {
        self.shared.lock().used()
    }

    fn alive(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let s = self.shared.lock();
        if s.life == self.life { Ok(s) } else { Err(io::Error::other("the simulated machine has crashed")) }
    }

    /// As [`SimDisk::alive`], before something that changes the disk.
    fn change(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut s = self.alive()?;
        match s.fuse {
            Some(0) => {
                s.crash();
                return Err(io::Error::other("the simulated machine has crashed"));
            }
            Some(n) => s.fuse = Some(n - 1),
            None => {}
        }
        Ok(s)
    }
}

impl State {
    fn take_sync_failure(&mut self) -> bool {
        let fail = self.fail_syncs > 0;
        if fail {
            self.fail_syncs -= 1;
            self.injected.eio += 1;
        }
        fail
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        // Directories exist when they are named; their loss is not simulated.
        self.alive().map(drop)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let s = self.alive()?;
        let inside = s.names.keys().filter(|p| p.parent() == Some(dir));
        Ok(inside.filter_map(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned()).collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut s = if mode == OpenMode::CreateNew { self.change()? } else { self.alive()? };
        let inode = match (mode, s.names.get(path)) {
            (OpenMode::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::CreateNew, None) => {
                let inode = Inode::default();
                s.names.insert(path.to_path_buf(), inode.clone());
                s.dir_ops.entry(parent(path)).or_default().push(DirOp::Create(path.to_path_buf(), inode.clone()));
                inode
            }
            (_, None) => return Err(io::ErrorKind::NotFound.into()),
            (_, Some(inode)) => inode.clone(),
        };
        Ok(Box::new(SimFile { disk: self.clone(), inode, writable: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut s = self.change()?;
        if parent(from) != parent(to) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a rename across directories is not simulated"));
        }
        let inode = s.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        s.names.insert(to.to_path_buf(), inode);
        s.dir_ops.entry(parent(to)).or_default().push(DirOp::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut s = self.change()?;
        s.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        s.dir_ops.entry(parent(path)).or_default().push(DirOp::Remove(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut s = self.change()?;
        if s.take_sync_failure() {
            return Err(errno(libc::EIO));
        }
        for op in s.dir_ops.remove(dir).unwrap_or_default() {
            op.apply(&mut s.durable_names);
        }
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    inode: Inode,
    writable: bool,
}

impl SimFile {
    fn change(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        if self.writable { self.disk.change() } else { Err(errno(libc::EBADF)) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let _alive = self.disk.alive()?;
        let file = self.inode.lock();
        let rest = file.live.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut s = self.change()?;
        if s.fail_writes > 0 {
            s.fail_writes -= 1;
            s.injected.eio += 1;
            return Err(errno(libc::EIO));
        }
        let (used, offset) = (s.used(), offset as usize);
        let mut file = self.inode.lock();
        let grow = (offset + buf.len()).saturating_sub(file.live.len()) as u64;
        let over = (used + grow).saturating_sub(s.capacity).min(buf.len() as u64) as usize;
        let fits = &buf[..buf.len() - over];
        put(&mut file.live, offset, fits);
        file.pending.push(Pending::Write { offset, bytes: fits.to_vec() });
        if over > 0 {
            s.injected.enospc += 1;
            return Err(errno(libc::ENOSPC));
        }
        Ok(())
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        let mut s = self.change()?;
        let used = s.used();
        let mut file = self.inode.lock();
        let grow = len.saturating_sub(file.live.len() as u64);
        if used.saturating_add(grow) > s.capacity {
            s.injected.enospc += 1;
            return Err(errno(libc::ENOSPC));
        }
        if grow > 0 {
            file.live.resize(len as usize, 0);
            file.pending.push(Pending::SetLen(len as usize));
        }
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let _s = self.change()?;
        let mut file = self.inode.lock();
        file.live.resize(len as usize, 0);
        file.pending.push(Pending::SetLen(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut s = self.disk.change()?;
        let fail = s.take_sync_failure();
        let mut file = self.inode.lock();
        if fail {
            let s = &mut *s;
            file.lose(&mut s.rng, &mut s.injected);
            return Err(errno(libc::EIO));
        }
        file.sync();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let _alive = self.disk.alive()?;
        Ok(self.inode.lock().live.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: &str = "/d";

    fn path(name: &str) -> PathBuf {
        Path::new(DIR).join(name)
    }

    fn create(disk: &SimDisk, name: &str) -> Box<dyn DiskFile> {
        let f = disk.open(&path(name), OpenMode::CreateNew).unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        f
    }

    #[test]
    fn synced_bytes_and_names_survive_every_crash_and_unsynced_ones_survive_some() {
        let (mut kept, mut lost, mut torn, mut names) = (0, 0, 0, 0);
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            let mut f = create(&disk, "a");
            f.write_at(&[1; 2000], 0).unwrap();
            f.sync_data().unwrap();
            f.write_at(&[2; 2000], 2000).unwrap();
            disk.open(&path("b"), OpenMode::CreateNew).unwrap();
            disk.crash();
            assert!(f.read_at(&mut [0], 0).is_err(), "the file of a crashed process");
            assert!(disk.crashed() && disk.list(Path::new(DIR)).is_err());
            let disk = disk.restart();
            let bytes = disk.read(&path("a")).unwrap();
            assert!(bytes.len() >= 2000 && bytes[..2000].iter().all(|b| *b == 1), "seed {seed}");
            match bytes[2000..].iter().filter(|b| **b == 2).count() {
                0 => lost += 1,
                2000 => kept += 1,
                _ => torn += 1,
            }
            names += u32::from(disk.list(Path::new(DIR)).unwrap().len() == 2);
        }
        assert!(kept > 20 && lost > 20 && torn > 20 && (20..180).contains(&names), "{kept} {lost} {torn} {names}");
    }

    #[test]
    fn the_same_seed_gives_the_same_disk() {
        let run = |seed| {
            let disk = SimDisk::new(seed);
            let mut f = create(&disk, "a");
            for i in 0..20u8 {
                f.write_at(&[i + 1; 700], u64::from(i) * 700).unwrap();
            }
            disk.crash();
            let disk = disk.restart();
            (disk.read(&path("a")).unwrap(), disk.injected())
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7).0, run(8).0);
    }

    #[test]
    fn a_failed_sync_makes_the_bytes_unsafe_although_the_next_sync_succeeds() {
        let lost = (0..50).filter(|seed| {
            let disk = SimDisk::new(*seed);
            let mut f = create(&disk, "a");
            f.write_at(b"x", 0).unwrap();
            disk.fail_syncs(1);
            assert_eq!(f.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
            f.sync_data().unwrap();
            assert_eq!(disk.read(&path("a")).unwrap(), b"x");
            disk.crash();
            disk.restart().read(&path("a")).unwrap() != b"x"
        });
        assert!(lost.count() > 5);
    }

    #[test]
    fn a_full_disk_keeps_what_fitted() {
        let disk = SimDisk::new(0);
        disk.set_capacity(10);
        let mut f = create(&disk, "a");
        assert_eq!(f.allocate(11).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(f.write_at(&[9; 12], 0).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        assert_eq!((f.len().unwrap(), disk.injected().enospc), (10, 2));
    }

    #[test]
    fn the_fuse_crashes_before_the_operation_that_it_counts() {
        let disk = SimDisk::new(0);
        let mut f = create(&disk, "a");
        disk.crash_after(2);
        f.write_at(b"one", 0).unwrap();
        f.sync_data().unwrap();
        assert!(f.write_at(b"two", 0).is_err() && disk.crashed());
        assert_eq!(disk.restart().read(&path("a")).unwrap(), b"one");
        assert!(disk.restart().flip(&path("a"), 0, 0));
        assert_eq!(disk.restart().read(&path("a")).unwrap(), b"nne");
    }
}
