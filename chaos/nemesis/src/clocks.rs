//! Each replica's wall clock, which can be moved without the machine's.
//!
//! The kernel has no namespace for CLOCK_REALTIME (time namespaces shift only
//! the monotonic and boot clocks), so a small library stands before libc's
//! clock functions in the replica's process (LD_PRELOAD, `shim/clock.rs`) and
//! adds an offset that is read from a file, mapped and shared. Everything in
//! the process that asks for the time gets the moved one, TLS and tokens
//! included; what the kernel stamps (files) does not move, and the monotonic
//! clock does not, as with a real step of the wall clock.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

/// The compiled shim.
const SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/clock.so"));

/// The offsets of all replicas.
#[derive(Debug)]
pub struct Clocks {
    shim: PathBuf,
    offsets: Vec<PathBuf>,
}

impl Clocks {
    /// Writes shim and offsets (0) to `dir`.
    pub fn make(dir: &Path, replicas: usize) -> anyhow::Result<Clocks> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let shim = dir.join("clock.so");
        fs::write(&shim, SHIM).with_context(|| shim.display().to_string())?;
        let offsets: Vec<PathBuf> = (0..replicas).map(|i| dir.join(format!("{i}.offset"))).collect();
        for path in &offsets {
            fs::write(path, 0i64.to_ne_bytes()).with_context(|| path.display().to_string())?;
        }
        Ok(Clocks { shim, offsets })
    }

    /// What replica `i` needs in its environment.
    pub fn env(&self, i: usize) -> Vec<(String, String)> {
        let pair = |key: &str, path: &Path| (key.to_owned(), path.display().to_string());
        vec![pair("LD_PRELOAD", &self.shim), pair("TRIARCH_CLOCK_OFFSET", &self.offsets[i])]
    }

    /// Moves the clock of replica `i` by `offset`, back when `behind`.
    pub fn set(&self, i: usize, offset: Duration, behind: bool) -> anyhow::Result<()> {
        let nanos = i64::try_from(offset.as_nanos()).context("an offset of more than 292 years")?;
        let nanos = if behind { -nanos } else { nanos };
        // In one write of eight bytes: the mapping never shows half of it.
        let file = OpenOptions::new().write(true).open(&self.offsets[i])?;
        file.write_all_at(&nanos.to_ne_bytes(), 0).context("a clock's offset")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn a_programs_wall_clock_is_moved_and_the_machines_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let clocks = Clocks::make(dir.path(), 1).unwrap();
        let shown = || -> u64 {
            let out = Command::new("date").arg("+%s").envs(clocks.env(0)).output().unwrap();
            String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
        };
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(shown().abs_diff(now()) <= 2);
        clocks.set(0, Duration::from_secs(86_400), false).unwrap();
        assert!(shown().abs_diff(now() + 86_400) <= 2);
        clocks.set(0, Duration::from_millis(3_600_500), true).unwrap();
        assert!(shown().abs_diff(now() - 3_600) <= 2);
    }
}
