//! A file is gone, or the end of it, when a replica comes back: a segment of its
//! log, its record of starts, or a run of its checkpoint. It is refused by the
//! file's name, and somebody puts the file back or another replica takes its
//! place; or it comes up with all that it had.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use triarch_env::SimDisk;
use triarch_env::disk::damage::{Damage, Image};
use triarch_raft::NodeId;
use triarch_wal::{Config, State, Wal};

use super::{back_whole, between, one_to_damage, replace, used};
use crate::machine::{Machine, Up, WAL_DIR};
use crate::run::Run;

pub const NAMED: &str = "lost-file-named";
/// By then it has caught up, or a majority has told it why it may not.
const LIMIT: Duration = Duration::from_secs(90);

/// A machine's disks.
#[derive(Clone, Copy)]
enum Of {
    Log,
    Checkpoint,
}

impl Of {
    fn disk(self, machine: &mut Machine) -> &mut SimDisk {
        match self {
            Of::Log => &mut machine.disk,
            Of::Checkpoint => &mut machine.checkpoint,
        }
    }
}

/// What was lost, with its bytes before.
struct Lost {
    of: Of,
    path: PathBuf,
    bytes: Vec<u8>,
}

/// What the log holds, as its files would be read now.
fn log(machine: &Machine, segment_bytes: u64) -> Option<State> {
    let config = Config { segment_bytes, ..Config::default() };
    let disk = SimDisk::holding(0, &machine.disk.image());
    Wal::open(Arc::new(disk), Path::new(WAL_DIR), &config).ok().map(|(wal, _)| wal.state())
}

/// Loses something of a machine that is off; tells what.
fn lose(run: &Run, id: NodeId) -> Option<(Lost, String)> {
    let of = |of: Of| {
        let disk = run.machine_mut(id, |m| of.disk(m).clone());
        used(&disk).into_iter().map(move |(path, used)| (of, path, used)).collect::<Vec<_>>()
    };
    let files = [of(Of::Log), of(Of::Checkpoint)].concat();
    let (of, path, used) = files.get(run.env.random_below(files.len().max(1) as u64) as usize)?.clone();
    let image = run.machine_mut(id, |m| of.disk(m).image());
    let damage = match run.env.random_below(3) {
        0 => Damage::Missing,
        1 => Damage::Cut(0),
        _ => Damage::Cut(run.env.random_below(used) as usize),
    };
    let what = format!("{} {damage:?}", path.display());
    hold(run, id, of, &damage.done_to(&path, &image));
    let bytes = image[&path].clone();
    Some((Lost { of, path, bytes }, what))
}

fn hold(run: &Run, id: NodeId, of: Of, image: &Image) {
    let disk = SimDisk::holding(run.env.random_u64(), image);
    run.machine_mut(id, |m| *of.disk(m) = disk);
}

/// Puts back what was lost, and nothing else: the rest may have gone on.
fn put_back(run: &Run, id: NodeId, lost: Lost) {
    let mut image = run.machine_mut(id, |m| lost.of.disk(m).image());
    image.insert(lost.path, lost.bytes);
    hold(run, id, lost.of, &image);
}

/// A refusal names the file, or says that the log, or the record of starts, is gone as a whole.
fn named(lost: &Lost, why: &str) -> bool {
    let name = lost.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    why.contains(&name) || why.contains("its data was wiped") || (name == "STARTS" && why.contains("is its start"))
}

/// Whether the replica came up; `Err` with the reason when it was refused.
async fn comes_up(run: &Arc<Run>, id: NodeId, before: Option<&State>, what: &str) -> Option<Result<(), String>> {
    let up: Up = match run.start(id).await? {
        Ok(up) => up,
        Err(why) => return Some(Err(why)),
    };
    let now = up.wal.state();
    if before.is_some_and(|b| now.last < b.last || now.vote != b.vote) {
        run.tally.violation(NAMED, format!("replica {id} lost {what} and comes up with {now:?} of {before:?}"));
    }
    crate::invariants::restart::follow(run, id, up.clone());
    run.until(LIMIT, || up.db.is_ready() || up.db.is_stopped()).await;
    // The last of the others may know that its record of starts is gone.
    run.env.sleep(between(run, 0, 2000)).await;
    Some(if up.db.is_refused() { Err(up.db.stopped().await) } else { Ok(()) })
}

pub async fn inject(run: Arc<Run>) {
    let Some(id) = one_to_damage(&run).await else { return };
    // Without a power failure: a tail that is torn is another matter.
    if !run.kill(id) {
        return;
    }
    run.env.sleep(between(&run, 50, 500)).await;
    let before = run.machine_mut(id, |m| log(m, run.settings.segment_bytes));
    let Some((lost, what)) = lose(&run, id) else { return back_whole(&run, id).await };
    run.trace.line(|| format!("r{id} lost {what}"));
    run.tally.fault("file-lost");
    let Some(Err(why)) = comes_up(&run, id, before.as_ref(), &what).await else {
        if run.up(id).is_none_or(|up| up.db.is_stopped()) {
            run.kill(id);
            put_back(&run, id, lost);
            back_whole(&run, id).await;
        }
        return;
    };
    run.tally.fault("file-lost-refused");
    run.tally.checked(NAMED, 1);
    if !named(&lost, &why) {
        run.tally.violation(NAMED, format!("replica {id} lost {what} and is refused: {why}"));
    }
    run.kill(id);
    if run.env.random_below(2) == 0 {
        put_back(&run, id, lost);
        back_whole(&run, id).await;
    } else {
        replace::remove(&run, id).await;
        replace::join(&run).await;
    }
}
