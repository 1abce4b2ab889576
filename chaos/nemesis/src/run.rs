//! One run from the first process to the last line.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use triarch_check::{Action, FinalState, Operation, Outcome};
use triarch_lab::{Binaries, Cluster, KubeClient, Kubeconfig, binaries};

use crate::check::{self, Findings};
use crate::fault;
use crate::gaps;
use crate::options::Options;
use crate::report::Report;
use crate::shared::Shared;
use crate::watcher::{self, Watched, Watcher};
use crate::writer::{self, COLLECTION, Writer};

/// The client that makes the shared keys.
const PREPARER: u32 = u32::MAX;
/// Watchers, three a replica.
const WATCHERS: usize = 9;
/// Most time for start and end together.
const FRAME: Duration = Duration::from_secs(180);
/// Most time for one fault with its load.
const PER_FAULT: Duration = Duration::from_secs(60);
/// Enough acknowledged writes between two faults by then, or the run fails.
const LOAD_TIMEOUT: Duration = Duration::from_secs(40);
/// Watchers have shown everything by then.
const DRAIN: Duration = Duration::from_secs(30);
/// Violations that are printed of each kind.
const SHOWN: usize = 10;

/// Runs it all, inside a bound; the report, whatever it says.
pub async fn leader_kill(options: &Options) -> anyhow::Result<Report> {
    let limit = FRAME + PER_FAULT * options.kills;
    let dir = options.dir.clone().unwrap_or_else(|| {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.unwrap_or_else(|| binaries::workspace_root().join("target"));
        target.join(format!("nemesis-{}", std::process::id()))
    });
    let done = tokio::time::timeout(limit, within(options, &dir)).await;
    let done = done.unwrap_or_else(|_| Err(anyhow::anyhow!("not done after {limit:?}")));
    let good = done.as_ref().is_ok_and(Report::good);
    if options.keep || !good {
        eprintln!("data and logs are in {}", dir.display());
    } else {
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    done
}

async fn within(options: &Options, dir: &std::path::Path) -> anyhow::Result<Report> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let mut lab = triarch_lab::Options::release(dir);
    if let Some(program) = &options.triarch {
        let program = program.canonicalize().with_context(|| program.display().to_string())?;
        lab.binaries = Some(Binaries { server: program.clone(), agent: program.clone(), lab: program });
    }
    let mut cluster = Cluster::start(lab).await?;
    let clients = Clients::new(&cluster)?;
    let shared = Arc::new(Shared::default());
    let mut history = prepare(&clients.set()?[0], &shared).await?;

    let mut watchers = Vec::new();
    for number in 0..WATCHERS {
        let watcher = Watcher::start(number, shared.clone(), clients.set()?).await?;
        let (give_up, given_up) = oneshot::channel();
        watchers.push((tokio::spawn(watcher.run(given_up)), give_up));
    }
    let mut writers = Vec::new();
    for number in 0..options.writers {
        let writer = Writer::new(number, options.seed, shared.clone(), clients.set()?);
        writers.push(tokio::spawn(writer.run()));
    }

    let (_, first_term) = fault::wait_for_leader(&cluster).await?;
    let mut faults = Vec::new();
    for n in 1..=options.kills {
        let from = shared.acked();
        let enough = || shared.acked() >= from + options.acked;
        let few = || format!("{} acknowledged writes before fault {n}", shared.acked() - from);
        fault::wait(LOAD_TIMEOUT, enough).await.with_context(few)?;
        let done = fault::once(&mut cluster, &shared, options.fault).await.with_context(|| format!("fault {n}"))?;
        let gap = gaps::after_faults(&shared.ack_times(), &[done.at], shared.now())[0].length;
        eprintln!(
            "{n}/{}: {} leader {}: gap {} ms, whole after {} ms, {} acked",
            options.kills,
            options.fault.name(),
            done.leader,
            gap.div_ceil(1_000_000),
            done.whole_after.as_millis(),
            shared.acked()
        );
        faults.push(done.at);
    }
    let from = shared.acked();
    fault::wait(LOAD_TIMEOUT, || shared.acked() >= from + options.acked).await.context("after the last fault")?;
    let end = shared.now();

    shared.stop_writing();
    history.append(&mut gather(writers).await?);
    let finals = finish(&clients, &shared).await?;
    let watched = drain(watchers).await?;
    let (_, last_term) = fault::wait_for_leader(&cluster).await?;
    cluster.stop();

    let findings = check::judge(&history, &watched, &finals);
    explain(&findings, &history, &watched);
    let gaps = gaps::after_faults(&shared.ack_times(), &faults, end);
    if let Some((n, worst)) = gaps.iter().enumerate().max_by_key(|(_, gap)| gap.length) {
        let ms = |ns: u64| ns / 1_000_000;
        eprintln!("longest gap: fault {}, {} ms, from {} ms after it", n + 1, ms(worst.length), ms(worst.after));
    }
    Ok(Report {
        kills: options.kills,
        acked: shared.acked(),
        needed: options.acked * u64::from(options.kills),
        lost: findings.lost.len(),
        violations: findings.order.len(),
        watch_violations: findings.watches.len(),
        gaps: gaps.iter().map(|gap| gap.length).collect(),
        elections: last_term.saturating_sub(first_term),
    })
}

/// Clients of each replica's own port, with connections of their own.
struct Clients {
    admin: Kubeconfig,
    urls: Vec<String>,
}

impl Clients {
    fn new(cluster: &Cluster) -> anyhow::Result<Clients> {
        let admin = Kubeconfig::read(&cluster.kubeconfig_path())?;
        Ok(Clients { admin, urls: cluster.replicas().iter().map(|r| r.url()).collect() })
    }

    fn set(&self) -> anyhow::Result<Vec<KubeClient>> {
        let base = KubeClient::h2(self.admin.clone())?;
        self.urls.iter().map(|url| Ok(base.at(url)?)).collect()
    }
}

/// Makes the namespace and the shared keys; that is where the history begins.
async fn prepare(client: &KubeClient, shared: &Shared) -> anyhow::Result<Vec<Operation>> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "nemesis"}});
    client.create("/api/v1/namespaces", &namespace).await?;
    let mut history = Vec::new();
    for i in 0..writer::REGISTERS {
        let (key, value, start) = (writer::register(i), shared.value(), shared.now());
        let made = client.create(COLLECTION, &writer::object(&key, value, None)).await?;
        let (revision, _) = writer::contents(&made).context("an answer without revision")?;
        let outcome = Outcome::Ok { revision, value: None };
        let (action, end) = (Action::Create(value), shared.now());
        history.push(Operation { client: PREPARER, key, action, outcome, start, end });
    }
    Ok(history)
}

async fn gather(writers: Vec<JoinHandle<Vec<Operation>>>) -> anyhow::Result<Vec<Operation>> {
    let mut all = Vec::new();
    for writer in writers {
        all.append(&mut writer.await.context("a writer")?);
    }
    Ok(all)
}

/// A last write that every watcher must see, and what each replica holds.
async fn finish(clients: &Clients, shared: &Shared) -> anyhow::Result<Vec<FinalState>> {
    let set = clients.set()?;
    let last = set[0].create(COLLECTION, &writer::object("last", shared.value(), None)).await?;
    let (revision, _) = writer::contents(&last).context("an answer without revision")?;
    let mut finals = Vec::new();
    for client in &set {
        let (_, keys) = watcher::listed(&client.get(COLLECTION).await?)?;
        finals.push(FinalState { name: client.server().to_owned(), keys });
    }
    shared.end_at(revision);
    Ok(finals)
}

async fn drain(watchers: Vec<(JoinHandle<Watched>, oneshot::Sender<()>)>) -> anyhow::Result<Vec<Watched>> {
    let end = tokio::time::Instant::now() + DRAIN;
    let mut all = Vec::new();
    for (mut task, give_up) in watchers {
        let watched = match tokio::time::timeout_at(end, &mut task).await {
            Ok(done) => done,
            Err(_) => {
                let _ = give_up.send(());
                task.await
            }
        };
        all.push(watched.context("a watcher")?);
    }
    Ok(all)
}

fn explain(findings: &Findings, history: &[Operation], watched: &[Watched]) {
    let unknown = history.iter().filter(|o| o.outcome == Outcome::Unknown).count();
    let events: usize = watched.iter().map(|w| w.history.changes.len()).sum();
    let resumed: u64 = watched.iter().map(|w| w.resumed).sum();
    eprintln!(
        "{} operations ({unknown} of unknown outcome), {events} events at {} watchers ({resumed} resumptions), \
         {} keys checked, {} of them also decided without revisions",
        history.len(),
        watched.len(),
        findings.keys,
        findings.keys - findings.undecided
    );
    for (kind, found) in [("lost", &findings.lost), ("order", &findings.order), ("watch", &findings.watches)] {
        for violation in found.iter().take(SHOWN) {
            eprintln!("{kind}: {violation}");
        }
        if found.len() > SHOWN {
            eprintln!("{kind}: and {} more", found.len() - SHOWN);
        }
    }
}
