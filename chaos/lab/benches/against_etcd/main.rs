//! Triarch against etcd, through etcd's own API and one and the same client.
//!
//! ```text
//!   this process ─ clients, watchers ─┬─► three replicas of Triarch (facade)
//!                                     ├─► three members of etcd 3.7
//!                                     └─► three members of etcd 3.5.1
//! ```
//! Rounds in turn, each on a fresh cluster on a real disk with fsync on; only
//! one system runs at a time. `metrics/` has one file for each thing that is
//! measured. Medians over the rounds; in each metric Triarch is set against the
//! better of the two etcds, and the last line has ratios above 1 where it is
//! ahead. See `--help` for what can be run alone.

mod arguments;
mod client;
mod metrics;
mod profile;
mod round;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use triarch_lab::etcd::compare::Samples;
use triarch_lab::etcd::{Program, Release, System, peers_dir};
use triarch_lab::{Binaries, Profile};

use arguments::Arguments;
use metrics::{METRICS, Metric};
use round::Round;

/// Names a `triarch` to use instead of building one.
const PROGRAM: &str = "TRIARCH_PROGRAM";
/// A machine on which both etcds are slower, in puts a second, has something else to do.
const ETCD_FLOOR: f64 = 3_000.0;
/// Longer than any run.
const LIMIT: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(async {
            tokio::time::timeout(LIMIT, run()).await.unwrap_or_else(|_| bail!("not done after {LIMIT:?}"))
        }),
        Err(e) => Err(e.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("failed: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1))? else { return Ok(()) };
    let dir = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("against-etcd");
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    real_disk(&dir)?;
    let systems = systems(&arguments)?;
    for system in &systems {
        println!("{}: {}", system.name(), system.version()?);
    }
    println!("load average at the start: {}", load_average());
    if arguments.profile {
        for system in &systems {
            profile::run(system, &dir, &arguments).await.with_context(|| system.name())?;
        }
        return Ok(());
    }
    let mut taken = vec![Samples::default(); systems.len()];
    let of_rounds: Vec<&Metric> = METRICS.iter().filter(|m| !m.loads && arguments.wants(m)).collect();
    for number in 0..arguments.rounds {
        // In turn, and each first as often as the others.
        for i in (0..systems.len()).map(|i| (i + number) % systems.len()) {
            if !of_rounds.is_empty() {
                taken[i].join(measured(&systems[i], &dir, &arguments, &of_rounds, number).await?);
            }
        }
    }
    // What needs a million keys is loaded once a system.
    for metric in METRICS.iter().filter(|m| m.loads && arguments.wants(m)) {
        for (system, taken) in systems.iter().zip(&mut taken) {
            taken.join(measured(system, &dir, &arguments, &[metric], arguments.rounds).await?);
        }
    }
    let named: Vec<(&str, &Samples)> = systems.iter().map(System::name).zip(&taken).collect();
    println!("{}", table::table(&named));
    let peers: Vec<&Samples> = named.iter().filter(|(name, _)| *name != "triarch").map(|(_, s)| *s).collect();
    let own = named.iter().find(|(name, _)| *name == "triarch").map(|(_, s)| *s);
    if let Some(own) = own.filter(|o| o.names().any(|name| name.starts_with("flat_"))) {
        println!("{}", table::flat(own));
    }
    if let (Some(own), false, true) = (own, peers.is_empty(), arguments.metrics.is_empty()) {
        let fastest = peers.iter().filter_map(|p| p.median("puts_64_256")).fold(0.0, f64::max);
        println!("{}", table::last_line(own, &peers, arguments.quick));
        if fastest < ETCD_FLOOR {
            bail!("invalid: etcd made {fastest:.0} puts/s; below {ETCD_FLOOR} the machine is busy with something else");
        }
    }
    Ok(())
}

/// Those that were asked for and can be had. One etcd is enough to be compared with.
fn systems(arguments: &Arguments) -> anyhow::Result<Vec<System>> {
    let wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
    let mut systems = Vec::new();
    if wanted("triarch") {
        let binaries = match std::env::var_os(PROGRAM).map(std::path::PathBuf::from) {
            Some(p) => Binaries { server: p.clone(), agent: p.clone(), lab: p },
            None => Binaries::obtain(Profile::Release)?,
        };
        systems.push(System::triarch(binaries));
    }
    let mut missing = Vec::new();
    for release in Release::ALL.into_iter().filter(|r| wanted(r.name())) {
        match Program::obtain(release, &peers_dir()) {
            Ok(program) => systems.push(System::Etcd { program, flags: vec![metrics::ETCD_QUOTA.into()] }),
            Err(e) => missing.push(format!("{}: {e}", release.name())),
        }
    }
    missing.iter().for_each(|why| println!("not compared with {why}"));
    match arguments.only {
        None if missing.len() == Release::ALL.len() => bail!("no etcd to compare with: {}", missing.join("; ")),
        Some(_) if systems.is_empty() => bail!("nothing to measure: {}", missing.join("; ")),
        _ => Ok(systems),
    }
}

/// A fresh cluster, some metrics, and the end of it.
async fn measured(
    system: &System,
    dir: &std::path::Path,
    arguments: &Arguments,
    metrics: &[&Metric],
    number: usize,
) -> anyhow::Result<Samples> {
    let at = dir.join(format!("{}-{}", system.name(), std::process::id()));
    let began = std::time::Instant::now();
    let mut round =
        Round::start(system, &at, arguments).await.with_context(|| format!("starting {}", system.name()))?;
    let mut done = Ok(());
    for metric in metrics {
        done = (metric.measure)(&mut round).await.with_context(|| format!("{} of {}", metric.name, system.name()));
        if done.is_err() {
            break;
        }
    }
    let samples = round.end();
    std::fs::remove_dir_all(&at).with_context(|| at.display().to_string())?;
    done?;
    let seconds = began.elapsed().as_secs();
    println!(
        "round {} {:<10} {} load={} {seconds}s",
        number + 1,
        system.name(),
        table::brief(&samples),
        load_average()
    );
    Ok(samples)
}

fn real_disk(dir: &std::path::Path) -> anyhow::Result<()> {
    let kind = nix::sys::statfs::statfs(dir)?.filesystem_type();
    if kind == nix::sys::statfs::TMPFS_MAGIC {
        bail!("{}: a tmpfs, where fsync costs nothing", dir.display());
    }
    Ok(())
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
