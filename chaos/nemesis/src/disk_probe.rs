//! What the disk under a run does by itself: one block is written over and
//! over and synced each time. Nothing is allocated by that, so that a sync that
//! takes long is the disk's, or that of what else writes to it; a gap in the
//! same moment is not all Triarch's own.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::shared::Shared;

/// Between two syncs: few enough to be no load.
const PAUSE: Duration = Duration::from_millis(20);
/// A sync that takes longer is noted.
const STALL: Duration = Duration::from_millis(20);
const BLOCK: usize = 4096;

/// A sync that took long; nanoseconds since the run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    pub from: u64,
    pub to: u64,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub syncs: u64,
    /// In order.
    pub stalls: Vec<Stall>,
}

impl Seen {
    /// How much of `from..to` the disk stood still for, nanoseconds.
    pub fn within(&self, from: u64, to: u64) -> u64 {
        self.stalls.iter().map(|s| s.to.min(to).saturating_sub(s.from.max(from))).sum()
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let longest = self.stalls.iter().map(|s| s.to - s.from).max().unwrap_or(0);
        write!(
            f,
            "the disk: {} of {} syncs of one block took over {} ms, the longest {} ms",
            self.stalls.len(),
            self.syncs,
            STALL.as_millis(),
            longest / 1_000_000
        )
    }
}

/// A thread that looks.
pub struct DiskProbe {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<Seen>>>,
}

impl DiskProbe {
    /// Starts to look at the disk under `dir`.
    ///
    /// # Errors
    /// No file can be made there.
    pub fn start(dir: &Path, shared: Arc<Shared>) -> anyhow::Result<DiskProbe> {
        let path = dir.join("probe");
        let make = || -> std::io::Result<File> {
            let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
            file.write_all_at(&[1; BLOCK], 0)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = make().with_context(|| path.display().to_string())?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread =
            std::thread::Builder::new().name("disk probe".into()).spawn(move || look(&file, &shared, &until))?;
        Ok(DiskProbe { stop, thread: Some(thread) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// The disk refused a write or a sync.
    pub fn finish(mut self) -> anyhow::Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("finished once")?;
        let seen = thread.join().map_err(|_| anyhow::anyhow!("the probe of the disk panicked"))?;
        seen.context("the probe of the disk")
    }
}

impl Drop for DiskProbe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look(file: &File, shared: &Shared, stop: &AtomicBool) -> std::io::Result<Seen> {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
        let (from, began) = (shared.now(), Instant::now());
        file.write_all_at(&[seen.syncs as u8; BLOCK], 0)?;
        file.sync_data()?;
        seen.syncs += 1;
        if began.elapsed() > STALL {
            seen.stalls.push(Stall { from, to: shared.now() });
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_told_how_much_of_it_the_disk_stood_still() {
        let seen = Seen { syncs: 9, stalls: vec![Stall { from: 10, to: 50 }, Stall { from: 80, to: 90 }] };
        assert_eq!(seen.within(0, 10), 0);
        assert_eq!(seen.within(40, 85), 15);
        assert_eq!(seen.within(0, 100), 50);
        assert_eq!(seen.within(50, 80), 0);
    }

    #[test]
    fn the_disk_is_looked_at_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let probe = DiskProbe::start(dir.path(), Arc::new(Shared::default())).unwrap();
        std::thread::sleep(PAUSE * 5);
        let seen = probe.finish().unwrap();
        assert!(seen.syncs > 0, "{seen}");
        assert!(DiskProbe::start(&dir.path().join("none"), Arc::new(Shared::default())).is_err());
    }
}
