//! Triarch against etcd, through etcd's own API and one and the same client.
//!
//! ```text
//!   this process ─ 8 connections, 64 clients ─┬─► three replicas of Triarch (facade)
//!                                             └─► three members of etcd
//! ```
//! Rounds in turn, each on a fresh cluster on a real disk with fsync on; only
//! one side runs at a time. The last line has ratios above 1 where Triarch is
//! ahead: puts a second, the median of one client's puts one after the other,
//! and watch events delivered a second. Medians over the rounds.
//!
//! `--quick` makes short rounds, `--rounds N` another number of them, `--seconds
//! PUTS,SERIAL,WATCH` parts of other lengths, `--only triarch|etcd` runs one side
//! (for a profile) and prints no ratio.

mod etcd;
mod load;
mod side;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use side::Side;

/// A machine on which etcd is slower has something else to do.
const ETCD_FLOOR: f64 = 3_000.0;
/// Invalid rounds that are repeated, over all.
const MAX_REPEATS: usize = 4;
/// Most rounds.
const MAX_ROUNDS: usize = 20;
/// Longer than any run.
const LIMIT: Duration = Duration::from_secs(1800);

/// How long each part of a round takes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub puts: Duration,
    pub serial: Duration,
    pub watch: Duration,
}

impl Plan {
    /// `PUTS,SERIAL,WATCH` in seconds: one part long to look at it closely.
    fn parse(text: &str) -> anyhow::Result<Plan> {
        const LONGEST: u64 = 60;
        let parts: Vec<u64> = text.split(',').filter_map(|p| p.parse().ok()).filter(|s| *s <= LONGEST).collect();
        let [puts, serial, watch] = parts[..] else {
            bail!("--seconds: got {text}, takes three numbers from 0 to {LONGEST}, as 10,3,5");
        };
        let [puts, serial, watch] = [puts, serial, watch].map(Duration::from_secs);
        Ok(Plan { puts, serial, watch })
    }
}

#[derive(Debug)]
struct Arguments {
    plan: Plan,
    quick: bool,
    rounds: usize,
    only: Option<String>,
}

impl Arguments {
    fn parse(given: impl Iterator<Item = String>) -> anyhow::Result<Arguments> {
        let seconds = Duration::from_secs;
        let mut arguments = Arguments {
            plan: Plan { puts: seconds(10), serial: seconds(3), watch: seconds(5) },
            quick: false,
            rounds: 3,
            only: None,
        };
        let mut given = given.skip(1);
        while let Some(argument) = given.next() {
            let mut value = || given.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                // What cargo itself passes.
                "--bench" => {}
                "--quick" => {
                    arguments.quick = true;
                    arguments.plan = Plan { puts: seconds(2), serial: seconds(1), watch: seconds(2) };
                }
                "--rounds" => {
                    arguments.rounds = value()?
                        .parse()
                        .ok()
                        .filter(|n| (1..=MAX_ROUNDS).contains(n))
                        .context(format!("--rounds takes 1 to {MAX_ROUNDS}"))?;
                }
                "--seconds" => arguments.plan = Plan::parse(&value()?)?,
                "--only" => arguments.only = Some(value()?),
                other => bail!("{other}: takes --quick, --rounds N, --seconds PUTS,SERIAL,WATCH, --only triarch|etcd"),
            }
        }
        Ok(arguments)
    }
}

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
    let arguments = Arguments::parse(std::env::args())?;
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("against-etcd");
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    real_disk(&dir)?;
    let mut sides: Vec<Side> = Vec::new();
    if arguments.only.as_deref() != Some("etcd") {
        sides.push(Side::triarch()?);
    }
    if arguments.only.as_deref() != Some("triarch") {
        sides.push(Side::Etcd(etcd::Program::obtain(&dir)?));
    }
    for side in &sides {
        println!("{}: {}", side.name(), side.version()?);
    }
    println!("load average at the start: {}", load_average());
    let mut taken = vec![Vec::new(); sides.len()];
    let mut repeats = 0;
    for round in 0..arguments.rounds {
        // In turn, and each first as often as the other.
        let order: Vec<usize> =
            if round % 2 == 0 { (0..sides.len()).collect() } else { (0..sides.len()).rev().collect() };
        for i in order {
            taken[i].push(valid_round(&sides[i], &dir, &arguments, round, &mut repeats).await?);
        }
    }
    if let [triarch, etcd] = &taken[..] {
        let median = |of: &[load::Measured], f: fn(&load::Measured) -> f64| {
            let mut all: Vec<f64> = of.iter().map(f).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let ratio = |f: fn(&load::Measured) -> f64| median(triarch, f) / median(etcd, f);
        println!(
            "puts_ratio={:.2} serial_p50_ratio={:.2} watch_events_ratio={:.2}",
            ratio(|m| m.puts_per_s),
            1.0 / ratio(|m| m.serial_p50_us),
            ratio(|m| m.events_per_s)
        );
    }
    Ok(())
}

/// One round of one side; etcd's are repeated when the machine is too slow.
async fn valid_round(
    side: &Side,
    dir: &Path,
    a: &Arguments,
    round: usize,
    repeats: &mut usize,
) -> anyhow::Result<load::Measured> {
    loop {
        let at = dir.join(format!("{}-{}", side.name(), std::process::id()));
        let cluster = side.start(&at).await.with_context(|| format!("starting {}", side.name()))?;
        let measured = load::measure(cluster.endpoints(), a.plan).await;
        drop(cluster);
        std::fs::remove_dir_all(&at).with_context(|| at.display().to_string())?;
        let measured = measured.with_context(|| format!("loading {}", side.name()))?;
        println!("round {} {:<8} {measured} load={}", round + 1, side.name(), load_average());
        if !side.is_etcd() || measured.puts_per_s >= ETCD_FLOOR {
            return Ok(measured);
        }
        *repeats += 1;
        if *repeats > MAX_REPEATS {
            bail!(
                "etcd made {:.0} puts/s; below {ETCD_FLOOR} the machine is busy with something else",
                measured.puts_per_s
            );
        }
        println!("invalid: etcd made fewer than {ETCD_FLOOR} puts/s; once more");
    }
}

fn real_disk(dir: &Path) -> anyhow::Result<()> {
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
