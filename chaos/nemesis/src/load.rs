//! Everybody who uses the cluster meanwhile: writers and watchers at each
//! replica, whose histories are checked, and people who type commands.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use triarch_check::{Action, FinalState, Operation, Outcome};
use triarch_lab::{Cluster, KubeClient, Kubeconfig};

use crate::requests::{self, Tally};
use crate::shared::Shared;
use crate::watcher::{self, Watched, Watcher};
use crate::writer::{self, Writer};

/// The client that makes the shared keys.
const PREPARER: u32 = u32::MAX;
/// Watchers, three a replica.
pub const WATCHERS: usize = 9;
/// People who type commands.
pub const REQUESTERS: u32 = 2;
/// Watchers have shown everything by then.
const DRAIN: Duration = Duration::from_secs(30);

/// Clients of each replica's own address, with connections of their own.
#[derive(Clone)]
pub struct Clients {
    pub admin: Kubeconfig,
    pub urls: Vec<String>,
    /// Leads to any replica.
    pub shared_url: String,
}

impl Clients {
    pub fn new(cluster: &Cluster) -> anyhow::Result<Clients> {
        let admin = Kubeconfig::read(&cluster.kubeconfig_path())?;
        let urls = cluster.replicas().iter().map(|r| r.url()).collect();
        Ok(Clients { admin, urls, shared_url: cluster.shared_url() })
    }

    /// One a replica, each with one connection.
    pub fn set(&self) -> anyhow::Result<Vec<KubeClient>> {
        let base = KubeClient::h2(self.admin.clone())?;
        self.urls.iter().map(|url| Ok(base.at(url)?)).collect()
    }
}

/// Running load.
pub struct Load {
    pub shared: Arc<Shared>,
    clients: Clients,
    prepared: Vec<Operation>,
    writers: Vec<JoinHandle<Vec<Operation>>>,
    watchers: Vec<(JoinHandle<Watched>, oneshot::Sender<()>)>,
    requesters: Vec<JoinHandle<Tally>>,
}

/// What everybody was told.
pub struct Collected {
    pub history: Vec<Operation>,
    pub watched: Vec<Watched>,
    pub finals: Vec<FinalState>,
    pub requests: Tally,
}

impl Load {
    /// Makes the namespaces and shared keys, and starts everybody.
    pub async fn start(clients: Clients, shared: Arc<Shared>, writers: u32, seed: u64) -> anyhow::Result<Load> {
        let prepared = prepare(&clients.set()?[0], &shared).await?;
        let mut load = Load {
            shared: shared.clone(),
            prepared,
            writers: Vec::new(),
            watchers: Vec::new(),
            requesters: Vec::new(),
            clients,
        };
        for number in 0..WATCHERS {
            let watcher = Watcher::start(number, shared.clone(), load.clients.set()?).await?;
            let (give_up, given_up) = oneshot::channel();
            load.watchers.push((tokio::spawn(watcher.run(given_up)), give_up));
        }
        for number in 0..writers {
            let writer = Writer::new(number, seed, shared.clone(), load.clients.set()?);
            load.writers.push(tokio::spawn(writer.run()));
        }
        let config = Kubeconfig { server: load.clients.shared_url.clone(), ..load.clients.admin.clone() };
        for number in 0..REQUESTERS {
            load.requesters.push(tokio::spawn(requests::run(number, config.clone(), shared.clone())));
        }
        Ok(load)
    }

    /// Stops the writers, waits until watchers have shown everything, and asks
    /// each replica what it holds.
    pub async fn finish(self) -> anyhow::Result<Collected> {
        self.shared.stop_writing();
        let mut history = self.prepared;
        for writer in self.writers {
            history.append(&mut writer.await.context("a writer")?);
        }
        let mut requests = Tally::default();
        for requester in self.requesters {
            requests.add(requester.await.context("a requester")?);
        }
        let finals = finish(&self.clients, &self.shared).await?;
        let watched = drain(self.watchers).await?;
        Ok(Collected { history, watched, finals, requests })
    }
}

/// Makes the namespaces and the shared keys; that is where the history begins.
async fn prepare(client: &KubeClient, shared: &Shared) -> anyhow::Result<Vec<Operation>> {
    for name in [shared.namespace(), requests::NAMESPACE] {
        client.ensure(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await?;
    }
    let mut history = Vec::new();
    for i in 0..writer::REGISTERS {
        let (key, value, start) = (writer::register(i), shared.value(), shared.now());
        let made = client.create(&shared.collection(), &writer::object(&key, value, None)).await?;
        let (revision, _) = writer::contents(&made).context("an answer without revision")?;
        let outcome = Outcome::Ok { revision, value: None };
        let (action, end) = (Action::Create(value), shared.now());
        history.push(Operation { client: PREPARER, key, action, outcome, start, end });
    }
    Ok(history)
}

/// A last write that every watcher must see, and what each replica holds.
async fn finish(clients: &Clients, shared: &Shared) -> anyhow::Result<Vec<FinalState>> {
    let set = clients.set()?;
    let last = set[0].create(&shared.collection(), &writer::object("last", shared.value(), None)).await?;
    let (revision, _) = writer::contents(&last).context("an answer without revision")?;
    let mut finals = Vec::new();
    for client in &set {
        let (_, keys) = watcher::listed(&client.get(&shared.collection()).await?)?;
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
