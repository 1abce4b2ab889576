//! Running a replica: storage first, then the keys, then the API, then what
//! agents and operators talk to; leadership comes and goes meanwhile.
//!
//! ```text
//!   data directory ─► stores ─► RaftDb ─► peer listener ─► caught up ─► keys
//!        ─► registry ─► API + gateway + admin on the client port(s) ─► ready
//! ```
//! Stopping is the same backwards: shared port first, then leadership, then
//! watches and connections, then the log.

mod certificates;
mod ports;
mod signals;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry as Prometheus;
use tonic::service::Routes;
use triarch_apiserver::listen::{self, Tls};
use triarch_apiserver::{Audit, AuditConfig, Bounds, Connections};
use triarch_checkpoint::CheckpointError;
use triarch_env::{Env, ExitCode, Scope, TokioRuntime};
use triarch_mvcc::{Db, Guard, Object, Op, Txn};
use triarch_pki::ca::AltNames;
use triarch_pki::identity::Identity;
use triarch_pki::tls::{self, ClientAuth};
use triarch_raft::grpc::{GrpcTransport, PeerTls, raft_service};
use triarch_raft::{DataDir, OpenError, RaftConfig, RaftDb, Replica, StartError, Stores, Timers, Window};
use triarch_wal::WalError;

use crate::admin::REPLICAS;
use crate::api::Api;
use crate::birth::{self, Born, PEER_NAME};
use crate::cluster::{self, ClusterConfiguration};
use crate::commands::Failure;
use crate::config::ServerConfiguration;
use crate::keys::{self, CERT_LIFETIME, ClusterKeys};
use crate::listen::Port;
use crate::quorum::Quorum;
use certificates::{host, verify_peer};
use ports::{bind, unix};
use signals::signals;

/// How long a stopping leader tries to hand leadership over.
const HANDOVER: Duration = Duration::from_secs(2);
/// How often the list of peers on disk is compared with the membership.
const PEERS_CHECK: Duration = Duration::from_secs(30);

/// What the command line asked for.
pub struct Options {
    pub data_dir: PathBuf,
    pub name: String,
    pub config: ServerConfiguration,
    pub start: Start,
    /// Where controllers, the scheduler and agents' sessions run, so that the
    /// log and the API never queue behind them.
    pub background: tokio::runtime::Handle,
}

/// How the replica comes to be.
pub enum Start {
    Init,
    Join { url: String, token: String },
    Again,
}

/// Runs until a signal, or until the replica cannot go on.
pub async fn serve(o: Options) -> Result<(), Failure> {
    let runtime = TokioRuntime::current();
    let background = Env::new(runtime.on(o.background));
    let env = Env::new(runtime);
    let mut config = o.config;
    let dir = DataDir::open(&o.data_dir).map_err(|e| birth::refuse(&e))?;
    // Taken before anything is written: a port that is in use is found early.
    let client_port = bind(&config.listen, "listen", false)?;
    let peer_port = bind(&config.peer_listen, "peerListen", false)?;
    let born = match (&o.start, dir.identity().is_some()) {
        (Start::Init, _) => birth::init(dir, &o.name, &config, &env)?,
        (Start::Join { url, token }, false) => birth::join(dir, &o.name, &mut config, &env, url, token).await?,
        // A replica that is started again with its old command line goes on.
        (Start::Join { .. } | Start::Again, _) => birth::again(dir, &o.name)?,
    };
    Running { env, background, config, born, name: o.name }.run(client_port, peer_port).await
}

/// One replica while it starts and runs.
struct Running {
    env: Env,
    background: Env,
    config: ServerConfiguration,
    born: Born,
    name: String,
}

/// Why the store stopped by itself.
fn stopped(db: &RaftDb, reason: String) -> Failure {
    Failure::new(if db.is_refused() { ExitCode::Refused } else { ExitCode::Failed }, reason)
}

/// What the disk refuses has failed; what it holds and should not is refused.
fn open_failure(e: OpenError) -> Failure {
    let code = match &e {
        OpenError::Wal(WalError::Io { .. }) | OpenError::Checkpoint(CheckpointError::Io { .. }) => ExitCode::Failed,
        OpenError::Thread(_) => ExitCode::Failed,
        OpenError::Starts(e) if e.kind() != std::io::ErrorKind::InvalidData => ExitCode::Failed,
        OpenError::Wal(_) | OpenError::Checkpoint(_) | OpenError::Starts(_) => ExitCode::Refused,
    };
    Failure::new(code, format!("the data directory cannot be used: {e}"))
}

fn start_failure(e: StartError) -> Failure {
    let code = match &e {
        StartError::Raft(_) | StartError::Wal(WalError::Io { .. }) => ExitCode::Failed,
        _ => ExitCode::Refused,
    };
    Failure::new(code, e)
}

impl Running {
    fn raft_config(&self) -> RaftConfig {
        let id = self.born.dir.identity().expect("a born replica has an identity");
        let replica = Replica {
            name: self.name.clone(),
            peer_address: self.config.peer_advertised().to_owned(),
            client_address: self.config.advertised().to_owned(),
            incarnation: id.incarnation,
        };
        let mut raft = RaftConfig::new(id.cluster_id.clone(), id.node_id, replica);
        raft.new_log = self.born.new;
        let election = Duration::from_millis(self.config.election_timeout_ms);
        raft.timers = Timers {
            heartbeat: Duration::from_millis(self.config.heartbeat_ms),
            election_min: election,
            election_max: election * 3 / 2,
            ..Timers::default()
        };
        let window = &self.config.watch_window;
        raft.window = Window {
            age: Duration::from_secs(window.seconds),
            events: window.events,
            bytes: window.mib << 20,
            ..Window::default()
        };
        raft
    }

    async fn run(
        mut self,
        client_port: tokio::net::TcpListener,
        peer_port: tokio::net::TcpListener,
    ) -> Result<(), Failure> {
        let env = self.env.clone();
        let prometheus = Arc::new(Mutex::new(Prometheus::default()));
        let raft_config = self.raft_config();
        let (cluster_id, node_id) = (raft_config.cluster_id.clone(), raft_config.node_id);
        let begins = raft_config.new_log;
        let wal = triarch_wal::Config { salt: env.random_u64(), begins, ..triarch_wal::Config::default() };
        let fsync = crate::metrics::fsync_histogram(&prometheus);
        let stores = Stores::open(&self.born.dir, &env, &wal, Some(fsync)).map_err(open_failure)?;
        let pki = self.born.pki.clone();
        let peer_tls = PeerTls {
            config: Arc::new(tls::client(&pki.peer_ca, Some(&pki.peer), &["h2"])?),
            server_name: PEER_NAME.into(),
        };
        let incarnation = raft_config.replica.incarnation;
        let transport =
            GrpcTransport::new(cluster_id.clone(), node_id, incarnation, Some(peer_tls), raft_config.timers.connect);
        let db = RaftDb::start(raft_config, env.clone(), stores, Arc::new(transport)).await.map_err(start_failure)?;
        crate::metrics::store(&prometheus, &db);

        // Peers first: nothing else works without a quorum.
        let peers = Scope::new();
        let peer_acceptor = Tls::new(tls::server(&pki.peer, &pki.peer_ca, ClientAuth::Required, &["h2"])?, env.clone());
        let raft = raft_service(db.peer_handler(), Some(verify_peer(&db)));
        let seen = Connections::new("peer").register(&mut prometheus.lock());
        let peer_handler = Arc::new(Port { grpc: Routes::new(raft), api: None, bounds: Bounds::counted(seen.clone()) });
        let serving = listen::serve(peer_handler, peer_port, Some(peer_acceptor.clone()), peers.clone());
        env.spawn("peer-listener", serving);

        let scope = Scope::new();
        let stopped = self.serve_all(&db, client_port, &scope, prometheus, peer_acceptor, seen).await;
        // Out of the shared port and away from clients first, then the log.
        scope.cancel();
        if db.leader_watch().leadership().is_some() {
            let handed = env.timeout(HANDOVER, db.transfer_leader(None)).await;
            tracing::info!(done = matches!(handed, Ok(Ok(_))), "leadership handed over");
        }
        env.sleep(Duration::from_millis(100)).await;
        db.shutdown().await;
        peers.cancel();
        stopped
    }

    /// Everything above the store; returns when the replica is to stop.
    async fn serve_all(
        &mut self,
        db: &Arc<RaftDb>,
        client_port: tokio::net::TcpListener,
        scope: &Scope,
        prometheus: Arc<Mutex<Prometheus>>,
        peer_acceptor: Tls,
        seen: Connections,
    ) -> Result<(), Failure> {
        let env = self.env.clone();
        let mut stop = signals()?;
        if let Some(keys) = self.born.founding.take() {
            db.initialize().await?;
            self.found(db, &keys).await?;
        }
        // A joining replica is told of as soon as it listens; the answer comes
        // when it is a voter, and catching up needs no answer.
        let keys = tokio::select! {
            biased;
            reason = db.stopped() => return Err(stopped(db, reason)),
            () = stop.wait() => return Ok(()),
            keys = self.keys(db) => Arc::new(keys?),
        };
        if let Some(shared) = ClusterConfiguration::open(db.mvcc()) {
            shared.put_into(&mut self.config);
        }
        let config = Arc::new(self.config.clone());
        let own = Arc::new(keys.client(
            &Identity::new(&format!("system:triarch-replica:{}", self.name), &[REPLICAS]),
            env.wall(),
            CERT_LIFETIME,
        )?);
        if let Some(url) = self.born.joined.take() {
            let (pki, own, env2, id) = (self.born.pki.clone(), own.clone(), env.clone(), db.config().node_id);
            env.spawn_in(scope, "announce", async move {
                while let Err(e) = birth::announce(&url, &pki, id, own.clone()).await {
                    tracing::warn!(error = %format!("{e:#}"), "not a voter yet; trying again");
                    env2.sleep(Duration::from_millis(500)).await;
                }
                tracing::info!("this replica is a voter");
            });
        }

        self.say_endpoint(db, &config, scope);
        let quorum = Quorum::start(db, &env, scope);
        let serving = self.names(&config);
        let acceptor = Tls::new(self.client_tls(&keys, &serving)?, self.env.clone());
        let audit = self.audit(&config)?;
        let api = Api::new(
            &env,
            &self.background,
            &self.born.pki,
            db,
            &keys,
            &config,
            own,
            scope,
            prometheus,
            audit,
            quorum.clone(),
            seen,
        );
        let (port, admin) = (api.port(), api.socket());
        env.spawn("client-listener", listen::serve(port.clone(), client_port, Some(acceptor.clone()), scope.clone()));
        if !config.shared_listen.is_empty() {
            let listener = bind(&config.shared_listen, "sharedListen", true)?;
            self.share(quorum.clone(), listener, port.clone(), acceptor.clone(), scope);
        }
        for path in &config.node_sockets {
            let listener = unix(path)?;
            env.spawn("node-socket", listen::serve_unix(port.clone(), listener, Some(acceptor.clone()), scope.clone()));
        }
        let socket = unix(&self.born.dir.path().join(crate::ADMIN_SOCKET))?;
        env.spawn("admin-socket", listen::serve_unix(admin, socket, None, scope.clone()));
        if !config.etcd_facade.listen.is_empty() {
            self.etcd(db, &quorum, &config, scope)?;
        }
        crate::etcd::serve_leases(db, &env, scope);
        api.background(&self.background, scope);
        self.renewals(&keys, serving, acceptor, peer_acceptor, scope);
        let _not_under_systemd = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        tracing::info!(listen = config.listen, name = self.name, "serving");
        tokio::select! {
            biased;
            reason = db.stopped() => Err(stopped(db, reason)),
            () = stop.wait() => Ok(()),
        }
    }

    /// Writes what a new cluster starts with.
    async fn found(&self, db: &Arc<RaftDb>, keys: &ClusterKeys) -> Result<(), Failure> {
        let put = |key: triarch_mvcc::Key, object| (Guard::Absent(key.clone()), Op::Put(key, object));
        let records = [
            put(keys::store_key(), keys.seal(&self.born.pki.seal)),
            put(cluster::store_key(), ClusterConfiguration::of(&self.config).object()),
            put(cluster::service_cidr_key(), Object::plain(self.config.service_cidr.clone().into_bytes())),
        ];
        let (guards, ops) = records.into_iter().unzip();
        let done = db.commit(Txn { guards, ops, epoch: None }).await?;
        tracing::info!(outcome = ?done.outcome, "cluster founded");
        Ok(())
    }

    /// Tells the cluster what pods and etcd's clients are to dial for this
    /// replica, and keeps on disk where the others are.
    fn say_endpoint(&self, db: &Arc<RaftDb>, config: &Arc<ServerConfiguration>, scope: &Scope) {
        let id = db.config().node_id;
        let plain = |text: &str| Object::plain(text.as_bytes().to_vec());
        let etcd = match config.etcd_facade.listen.is_empty() {
            true => Op::Delete(crate::etcd::endpoint_key(id)),
            false => Op::Put(crate::etcd::endpoint_key(id), plain(&config.etcd_url())),
        };
        let ops = vec![Op::Put(cluster::endpoint_key(id), plain(config.endpoint())), etcd];
        let (db2, env) = (db.clone(), self.env.clone());
        self.env.spawn_in(scope, "endpoint", async move {
            let txn = Txn { ops, ..Txn::default() };
            while let Err(e) = db2.commit(txn.clone()).await {
                tracing::debug!(error = %e, "this replica's endpoint is not known yet");
                env.sleep(Duration::from_secs(1)).await;
            }
        });
        // Whom to ask if the checkpoint is ever lost.
        let (db, env, dir) = (db.clone(), self.env.clone(), self.born.dir.path().to_owned());
        self.env.spawn_in(scope, "peers-file", async move {
            let mut known = Vec::new();
            loop {
                let peers = db.peers();
                if peers != known {
                    match triarch_raft::save_peers(&dir, &peers) {
                        Ok(()) => known = peers,
                        Err(e) => tracing::warn!(error = %e, "the list of peers is not saved"),
                    }
                }
                env.sleep(PEERS_CHECK).await;
            }
        });
    }

    /// The cluster's keys, once they are in this replica's memory.
    async fn keys(&self, db: &Arc<RaftDb>) -> Result<ClusterKeys, Failure> {
        db.ready().await;
        let mut pause = Duration::from_millis(5);
        loop {
            let opened = ClusterKeys::open(db.mvcc(), &self.born.pki.seal).map_err(|e| {
                let text = "the cluster's keys cannot be opened with this directory's pki/seal.key";
                let way = "restore that file, or remove this replica and join it again";
                Failure::new(ExitCode::Refused, format!("{text}: {e}; {way}"))
            })?;
            if let Some(keys) = opened {
                return Ok(keys);
            }
            // They arrive with the first entries; this is the founding race only.
            self.env.sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// A replica whose audit log cannot be written does not serve.
    fn audit(&self, config: &ServerConfiguration) -> Result<Audit, Failure> {
        if config.audit.level == "None" {
            return Ok(Audit::disabled());
        }
        let path = match config.audit.path.as_os_str().is_empty() {
            true => self.born.dir.path().join("audit.log"),
            false => config.audit.path.clone(),
        };
        let shown = path.display().to_string();
        let audit =
            AuditConfig { path, max_bytes: config.audit.max_size_mib << 20, max_files: config.audit.max_backups };
        Audit::open(audit).map_err(|e| Failure::new(ExitCode::Failed, format!("audit.path: cannot write {shown}: {e}")))
    }

    /// etcd's API, in a keyspace of its own.
    fn etcd(
        &self,
        db: &Arc<RaftDb>,
        quorum: &Quorum,
        config: &ServerConfiguration,
        scope: &Scope,
    ) -> Result<(), Failure> {
        let listener = bind(&config.etcd_facade.listen, "etcdFacade.listen", false)?;
        let mut names = self.names(config);
        let own = [&config.etcd_facade.listen, &config.etcd_advertised()].map(|a| host(a));
        let own = AltNames::parse(own.iter().map(String::as_str).filter(|h| *h != "0.0.0.0" && *h != "::"));
        names.dns.extend(own.dns);
        names.ips.extend(own.ips);
        let port = crate::etcd::Port {
            db: db.clone(),
            quorum: quorum.clone(),
            env: self.env.clone(),
            name: self.name.clone(),
            names,
            seal: self.born.pki.seal.clone(),
            insecure: config.etcd_facade.insecure_loopback,
        };
        self.env.spawn_in(scope, "etcd-listener", port.serve(listener, scope.clone()));
        Ok(())
    }
}
