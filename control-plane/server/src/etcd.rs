//! The etcd facade in a replica: its port, its certificates, its cluster, and
//! who ends leases.
//!
//! ```text
//!   etcdctl ─► TLS: the facade's own authority ─► Services ─► store
//!   leader scope ─► Lessor          on every replica, also where the port is off
//! ```
//!
//! The authority signs what the facade shows and what its clients show, and
//! nothing else believes it: a certificate for the facade is nobody at the
//! Kubernetes API, and a Kubernetes user's is refused in the facade's handshake.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use triarch_apiserver::listen::{self, Handler, Tls};
use triarch_apiserver::respond::Body;
use triarch_apiserver::server::Peer;
use triarch_env::{Env, Scope, Secret};
use triarch_etcd::{Cluster, ClusterMember, Condition, Facade, Identity as EtcdIdentity, Lessor, MoveError, Services};
use triarch_mvcc::{CommitError, Db, Guard, Key, Object, Op, Txn};
use triarch_pki::PkiError;
use triarch_pki::ca::{AltNames, Ca, CertAndKey, Usage};
use triarch_pki::identity::Identity;
use triarch_pki::seal::SealKey;
use triarch_pki::tls::{self, ClientAuth, ServerTls};
use triarch_raft::{Answers, MembershipError, NodeId, RaftDb};

use crate::keys::CERT_LIFETIME;
use crate::listen::answered;
use crate::quorum::Quorum;

/// What the sealed record says that it is.
const CONTEXT: &str = "triarch etcd facade authority v1";
/// Without the store the authority is looked for again after this.
const RETRY: Duration = Duration::from_secs(1);
/// How often the serving certificate is looked at.
const RENEW_CHECK: Duration = Duration::from_secs(3600);

fn authority_key() -> Key {
    Key::new("~keys", "", "etcd")
}

/// Where a replica keeps the URL that etcd's clients are told (plain text).
pub fn endpoint_key(id: NodeId) -> Key {
    Key::new("~etcd-endpoints", "", &id.to_string())
}

/// Certificate and key, both PEM.
#[derive(Serialize, Deserialize)]
struct Record {
    ca: (String, String),
}

/// The facade's authority was not to be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the store: {0}")]
    Store(#[from] CommitError),
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Signs the facade's certificates.
pub struct Authority(Ca);

impl Authority {
    /// The cluster's, made when it is first asked for; the first to write it wins.
    pub async fn of(db: &Arc<RaftDb>, seal: &SealKey, env: &Env) -> Result<Authority, AuthorityError> {
        loop {
            db.read_barrier().await?;
            if let Some(stored) = db.mvcc().get(&authority_key()) {
                let plain = seal.open(CONTEXT, &stored.object.bytes)?;
                let record: Record = serde_json::from_slice(&plain).map_err(|_| PkiError::Unseal)?;
                return Ok(Authority(Ca::load(&record.ca.0, &Secret::new(record.ca.1))?));
            }
            let ca = Ca::generate("triarch-etcd-ca", env.wall())?;
            let record = Record { ca: (ca.certificate_pem().to_owned(), ca.key_pem().expose().to_owned()) };
            let plain = serde_json::to_vec(&record).expect("a struct of strings serialises");
            let txn = Txn {
                guards: vec![Guard::Absent(authority_key())],
                ops: vec![Op::Put(authority_key(), Object::plain(seal.seal(CONTEXT, &plain)))],
                epoch: None,
            };
            db.commit(txn).await?;
        }
    }

    pub fn certificate_pem(&self) -> &str {
        self.0.certificate_pem()
    }

    /// A certificate that opens the facade, and nothing else.
    pub fn client(&self, user: &str, env: &Env, lifetime: Duration) -> Result<CertAndKey, PkiError> {
        self.0.issue(&Identity::new(user, &[]), &AltNames::default(), Usage::Client, env.wall(), lifetime)
    }

    fn serving(&self, name: &str, names: &AltNames, env: &Env) -> Result<ServerTls, PkiError> {
        let who = Identity::new(&format!("triarch-etcd-{name}"), &[]);
        let mut cert = self.0.issue(&who, names, Usage::Server, env.wall(), CERT_LIFETIME)?;
        cert.certificate_pem.push_str(self.0.certificate_pem());
        tls::server(&cert, self.0.certificate_pem(), ClientAuth::Required, &["h2"])
    }
}

/// What etcd's clients see of cluster and replica: numbers, the same on every
/// replica of a cluster and in every life of one.
fn identity(cluster_id: &str, node_id: NodeId) -> EtcdIdentity {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(cluster_id);
    let cluster_id = hash[..8].iter().fold(0, |n, b| n << 8 | u64::from(*b));
    EtcdIdentity { cluster_id, member_id: node_id }
}

/// Keeps the time of leases while this replica leads, and answers for it.
pub fn serve_leases(db: &Arc<RaftDb>, env: &Env, scope: &Scope) {
    let watch = db.leader_watch().clone();
    let leads = watch.clone();
    let lessor = Lessor::new(db.clone() as Arc<dyn Db>, env.clone(), move || leads.leadership());
    db.answer_with(Arc::new(Leases(lessor.clone())));
    let (env2, scope2) = (env.clone(), scope.clone());
    env.spawn_in(scope, "leases", async move {
        watch.run_as_leader(&env2, &scope2, move |epoch, _| lessor.clone().lead(epoch)).await;
    });
}

struct Leases(Arc<Lessor>);

#[async_trait::async_trait]
impl Answers for Leases {
    async fn answer(&self, question: Bytes) -> Option<Bytes> {
        self.0.answer(&question).await
    }
}

/// The replicas, as members of an etcd cluster.
struct Members(Arc<RaftDb>, Quorum);

#[async_trait::async_trait]
impl Cluster for Members {
    fn members(&self) -> Vec<ClusterMember> {
        let told = |id: NodeId| {
            let stored = self.0.mvcc().get(&endpoint_key(id))?;
            String::from_utf8(stored.object.bytes.to_vec()).ok()
        };
        let member = |(id, r, votes): (NodeId, triarch_raft::Replica, bool)| ClusterMember {
            id,
            name: r.name,
            peer_url: format!("https://{}", r.peer_address),
            client_url: told(id),
            learner: !votes,
        };
        self.0.members().into_iter().map(member).collect()
    }

    fn condition(&self) -> Condition {
        let (view, me) = (self.0.leader_watch().view(), self.0.config().node_id);
        let applied = self.0.mvcc().applied().index;
        Condition {
            leader: view.leader.filter(|_| self.1.reachable()).unwrap_or(0),
            term: view.term,
            committed: applied + self.0.queues().apply,
            applied,
            disk_bytes: self.0.disk_bytes(),
            learner: !self.0.members().iter().any(|(id, _, votes)| *id == me && *votes),
        }
    }

    fn lost(&self) -> BoxFuture<'static, ()> {
        let quorum = self.1.clone();
        async move { quorum.lost().await }.boxed()
    }

    async fn ask_leader(&self, question: Bytes) -> Result<Bytes, CommitError> {
        self.0.ask_leader(question).await
    }

    async fn move_leader(&self, to: NodeId) -> Result<(), MoveError> {
        match self.0.transfer_leader(Some(to)).await {
            Ok(_) => Ok(()),
            Err(MembershipError::NotLeader(_)) => Err(MoveError::NotLeader),
            Err(MembershipError::Unknown(_)) => Err(MoveError::NoVoter),
            Err(e) => Err(MoveError::Failed(e.to_string())),
        }
    }
}

/// What the port is made of.
pub struct Port {
    pub db: Arc<RaftDb>,
    pub quorum: Quorum,
    pub env: Env,
    /// This replica's name.
    pub name: String,
    /// Everything that clients may call it.
    pub names: AltNames,
    pub seal: SealKey,
    /// Plain text on loopback, by configuration.
    pub insecure: bool,
}

impl Port {
    /// Serves `listener` until `scope` ends: with TLS, from when the authority
    /// is in this replica's store.
    pub async fn serve(self, listener: tokio::net::TcpListener, scope: Scope) {
        let identity = identity(&self.db.config().cluster_id, self.db.config().node_id);
        let cluster = Arc::new(Members(self.db.clone(), self.quorum.clone()));
        let facade = Facade::new(self.db.clone() as Arc<dyn Db>, self.env.clone(), identity, cluster);
        let handler = Arc::new(Answering(Services::new(facade)));
        let tls = if self.insecure {
            None
        } else {
            let authority = self.authority().await;
            match authority.serving(&self.name, &self.names, &self.env) {
                Ok(tls) => {
                    let (tls, env) = (Tls::new(tls, self.env.clone()), self.env.clone());
                    env.spawn_in(&scope, "etcd-renewal", self.renew(authority, tls.clone()));
                    Some(tls)
                }
                Err(e) => return tracing::error!(error = %e, "the etcd facade has no certificate and is not served"),
            }
        };
        listen::serve(handler, listener, tls, scope).await;
    }

    async fn authority(&self) -> Authority {
        loop {
            match Authority::of(&self.db, &self.seal, &self.env).await {
                Ok(authority) => return authority,
                Err(e) => tracing::warn!(error = %e, "the etcd facade's authority is not known yet"),
            }
            self.env.sleep(RETRY).await;
        }
    }

    /// Renews the serving certificate at two thirds of its life.
    async fn renew(self, authority: Authority, tls: Tls) {
        let mut due = self.env.wall() + CERT_LIFETIME * 2 / 3;
        loop {
            self.env.sleep(RENEW_CHECK).await;
            if self.env.wall() < due {
                continue;
            }
            match authority.serving(&self.name, &self.names, &self.env) {
                Ok(renewed) => {
                    tls.replace(renewed);
                    due = self.env.wall() + CERT_LIFETIME * 2 / 3;
                }
                Err(e) => tracing::error!(error = %e, "the etcd facade's certificate cannot be renewed"),
            }
        }
    }
}

/// The handshake has decided who may ask.
struct Answering(Services);

impl Handler for Answering {
    /// Its requests wait for a commit, or are watches.
    fn together(&self) -> bool {
        true
    }

    fn handle(self: Arc<Self>, request: Request<Incoming>, _: Peer) -> BoxFuture<'static, Response<Body>> {
        self.0.call(request).map(answered).boxed()
    }
}
