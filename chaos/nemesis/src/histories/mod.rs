//! The same load, the same faults and the same checkers for three systems
//! behind one API: Triarch, etcd 3.7 and etcd 3.5.1.
//!
//! ```text
//!   clients ─┐ puts, swaps, deletes, transactions, reads     ┌─► timeline ─► replay, search
//!   watchers ┼─────────► three processes ────────────────────┼─► watch
//!   faults ──┘ SIGKILL of one and of all, SIGSTOP            └─► every member at the end
//! ```
//! A system's time is cut into episodes, each on a new cluster, so that a
//! history fits in memory and a broken cluster spoils one episode only. Judges by
//! `triarch_check::transactions` alone; knows no system by name but to start it.
//! Invariant: everything is bounded in time, and no process outlives the run.

pub mod api;
pub mod client;
pub mod episode;
pub mod fault;
pub mod judge;
pub mod options;
pub mod report;
pub mod watcher;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use triarch_lab::etcd::{Program, Release, System, peers_dir};
use triarch_lab::{Binaries, Profile};

pub use options::{Options, Which};
pub use report::{Report, Verdict};

/// Members elect quicker than by default, so that more faults fit into the time.
const ETCD_FLAGS: [&str; 2] = ["--heartbeat-interval=50", "--election-timeout=500"];
/// Less load than this is not worth a cluster.
const SHORTEST: Duration = Duration::from_secs(5);
/// An episode with its start and its end.
const EPISODE_LIMIT: Duration = Duration::from_secs(300);

/// Runs each system for its time.
///
/// # Errors
/// A system that cannot be had or started at all.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let base = options.dir.clone().unwrap_or_else(|| peers_dir().join(format!("histories-{}", std::process::id())));
    let mut report = Report::default();
    for which in Which::ALL.into_iter().filter(|w| options.only.is_none_or(|only| only == *w)) {
        let system = system(which, options)?;
        eprintln!("{}: {}", which.name(), system.version()?);
        let verdict = one(&system, options, &base.join(which.name())).await.with_context(|| which.name())?;
        report.verdicts.push((which, verdict));
    }
    if options.keep || !report.good() {
        eprintln!("data and logs are in {}", base.display());
    } else {
        std::fs::remove_dir_all(&base).with_context(|| base.display().to_string())?;
    }
    Ok(report)
}

fn system(which: Which, options: &Options) -> anyhow::Result<System> {
    let etcd = |release| -> anyhow::Result<System> {
        let program = Program::obtain(release, &peers_dir())?;
        Ok(System::Etcd { program, flags: ETCD_FLAGS.map(str::to_owned).to_vec() })
    };
    match which {
        Which::Triarch => Ok(System::triarch(match &options.triarch {
            Some(program) => {
                let program = program.canonicalize().with_context(|| program.display().to_string())?;
                Binaries { server: program.clone(), agent: program.clone(), lab: program }
            }
            None => Binaries::obtain(Profile::Release)?,
        })),
        Which::Etcd37 => etcd(Release::V3_7),
        Which::Etcd351 => etcd(Release::V3_5_1),
    }
}

/// Episodes of one system.
async fn one(system: &System, options: &Options, dir: &Path) -> anyhow::Result<Verdict> {
    let time = Duration::from_secs_f64(options.minutes * 60.0);
    let began = Instant::now();
    let mut verdict = Verdict::default();
    for number in 0.. {
        let left = time.saturating_sub(began.elapsed());
        if left < SHORTEST && verdict.episodes > 0 {
            break;
        }
        let seed = options.seed.wrapping_add(number);
        let at = dir.join(number.to_string());
        let episode = episode::run(system, &at, seed, left);
        let done = tokio::time::timeout(EPISODE_LIMIT, episode).await;
        let done = done.unwrap_or_else(|_| Err(anyhow::anyhow!("not done after {EPISODE_LIMIT:?}")));
        // A system that comes up once and not again has something that is wrong with it.
        let done = match done {
            Err(e) if number == 0 && e.is::<triarch_lab::LabError>() => return Err(e),
            Err(e) => Verdict::gave_up(&e),
            Ok(done) => done,
        };
        eprintln!("{} seed {seed}: {done}", system.name());
        for (kind, violation) in done.findings.shown() {
            eprintln!("  {kind}: {violation}");
        }
        if !options.keep && done.findings.is_clean() {
            std::fs::remove_dir_all(&at).with_context(|| at.display().to_string())?;
        }
        verdict.add(done);
    }
    Ok(verdict)
}
