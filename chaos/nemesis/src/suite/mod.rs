//! `suite`: one fault after the other, in an order from a seed, on a cluster
//! with networks, disks and clocks of its own; then a report.
//!
//! ```text
//!   schedule(seed) ─► fault ─► conduct ─► Done ─┐
//!   load (a namespace a round) ─► check ────────┼─► checks ─► report.html, last line
//! ```
//! The load is stopped, checked in full and started anew every few minutes, so
//! that what is kept stays bounded however long a run is.

mod checks;
mod outside;
mod page;
mod picture;
mod schedule;
mod seconds;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use triarch_lab::Binaries;

use crate::check;
use crate::conduct::{self, Done};
use crate::faults::{self, FAULTS, Hit, Kind, Target};
use crate::gaps;
use crate::ground::{self, REPLICAS, RunDir, Wants};
use crate::load::{Clients, Load};
use crate::options::SuiteOptions;
use crate::pods::Pods;
use crate::run::explain;
use crate::shared::Shared;
use crate::stage::Stage;
use checks::{Check, Checks};
use schedule::{Planned, Schedule, Whom};
use seconds::Second;

pub use outside::{outside, plan};

/// One round of load. What clients and watchers keep is bounded by it.
const ROUND: Duration = Duration::from_secs(180);
/// Writes are acknowledged again by then, when a fault lets them go on.
const SILENCE: Duration = Duration::from_secs(5);
/// Pods are as they are to be after the last fault.
const PODS_TIMEOUT: Duration = Duration::from_secs(60);
/// What the short form does, in this order.
const SHORT: &[(&str, u64)] = &[
    ("kill", 300),
    ("leader-cut-off", 1_500),
    ("disk-stall", 300),
    ("clock-skew", 1_000),
    ("pause", 1_500),
    ("transfer", 0),
];
/// More than any run's faults and checks may take, over its minutes.
const FRAME: Duration = Duration::from_secs(600);

/// A fault with what was seen of it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub done: Done,
    pub what: &'static str,
    /// Longest time without an acknowledged write, nanoseconds.
    pub gap: u64,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub minutes: u64,
    pub seed: u64,
    /// The command that does the same again.
    pub replay: String,
    pub about: String,
    pub faults: Vec<Seen>,
    /// Faults that could not be done here, with the reason.
    pub left_out: Vec<(&'static str, String)>,
    pub seconds: Vec<Second>,
    pub checks: Checks,
    pub report: PathBuf,
}

impl Outcome {
    pub fn good(&self) -> bool {
        self.checks.failed() == 0 && self.checks.looked() > 0
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "minutes={} faults={} checks={} failed={} report={}",
            self.minutes,
            self.faults.len(),
            self.checks.looked(),
            self.checks.failed(),
            self.report.display()
        )
    }
}

/// Runs it all and writes the report.
///
/// # Errors
/// The cluster did not start, a fault could not be done, or it did not get well.
pub async fn suite(options: &SuiteOptions, binaries: Binaries) -> anyhow::Result<Outcome> {
    let mut dir = RunDir::make(&options.place)?;
    let limit = Duration::from_secs(options.minutes * 60) + FRAME;
    let mut outcome = Outcome {
        minutes: if options.short { 1 } else { options.minutes },
        seed: options.seed,
        replay: replay(options),
        report: options.report.clone().unwrap_or_else(|| format!("nemesis-{}.html", options.seed).into()),
        ..Outcome::default()
    };
    let ran = tokio::time::timeout(limit, within(options, binaries, &dir, &mut outcome)).await;
    let ran = ran.unwrap_or_else(|_| Err(anyhow::anyhow!("not done after {limit:?}")));
    if let Err(e) = ran {
        outcome.checks.look(Check::Whole, 0, Some(format!("the run ended early: {e:#}")));
    }
    dir.keep |= !outcome.good();
    let page = page::render(&outcome);
    std::fs::write(&outcome.report, page).with_context(|| outcome.report.display().to_string())?;
    Ok(outcome)
}

fn replay(o: &SuiteOptions) -> String {
    let length = if o.short { "--short".to_owned() } else { format!("--minutes {}", o.minutes) };
    let only = if o.only.is_empty() { String::new() } else { format!(" --only {}", o.only.join(",")) };
    format!("triarch-nemesis suite {length} --seed {} --writers {}{only}", o.seed, o.writers)
}

async fn within(options: &SuiteOptions, binaries: Binaries, dir: &RunDir, outcome: &mut Outcome) -> anyhow::Result<()> {
    let began = Instant::now();
    let wants =
        Wants { network: true, disks: true, clocks: true, upgrades: true, upgrade_to: options.upgrade_to.clone() };
    let shared = Arc::new(Shared::new(began, "nemesis-0"));
    outcome.about = about(&binaries).await;
    let mut stage = ground::set(&dir.path, binaries, &wants, shared.clone()).await?;
    let kinds = kinds(options, &stage, outcome)?;
    let clients = Clients::new(stage.cluster())?;
    let churn = Arc::new(Shared::new(began, "nemesis"));
    let pods = Pods::start(clients.set()?, churn.clone()).await?;
    let mut schedule = schedule_of(options, kinds);
    let end = Instant::now() + Duration::from_secs(options.minutes * 60);
    let mut more = true;
    for round in 1.. {
        if !more || (Instant::now() >= end && !options.short) {
            break;
        }
        let until = end.min(Instant::now() + ROUND);
        let shared = Arc::new(Shared::new(began, &format!("nemesis-{round}")));
        stage.shared = shared.clone();
        let load = Load::start(clients.clone(), shared.clone(), options.writers, options.seed ^ round).await?;
        let first = outcome.faults.len();
        let ran = faults_of_round(&mut stage, &mut schedule, outcome, until, options.short, &mut more).await;
        if let Err(e) = &ran {
            eprintln!("round {round}: {e:#}");
        }
        let collected = load.finish().await.context("the end of a round")?;
        judge(outcome, first, &collected, &shared);
        ran?;
        // What was checked is not needed any more.
        let set = clients.set()?;
        let _ = set[0].delete(&format!("/api/v1/namespaces/{}", shared.namespace())).await;
    }
    churn.stop_writing();
    let client = clients.set()?.swap_remove(0);
    let whole = pods.whole(&client, PODS_TIMEOUT).await;
    outcome.checks.look(Check::Pods, 1, whole.err().map(|e| e.to_string()));
    stage.cluster().stop();
    panics(&mut stage, outcome);
    Ok(())
}

async fn faults_of_round(
    stage: &mut Stage,
    schedule: &mut dyn Iterator<Item = Planned>,
    outcome: &mut Outcome,
    until: Instant,
    short: bool,
    more: &mut bool,
) -> anyhow::Result<()> {
    while short || Instant::now() < until {
        let Some(planned) = schedule.next() else {
            *more = false;
            break;
        };
        tokio::time::sleep(Duration::from_millis(planned.pause_ms)).await;
        one(stage, &planned, outcome).await.with_context(|| format!("{planned:?}"))?;
    }
    // A little of the time after the last fault belongs to it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

async fn one(stage: &mut Stage, planned: &Planned, outcome: &mut Outcome) -> anyhow::Result<()> {
    let kind = faults::by_name(planned.name).context("a fault that is in the table")?;
    let leader = stage.leader().await?.replica;
    let replica = match planned.whom {
        Whom::Leader => leader,
        Whom::Follower(n) => stage.others(leader)[n % (REPLICAS - 1)],
    };
    let hit = Hit { replica, ms: planned.lasts_ms, dice: planned.dice };
    let done = conduct::one(stage, kind, hit).await?;
    let checks = &mut outcome.checks;
    checks.look(Check::Whole, REPLICAS as u64, None);
    // Until the healing, or until writes have gone on where it takes its time.
    let acks = stage.shared.ack_times();
    let gap = gaps::after_faults(&acks, &[done.at], done.whole)[0].length;
    let ms = |ns: u64| ns.div_ceil(1_000_000);
    let told = format!("{} of {} at {:.1} s", done.name, done.replica, done.at as f64 / 1e9);
    if kind.goes_on {
        let limit = SILENCE + Duration::from_millis(if kind.name == "disk-stall" { planned.lasts_ms } else { 0 });
        let late = gap > limit.as_nanos() as u64;
        checks.look(Check::GoesOn, 1, late.then(|| format!("{told}: nothing for {} ms", ms(gap))));
    }
    if kind.rejoins {
        let disturbed = done.disturbed > 0;
        checks.look(Check::Undisturbed, 1, disturbed.then(|| format!("{told}: {} elections later", done.disturbed)));
    }
    eprintln!(
        "{:>6.1} s  {:<16} {}{}  gap {:>5} ms, whole after {:>6} ms, {} elections",
        done.at as f64 / 1e9,
        done.name,
        done.replica,
        if done.led { " (leader)" } else { "         " },
        ms(gap),
        ms(done.whole - done.at),
        done.elections + done.disturbed,
    );
    outcome.faults.push(Seen { done, what: kind.what, gap });
    Ok(())
}

/// What a round's histories say; `first` is its first fault.
fn judge(outcome: &mut Outcome, first: usize, collected: &crate::load::Collected, shared: &Shared) {
    let findings = check::judge(&collected.history, &collected.watched, &collected.finals);
    explain(&findings, collected);
    let said = |found: &[triarch_check::Violation]| {
        found.first().map(|v| format!("round {}: {} found, the first: {v}", shared.namespace(), found.len()))
    };
    let events: usize = collected.watched.iter().map(|w| w.history.changes.len()).sum();
    let checks = &mut outcome.checks;
    checks.look(Check::Lost, shared.acked(), said(&findings.lost));
    checks.look(Check::Order, collected.history.len() as u64, said(&findings.order));
    checks.look(Check::Watches, events as u64, said(&findings.watches));
    for seen in &outcome.faults[first..] {
        let done = &seen.done;
        let kind = faults::by_name(done.name).expect("it was done, so it is in the table");
        let told = format!("{} of {} at {:.1} s", done.name, done.replica, done.at as f64 / 1e9);
        if kind.target != Target::All {
            let broken = conduct::breaks(done, &collected.watched, false);
            let why = (broken > 0).then(|| format!("{told}: {broken} watches broke"));
            checks.look(Check::WatchesStay, 1, why);
        }
        if kind.unnoticed {
            let within = |at: u64| (done.at..=done.whole).contains(&at);
            let failed: Vec<_> = collected.requests.failed.iter().filter(|(at, _)| within(*at)).collect();
            let why = failed.first().map(|(_, words)| format!("{told}: {} failed, the first: {words}", failed.len()));
            checks.look(Check::Unnoticed, 1, why);
        }
    }
    seconds::add(&mut outcome.seconds, &collected.history);
}

/// Faults that are wanted and can be done; the others with the reason.
fn kinds(options: &SuiteOptions, stage: &Stage, outcome: &mut Outcome) -> anyhow::Result<Vec<&'static Kind>> {
    if let Some(unknown) = options.only.iter().find(|n| faults::by_name(n).is_none()) {
        let names: Vec<&str> = FAULTS.iter().map(|k| k.name).collect();
        bail!("--only: there is no fault {unknown:?}; there are {}", names.join(", "));
    }
    let wanted = |k: &&Kind| options.only.is_empty() || options.only.iter().any(|n| n == k.name);
    let mut kinds = Vec::new();
    for kind in FAULTS.iter().filter(wanted) {
        match (kind.lacks)(stage) {
            None => kinds.push(kind),
            Some(why) => {
                eprintln!("left out: {}: {why}", kind.name);
                outcome.left_out.push((kind.name, why));
            }
        }
    }
    if kinds.is_empty() {
        bail!("none of the faults can be done here");
    }
    Ok(kinds)
}

fn schedule_of(options: &SuiteOptions, kinds: Vec<&'static Kind>) -> Box<dyn Iterator<Item = Planned>> {
    let seeded = Schedule::new(options.seed, kinds.clone(), REPLICAS);
    if !options.short {
        return Box::new(seeded);
    }
    let possible = move |name: &str| kinds.iter().any(|k| k.name == name);
    let planned = SHORT.iter().filter(move |(name, _)| possible(name)).zip(seeded).map(|((name, lasts), drawn)| {
        Planned { name, pause_ms: 500, lasts_ms: *lasts, whom: Whom::Leader, dice: drawn.dice }
    });
    Box::new(planned)
}

async fn about(binaries: &Binaries) -> String {
    let version = |program: &std::path::Path| {
        let mut command = std::process::Command::new(program);
        triarch_lab::process::run("version", command.arg("version")).unwrap_or_default().trim().replace('\n', ", ")
    };
    version(&binaries.server)
}

/// Replicas' logs hold no panic.
fn panics(stage: &mut Stage, outcome: &mut Outcome) {
    for replica in stage.cluster().replicas() {
        let log = std::fs::read_to_string(replica.log()).unwrap_or_default();
        let found = log.lines().find(|l| l.contains("panicked at"));
        outcome.checks.look(Check::Panics, 1, found.map(|l| format!("{}: {l}", replica.name())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_exact_and_a_run_without_a_check_is_not_good() {
        let mut outcome = Outcome { minutes: 10, report: "r.html".into(), ..Outcome::default() };
        assert!(!outcome.good());
        outcome.checks.look(Check::Whole, 1, None);
        assert_eq!(outcome.to_string(), "minutes=10 faults=0 checks=1 failed=0 report=r.html");
        assert!(outcome.good());
        outcome.checks.look(Check::Lost, 1, Some("gone".into()));
        assert!(!outcome.good() && outcome.to_string().contains("checks=2 failed=1"));
    }

    #[test]
    fn the_short_form_names_faults_that_there_are() {
        assert!(SHORT.iter().all(|(name, _)| faults::by_name(name).is_some()));
    }
}
