//! A disk of a replica's own: a file system of bounded size in a file, that
//! can be filled, held up and slowed down.
//!
//! ```text
//!   IMAGE (sparse) ─► loop device ─► ext4 at AT/…  ─► bind mount: the data directory
//! ```
//! A hold is FIFREEZE: nothing that is written gets on until the thaw, so a
//! write of the log and the fdatasync behind it take as long as the hold. A
//! slow disk is the block controller's limit on writes a second, for one
//! process. Invariant: mounts are made in this process's own mount namespace
//! ([`crate::netns::isolate`]) and end with it, and with them the loop device;
//! a hold is ended by a child that outlives this process.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use crate::error::{Context, LabError, Result};
use crate::process::{self, ProcessId};

/// What a filled disk has left, in bytes.
const LEFT: u64 = 64 << 10;
/// Longest hold, milliseconds.
pub const MAX_HOLD: u64 = 10_000;

/// A mounted file system.
#[derive(Debug)]
pub struct Disk {
    /// Where the whole of it is mounted, and its folder.
    at: PathBuf,
    data: PathBuf,
    /// `major:minor` of the loop device.
    device: String,
    group: Option<Slow>,
}

impl Disk {
    /// Makes a file system of `bytes` in `image`, mounts it at `at`, and a
    /// folder of it at `data`.
    pub fn make(image: &Path, at: &Path, data: &Path, bytes: u64) -> Result<Disk> {
        let file = File::create(image).step("disk", image.display())?;
        file.set_len(bytes).step("disk", image.display())?;
        run("mkfs.ext4", &["-q", "-m", "0"], &[image])?;
        for dir in [at, data] {
            fs::create_dir_all(dir).step("disk", dir.display())?;
        }
        // Mounted with `loop` the device goes by itself when the mount does.
        run("mount", &["-o", "loop,noatime"], &[image, at])?;
        let inside = at.join("data");
        fs::create_dir(&inside).step("disk", inside.display())?;
        run("mount", &["--bind"], &[&inside, data])?;
        let stat = nix::sys::stat::stat(at).step("disk", at.display())?;
        let device = format!("{}:{}", nix::sys::stat::major(stat.st_dev), nix::sys::stat::minor(stat.st_dev));
        Ok(Disk { at: at.to_owned(), data: data.to_owned(), device, group: None })
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result<u64> {
        let path = self.at.join("filler");
        let file = OpenOptions::new().create(true).append(true).open(&path).step("disk", path.display())?;
        let mut taken = 0;
        loop {
            let free = nix::sys::statvfs::statvfs(&self.at).step("disk", self.at.display())?;
            let free = free.blocks_available() * free.fragment_size();
            if free <= LEFT {
                return Ok(taken);
            }
            let size = file.metadata().step("disk", path.display())?.len();
            let more = free - LEFT / 2;
            // SAFETY: a plain system call on a descriptor that lives here.
            let done = unsafe { libc::fallocate(file.as_raw_fd(), 0, size as i64, more as i64) };
            if done != 0 {
                // Others write meanwhile: what is left then is less than was asked for.
                let e = std::io::Error::last_os_error();
                if e.kind() == std::io::ErrorKind::StorageFull {
                    return Ok(taken);
                }
                return Err(LabError::new("disk", format!("fallocate in {}: {e}", path.display())));
            }
            taken += more;
        }
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        let path = self.at.join("filler");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(LabError::new("disk", format!("{}: {e}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// Holds up everything that is written, for `ms` milliseconds (at most
    /// [`MAX_HOLD`]); returns when it is over.
    pub async fn hold(&self, ms: u64) -> Result<()> {
        let ms = ms.min(MAX_HOLD);
        let script = "fsfreeze --freeze \"$0\" && sleep \"$1\"; fsfreeze --unfreeze \"$0\"";
        let seconds = format!("{}.{:03}", ms / 1000, ms % 1000);
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&self.at).arg(seconds).stdin(Stdio::null());
        // Ctrl-C at a terminal must not end it between freeze and thaw.
        command.process_group(0);
        let held = tokio::task::spawn_blocking(move || process::run("disk", &mut command));
        let limit = Duration::from_millis(ms) + Duration::from_secs(30);
        let held = tokio::time::timeout(limit, held).await.step("disk", "a file system stays frozen")?;
        held.step("disk", "a thread")?.map(drop)
    }

    /// Lets `process` make no more than `writes` writes a second here.
    pub fn slow(&mut self, process: ProcessId, writes: u32) -> Result<()> {
        self.group = Some(Slow::start(&self.device, process, writes)?);
        Ok(())
    }

    /// As fast as it is.
    pub fn unslow(&mut self) {
        self.group = None;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.group = None;
        for at in [&self.data, &self.at] {
            // What stays goes with this process.
            let _ = umount2(at, MntFlags::MNT_DETACH);
        }
    }
}

/// A control group with a limit; its process leaves it when this is dropped.
#[derive(Debug)]
struct Slow {
    group: PathBuf,
    parent: PathBuf,
}

/// The first version's hierarchy and the second's.
const V1: &str = "/sys/fs/cgroup/blkio";
const V2: &str = "/sys/fs/cgroup";

/// Whether writes can be slowed here, and how.
pub fn throttle() -> Option<&'static str> {
    if Path::new(V1).join("blkio.throttle.write_iops_device").exists() {
        return Some(V1);
    }
    let controllers = fs::read_to_string(Path::new(V2).join("cgroup.subtree_control")).unwrap_or_default();
    controllers.split_whitespace().any(|c| c == "io").then_some(V2)
}

impl Slow {
    fn start(device: &str, process: ProcessId, writes: u32) -> Result<Slow> {
        let parent = throttle().ok_or_else(|| LabError::new("disk", "this kernel limits no writes"))?;
        let group = Path::new(parent).join(format!("triarch-slow-{}", process.pid));
        fs::create_dir(&group).step("disk", group.display())?;
        let slow = Slow { group, parent: PathBuf::from(parent) };
        let (file, limit) = match parent {
            V1 => ("blkio.throttle.write_iops_device", format!("{device} {writes}")),
            _ => ("io.max", format!("{device} wiops={writes}")),
        };
        fs::write(slow.group.join(file), limit).step("disk", file)?;
        fs::write(slow.group.join("cgroup.procs"), process.pid.to_string()).step("disk", "cgroup.procs")?;
        Ok(slow)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        for pid in fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default().lines() {
            // One that has ended meanwhile is in no group any more.
            let _ = fs::write(self.parent.join("cgroup.procs"), pid);
        }
        process::wait_for(Duration::from_secs(2), || fs::remove_dir(&self.group).is_ok() || !self.group.exists());
    }
}

/// Removes groups that a crashed run left, when their process is gone.
pub fn remove_left() {
    let Some(parent) = throttle() else { return };
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.strip_prefix("triarch-slow-")) else { continue };
        if pid.parse().ok().and_then(ProcessId::of).is_none() {
            // One that is in use after all stays.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn run(program: &str, flags: &[&str], paths: &[&Path]) -> Result<()> {
    process::run("disk", Command::new(program).args(flags).args(paths)).map(drop)
}
