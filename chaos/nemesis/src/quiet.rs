//! `quiet`: nothing is wrong but a busy machine and a disk that stands still
//! for a moment now and then. Nobody is to be taken for dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use triarch_lab::{Binaries, KubeClient};

use crate::check;
use crate::ground::{self, REPLICAS, RunDir, Wants};
use crate::load::{Clients, Load};
use crate::options::QuietOptions;
use crate::run::explain;
use crate::shared::Shared;
use crate::stage::Stage;

/// Writers; the spinning threads are the load that matters.
const WRITERS: u32 = 6;
/// Load is checked and started anew after this long.
const ROUND: Duration = Duration::from_secs(180);
/// Between two stalls, milliseconds.
const BETWEEN: std::ops::Range<u64> = 1_000..4_000;
/// More than start and end may take.
const FRAME: Duration = Duration::from_secs(300);
/// What a replica counts when it suspects its leader: the leader's connection
/// broke, and (one a peer) the election timer ran out.
const LOST_SEEN: &str = "triarch_store_leader_lost_seen_total";
const PRE_VOTES: &str = "triarch_store_pre_votes_asked_total";

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quiet {
    pub minutes: u64,
    pub elections: u64,
    pub false_alarms: u64,
    pub stalls: u64,
    pub acked: u64,
    /// Of the histories of writers and watchers.
    pub violations: usize,
}

impl Quiet {
    pub fn good(&self) -> bool {
        self.elections == 0 && self.violations == 0 && self.acked > 0
    }
}

impl std::fmt::Display for Quiet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "minutes={} elections={} false_alarms={}", self.minutes, self.elections, self.false_alarms)
    }
}

/// Threads that do nothing as fast as they can, until dropped.
struct Spinners(Arc<AtomicBool>);

impl Spinners {
    fn start(threads: usize) -> Spinners {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..threads {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Spinners(stop)
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs it all.
///
/// # Errors
/// The cluster did not start, or did not answer in the end.
pub async fn quiet(options: &QuietOptions, binaries: Binaries) -> anyhow::Result<Quiet> {
    let mut dir = RunDir::make(&options.place)?;
    let limit = Duration::from_secs(options.minutes * 60) + FRAME;
    let done = tokio::time::timeout(limit, within(options, binaries, &dir)).await;
    let done = done.unwrap_or_else(|_| Err(anyhow::anyhow!("not done after {limit:?}")));
    dir.keep |= !done.as_ref().is_ok_and(Quiet::good);
    done
}

async fn within(options: &QuietOptions, binaries: Binaries, dir: &RunDir) -> anyhow::Result<Quiet> {
    let began = Instant::now();
    let wants = Wants { disks: true, ..Wants::default() };
    let shared = Arc::new(Shared::new(began, "quiet-0"));
    let mut stage = ground::set(&dir.path, binaries, &wants, shared).await?;
    let clients = Clients::new(stage.cluster())?;
    let mut quiet = Quiet { minutes: options.minutes, ..Quiet::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let (cores, length) = (std::thread::available_parallelism()?.get(), Duration::from_secs(options.minutes * 60));
    let before = look(&mut stage, &clients.set()?).await?;
    eprintln!("term {} and {} suspicions so far", before.term, before.suspicions);
    let spinners = Spinners::start(options.spinners.unwrap_or(cores));
    let begins = Instant::now();
    for round in 1.. {
        let left = length.saturating_sub(begins.elapsed());
        if left.is_zero() {
            break;
        }
        let shared = Arc::new(Shared::new(began, &format!("quiet-{round}")));
        stage.shared = shared.clone();
        let load = Load::start(clients.clone(), shared.clone(), WRITERS, options.seed ^ round).await?;
        quiet.stalls += stall(&mut stage, options.stall_ms, Instant::now() + left.min(ROUND), &mut rng).await?;
        let collected = load.finish().await?;
        let findings = check::judge(&collected.history, &collected.watched, &collected.finals);
        explain(&findings, &collected);
        quiet.violations += findings.lost.len() + findings.order.len() + findings.watches.len();
        quiet.acked += shared.acked();
        let _ = clients.set()?[0].delete(&format!("/api/v1/namespaces/{}", shared.namespace())).await;
        let now = look(&mut stage, &clients.set()?).await?;
        quiet.elections = now.term.saturating_sub(before.term);
        quiet.false_alarms = now.suspicions.saturating_sub(before.suspicions);
        eprintln!(
            "{:.0} s: {} acked, {} stalls, {} elections, {} false alarms",
            begins.elapsed().as_secs_f64(),
            quiet.acked,
            quiet.stalls,
            quiet.elections,
            quiet.false_alarms
        );
    }
    drop(spinners);
    stage.cluster().stop();
    Ok(quiet)
}

/// One disk after the other stands still, until `until`; how often.
async fn stall(stage: &mut Stage, ms: u64, until: Instant, rng: &mut ChaCha8Rng) -> anyhow::Result<u64> {
    let mut stalls = 0;
    loop {
        let pause = Duration::from_millis(rng.random_range(BETWEEN));
        let replica = rng.random_range(0..REPLICAS);
        if Instant::now() + pause >= until {
            tokio::time::sleep(until.saturating_duration_since(Instant::now())).await;
            return Ok(stalls);
        }
        tokio::time::sleep(pause).await;
        if ms > 0 {
            stage.disk(replica)?.hold(ms).await?;
            stalls += 1;
        }
    }
}

#[derive(Debug)]
struct Looked {
    term: u64,
    suspicions: u64,
}

/// Term, and how often any replica has suspected its leader so far.
async fn look(stage: &mut Stage, clients: &[KubeClient]) -> anyhow::Result<Looked> {
    let term = stage.leader().await?.term;
    let mut suspicions = 0;
    for client in clients {
        let text = client.text("/metrics").await.context("a replica's metrics")?;
        suspicions += figure(&text, LOST_SEEN).context("a replica counts broken connections of its leader")?;
        let asked = figure(&text, PRE_VOTES).context("a replica counts questions before an election")?;
        suspicions += asked.div_ceil(REPLICAS as u64 - 1);
    }
    Ok(Looked { term, suspicions })
}

/// A metric without labels.
fn figure(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_exact_and_an_election_is_not_quiet() {
        let quiet = Quiet { minutes: 30, false_alarms: 2, acked: 9, ..Quiet::default() };
        assert_eq!(quiet.to_string(), "minutes=30 elections=0 false_alarms=2");
        assert!(quiet.good());
        assert!(!Quiet { elections: 1, ..quiet.clone() }.good());
        assert!(!Quiet { violations: 1, ..quiet }.good());
    }

    #[test]
    fn a_figure_is_that_of_the_whole_name() {
        let text = "# TYPE a counter\na_total_more 7\na_total 3\n";
        assert_eq!(figure(text, "a_total"), Some(3));
        assert_eq!(figure(text, "b_total"), None);
    }
}
