//! `leader-kill` from the first process to the last line.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use triarch_check::Outcome;
use triarch_lab::Binaries;

use crate::check::{self, Findings};
use crate::conduct::{self, Done};
use crate::disk_probe::{DiskProbe, Seen};
use crate::faults::{self, Hit};
use crate::gaps::{self, Gap};
use crate::ground::{self, RunDir, Wants};
use crate::load::{Clients, Collected, Load};
use crate::options::{Fault, Options};
use crate::pods::{self, Pods};
use crate::report::Report;
use crate::shared::Shared;
use crate::stage::{Stage, wait};

/// Most time for start and end together.
const FRAME: Duration = Duration::from_secs(180);
/// Most time for one fault with its load.
const PER_FAULT: Duration = Duration::from_secs(60);
/// Enough acknowledged writes between two faults by then, or the run fails.
const LOAD_TIMEOUT: Duration = Duration::from_secs(40);
/// Violations that are printed of each kind.
const SHOWN: usize = 10;
/// Gaps that are printed: the longest.
const GAPS_SHOWN: usize = 5;

/// Runs it all, inside a bound; the report, whatever it says.
pub async fn leader_kill(options: &Options, binaries: Binaries) -> anyhow::Result<Report> {
    let limit = FRAME + PER_FAULT * options.kills;
    let mut dir = RunDir::make(&options.place)?;
    let done = tokio::time::timeout(limit, within(options, binaries, &dir)).await;
    let done = done.unwrap_or_else(|_| Err(anyhow::anyhow!("not done after {limit:?}")));
    dir.keep |= !done.as_ref().is_ok_and(Report::good);
    done
}

async fn within(options: &Options, binaries: Binaries, dir: &RunDir) -> anyhow::Result<Report> {
    let shared = Arc::new(Shared::default());
    let wants = Wants { network: options.fault == Fault::Partition, ..Wants::default() };
    let mut stage = ground::set(&dir.path, binaries, &wants, shared.clone()).await?;
    let clients = Clients::new(stage.cluster())?;
    let pods = Pods::start(clients.set()?, shared.clone()).await?;
    let load = Load::start(clients, shared.clone(), options.writers, options.seed).await?;
    let first_term = stage.leader().await?.term;
    let probe = DiskProbe::start(&dir.path, shared.clone())?;
    let mut faults = Vec::new();
    for n in 1..=options.kills {
        faults.push(one(&mut stage, options, n, &pods).await.with_context(|| format!("fault {n}"))?);
    }
    let from = shared.acked();
    wait(LOAD_TIMEOUT, || shared.acked() >= from + options.acked).await.context("after the last fault")?;
    let end = shared.now();
    let disk = probe.finish()?;
    let binds = pods.binds();
    let collected = load.finish().await?;
    let last_term = stage.leader().await?.term;
    stage.cluster().stop();

    let findings = check::judge(&collected.history, &collected.watched, &collected.finals);
    explain(&findings, &collected);
    let times: Vec<u64> = faults.iter().map(|f| f.at).collect();
    let gaps = gaps::after_faults(&shared.ack_times(), &times, end);
    longest(&times, &gaps, &disk);
    let next = |n: usize| times.get(n + 1).copied().unwrap_or(end);
    let silence = |n: usize, at: u64| pods::silence(&binds, at, next(n)).unwrap_or(next(n) - at);
    Ok(Report {
        kills: options.kills,
        acked: shared.acked(),
        needed: options.acked * u64::from(options.kills),
        lost: findings.lost.len(),
        violations: findings.order.len(),
        watch_violations: findings.watches.len(),
        gaps: gaps.iter().map(|gap| gap.length).collect(),
        elections: last_term.saturating_sub(first_term),
        failed_requests: collected.requests.failed.len(),
        next_binds: times.iter().enumerate().map(|(n, at)| silence(n, *at)).collect(),
        disturbed: faults.iter().map(|f| f.disturbed).sum(),
        watch_breaks: faults.iter().map(|f| conduct::breaks(f, &collected.watched, false)).sum(),
    })
}

async fn one(stage: &mut Stage, options: &Options, n: u32, pods: &Pods) -> anyhow::Result<Done> {
    let shared = stage.shared.clone();
    let from = shared.acked();
    let enough = || shared.acked() >= from + options.acked;
    let few = || format!("{} acknowledged writes before it", shared.acked() - from);
    wait(LOAD_TIMEOUT, enough).await.with_context(few)?;
    let kind = faults::by_name(options.fault.kind()).context("a fault that is in the table")?;
    let leader = stage.leader().await?.replica;
    let hit = Hit { replica: leader, ms: options.fault.lasts(), dice: 0 };
    let done = conduct::one(stage, kind, hit).await?;
    let gap = gaps::after_faults(&shared.ack_times(), &[done.at], shared.now())[0].length;
    let ms = |ns: u64| ns.div_ceil(1_000_000);
    eprintln!(
        "{n}/{}: {} leader {}: gap {} ms, bound after {} ms, whole after {} ms, {} elections and {} later, {} acked",
        options.kills,
        options.fault.name(),
        done.replica,
        ms(gap),
        pods::silence(&pods.binds(), done.at, shared.now()).map_or("-".to_owned(), |s| ms(s).to_string()),
        ms(done.whole - done.at),
        done.elections,
        done.disturbed,
        shared.acked()
    );
    Ok(done)
}

/// Says on standard error where the longest gaps were, and what the disk did in them.
fn longest(times: &[u64], gaps: &[Gap], disk: &Seen) {
    let ms = |ns: u64| ns / 1_000_000;
    let mut order: Vec<usize> = (0..gaps.len()).collect();
    order.sort_by_key(|n| std::cmp::Reverse(gaps[*n].length));
    for n in order.into_iter().take(GAPS_SHOWN) {
        let Gap { length, after } = gaps[n];
        let from = times[n] + after;
        let still = ms(disk.within(from, from + length));
        eprintln!(
            "longest gaps: fault {}, {} ms, from {} ms after it; the disk stood still for {still} ms of it",
            n + 1,
            ms(length),
            ms(after)
        );
    }
    eprintln!("{disk}");
}

/// Says on standard error what was looked at and what was found.
pub fn explain(findings: &Findings, collected: &Collected) {
    let Collected { history, watched, requests, .. } = collected;
    let unknown = history.iter().filter(|o| o.outcome == Outcome::Unknown).count();
    let events: usize = watched.iter().map(|w| w.history.changes.len()).sum();
    let resumed: usize = watched.iter().map(|w| w.resumed.len()).sum();
    eprintln!(
        "{} operations ({unknown} of unknown outcome), {events} events at {} watchers ({resumed} resumptions), \
         {} keys checked, {} of them also decided without revisions",
        history.len(),
        watched.len(),
        findings.keys,
        findings.keys - findings.undecided
    );
    eprintln!(
        "{} commands at the shared address, {} tried again, {} failed, the slowest took {} ms",
        requests.asked,
        requests.retried,
        requests.failed.len(),
        requests.slowest / 1_000_000
    );
    requests.failed.iter().take(SHOWN).for_each(|(_, words)| eprintln!("request: {words}"));
    for (kind, found) in [("lost", &findings.lost), ("order", &findings.order), ("watch", &findings.watches)] {
        for violation in found.iter().take(SHOWN) {
            eprintln!("{kind}: {violation}");
        }
        if found.len() > SHOWN {
            eprintln!("{kind}: and {} more", found.len() - SHOWN);
        }
    }
}
