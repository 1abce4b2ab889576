//! A checkpoint is damaged at rest, with the log before it long purged: bits of
//! a file flip, or it is gone. The replica must get its state from another one.

use std::path::Path;
use std::sync::Arc;

use triarch_env::Disk;

use super::{back_whole, one_to_damage, used};
use crate::machine::CHECKPOINT_DIR;
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    let Some(id) = one_to_damage(&run).await else { return };
    run.power_off(id);
    let disk = run.machine_mut(id, |m| m.checkpoint.clone());
    let files = used(&disk);
    if !files.is_empty() {
        let (path, length) = &files[run.env.random_below(files.len() as u64) as usize];
        if run.env.random_below(2) == 0 {
            let (offset, bit) = (run.env.random_below(*length), run.env.random_below(8) as u8);
            run.trace.line(|| format!("bit {bit} of byte {offset} of {} of r{id} flips", path.display()));
            disk.flip(path, offset, bit);
        } else {
            run.trace.line(|| format!("r{id} has lost {}", path.display()));
            let _ = disk.remove_file(path);
            let _ = disk.sync_dir(Path::new(CHECKPOINT_DIR));
        }
        run.tally.fault("checkpoint-lost");
    }
    back_whole(&run, id).await;
}
