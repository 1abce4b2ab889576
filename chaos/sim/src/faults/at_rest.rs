//! Bits of a log flip while its machine is off. The replica must notice before
//! it takes part again; when it refuses to start, another takes its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use triarch_env::{Disk, SimDisk};

use super::{between, replace};
use crate::machine::{Up, WAL_DIR};
use crate::run::Run;

/// Bits that flip at once, at most.
const BITS: u64 = 3;

/// Where in a directory something is written: a file and how far it is used.
pub(super) fn used(disk: &SimDisk, dir: &Path) -> Vec<(PathBuf, u64)> {
    let files = disk.list(dir).unwrap_or_default().into_iter().map(|name| dir.join(name));
    let written = |path: PathBuf| {
        let bytes = disk.read(&path).ok()?;
        let last = bytes.iter().rposition(|b| *b != 0)?;
        Some((path, last as u64 + 1))
    };
    files.filter_map(written).collect()
}

pub async fn inject(run: Arc<Run>) {
    // The others must have everything: this is damage to one replica at a time.
    let fit = |up: &Up| up.db.is_ready() && !up.process.is_paused();
    if run.alone() || !run.until(Duration::from_secs(5), || run.all(fit)).await {
        return;
    }
    let id = run.any();
    // Without a power failure: a tail that is torn is another matter.
    if !run.kill(id) {
        return;
    }
    run.env.sleep(between(&run, 50, 500)).await;
    let disk = run.machine_mut(id, |m| m.disk.clone());
    let files = used(&disk, Path::new(WAL_DIR));
    if !files.is_empty() {
        let (path, length) = &files[run.env.random_below(files.len() as u64) as usize];
        for _ in 0..=run.env.random_below(BITS) {
            let (offset, bit) = (run.env.random_below(*length), run.env.random_below(8) as u8);
            run.trace.line(|| format!("bit {bit} of byte {offset} of {} of r{id} flips", path.display()));
            disk.flip(path, offset, bit);
        }
        run.tally.fault("damage-at-rest");
    }
    match run.start(id).await {
        Some(Err(_)) => {
            run.tally.fault("damage-refused");
            replace::remove(&run, id).await;
            replace::join(&run).await;
        }
        Some(Ok(up)) => crate::invariants::restart::follow(&run, id, up),
        None => {}
    }
}
