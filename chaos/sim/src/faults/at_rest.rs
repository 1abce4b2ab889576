//! Bits of a log flip while its machine is off. The replica must notice before
//! it takes part again; when it refuses to start, another takes its place.

use std::sync::Arc;

use super::{between, one_to_damage, replace, used};
use crate::machine::WAL_DIR;
use crate::run::Run;

/// Bits that flip at once, at most.
const BITS: u64 = 3;

pub async fn inject(run: Arc<Run>) {
    let Some(id) = one_to_damage(&run).await else { return };
    // Without a power failure: a tail that is torn is another matter.
    if !run.kill(id) {
        return;
    }
    run.env.sleep(between(&run, 50, 500)).await;
    let disk = run.machine_mut(id, |m| m.disk.clone());
    let mut files = used(&disk);
    files.retain(|(path, _)| path.starts_with(WAL_DIR));
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
