//! One cluster from its start to the verdict.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use triarch_check::Violation;
use triarch_check::transactions::{Answer, Member, Request};
use triarch_etcd::etcdserverpb::kv_client::KvClient;
use triarch_lab::etcd::{Peers, System, dial_lazy};

use super::api::{self, Ask, PREFIX};
use super::client::{Client, FIGHTERS, STREAMS};
use super::fault;
use super::judge::{Findings, judge};
use super::watcher::{Watched, Watcher};
use crate::board::Board;

/// Load and faults of one episode, at most.
const LOAD: Duration = Duration::from_secs(45);
/// Watchers, two a member.
const WATCHERS: usize = 6;
/// A member that answers nothing by then has not come up.
const UP: Duration = Duration::from_secs(60);
/// Watchers and members have caught up by then.
const DRAIN: Duration = Duration::from_secs(20);
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// What one or several episodes came to.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub findings: Findings,
    pub episodes: usize,
    pub faults: usize,
    pub requests: usize,
    pub acked: u64,
    pub unknown: usize,
    pub events: usize,
    pub resumed: u64,
    /// Members whose hash of all history was compared.
    pub hashed: usize,
    pub time: Duration,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}s, {} faults, {} requests ({} writes acknowledged, {} of unknown outcome), {} events ({} resumptions), \
             {} keys searched ({} undecided), {} hashes: {}",
            self.time.as_secs(),
            self.faults,
            self.requests,
            self.acked,
            self.unknown,
            self.events,
            self.resumed,
            self.findings.searched,
            self.findings.undecided,
            self.hashed,
            self.findings
        )
    }
}

/// Runs one episode of at most `time` of load in `dir`.
///
/// # Errors
/// The system does not start, or acknowledges nothing any more.
pub async fn run(system: &System, dir: &Path, seed: u64, time: Duration) -> anyhow::Result<Done> {
    let began = Instant::now();
    let mut peers = system.start(dir).await?;
    let members = channels(&peers)?;
    let board = Arc::new(Board::default());
    let base = up(&members).await?;

    let mut watchers = Vec::new();
    for number in 0..WATCHERS {
        let (give_up, given_up) = oneshot::channel();
        let watcher = Watcher::new(number, base, board.clone(), &channels(&peers)?);
        watchers.push((tokio::spawn(watcher.run(given_up)), give_up));
    }
    let mut clients = Vec::new();
    let mut shares = channels(&peers)?;
    for number in 0..FIGHTERS + STREAMS {
        // A few connections carry many clients.
        if number % 10 == 0 {
            shares = channels(&peers)?;
        }
        clients.push(tokio::spawn(Client::new(number, seed, board.clone(), &shares).run()));
    }

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let end = Instant::now() + time.min(LOAD);
    let mut faults = 0;
    while Instant::now() < end {
        fault::once(&mut peers, &board, &mut rng).await.with_context(|| logs(&mut peers))?;
        faults += 1;
    }
    board.stop_writing();
    let mut requests = Vec::new();
    for client in clients {
        requests.append(&mut client.await.context("a client")?);
    }
    let (finals, last, mut broken) = finish(&members, &board).await?;
    requests.push(last);
    let watched = drain(watchers).await?;
    drop(peers);

    let mut findings = judge(base, &requests, &watched, &finals);
    findings.kinds.entry("members-differ").or_default().append(&mut broken);
    findings.kinds.retain(|_, found| !found.is_empty());
    Ok(Done {
        findings,
        episodes: 1,
        faults,
        acked: board.acked(),
        unknown: requests.iter().filter(|r| r.answer == Answer::Unknown).count(),
        requests: requests.len(),
        events: watched.iter().map(|w| w.log.seen.iter().filter_map(|s| s.event()).count()).sum(),
        resumed: watched.iter().map(|w| w.resumed).sum(),
        hashed: finals.iter().filter(|m| m.hash.is_some()).count(),
        time: began.elapsed(),
    })
}

fn channels(peers: &Peers) -> anyhow::Result<Vec<Channel>> {
    peers.endpoints().iter().map(|url| Ok(dial_lazy(url, None)?)).collect()
}

fn logs(peers: &mut Peers) -> String {
    let all: Vec<String> = (0..peers.endpoints().len()).map(|i| format!("member {i}: {}", peers.log_tail(i))).collect();
    all.join("; ")
}

/// Waits until every member reads linearizably; the revision before any write.
async fn up(members: &[Channel]) -> anyhow::Result<u64> {
    let end = Instant::now() + UP;
    let ask = Ask { reads: vec![format!("{PREFIX}nothing").into()], ..Ask::default() };
    let mut base = 0;
    for (i, channel) in members.iter().enumerate() {
        let mut kv = KvClient::new(channel.clone());
        loop {
            match tokio::time::timeout(api::REQUEST, api::ask(&mut kv, &ask)).await {
                Ok(Ok(Answer::Saw { revision, .. })) => {
                    base = revision;
                    break;
                }
                other if Instant::now() >= end => anyhow::bail!("member {i} does not come up: {other:?}"),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }
    Ok(base)
}

/// A last write that every watcher must see, and what each member then holds by itself.
async fn finish(members: &[Channel], board: &Board) -> anyhow::Result<(Vec<Member>, Request, Vec<Violation>)> {
    up(members).await?;
    let start = board.now();
    let writes = vec![(format!("{PREFIX}last").into(), Some(board.value()))];
    let ask = Ask { writes: writes.clone(), ..Ask::default() };
    let answer = api::ask(&mut KvClient::new(members[0].clone()), &ask).await.context("the last write")?;
    let Answer::Wrote { revision } = answer else { anyhow::bail!("the last write was answered by {answer:?}") };
    let request = Request { client: u32::MAX, start, end: board.now(), guard: None, writes, answer };
    let (mut finals, mut broken) = (Vec::new(), Vec::new());
    let end = Instant::now() + DRAIN;
    for (i, channel) in members.iter().enumerate() {
        let name = i.to_string();
        let mut held = loop {
            match tokio::time::timeout(api::REQUEST, api::member(channel.clone(), &name)).await {
                Ok(Ok(held)) if held.revision >= revision || Instant::now() >= end => break held,
                Ok(Err(e)) if Instant::now() >= end => return Err(e).context(format!("member {i}")),
                _ if Instant::now() >= end + DRAIN => anyhow::bail!("member {i} does not answer"),
                _ => tokio::time::sleep(POLL).await,
            }
        };
        match api::hash(channel.clone(), revision.min(held.revision)).await {
            Ok(hash) => held.hash = hash,
            Err(e) => {
                let what = format!("does not hash its history: {}", e.message());
                broken.push(Violation::Broken { watch: format!("member {i}"), what });
            }
        }
        finals.push(held);
    }
    board.end_at(revision);
    Ok((finals, request, broken))
}

async fn drain(watchers: Vec<(JoinHandle<Watched>, oneshot::Sender<()>)>) -> anyhow::Result<Vec<Watched>> {
    let end = tokio::time::Instant::now() + DRAIN;
    let mut all = Vec::new();
    for (mut task, give_up) in watchers {
        let watched = match tokio::time::timeout_at(end, &mut task).await {
            Ok(done) => done,
            Err(_) => {
                // One that has just ended takes no notice.
                let _ = give_up.send(());
                task.await
            }
        };
        all.push(watched.context("a watcher")?);
    }
    Ok(all)
}
