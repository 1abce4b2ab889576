//! The admin service: joining replicas, membership, status, tokens,
//! kubeconfigs. What only the leader can do is forwarded to it once.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use triarch_env::Env;
use triarch_gateway::Liveness;
use triarch_gateway::join::{check_token, token_key};
use triarch_gateway::service::PeerCertificates;
use triarch_mvcc::{Db, Guard, Key, ListRequest, Object, Op, Prefix, Txn, TxnOutcome};
use triarch_pki::ca::CertAndKey;
use triarch_pki::identity::{self, Identity};
use triarch_pki::tls;
use triarch_pki::token::{JoinToken, TokenClass};
use triarch_raft::{MembershipError, RaftDb, Replica};
use triarch_rpc::admin::admin_client::AdminClient;
use triarch_rpc::admin::admin_server::{Admin, AdminServer};
use triarch_rpc::admin::*;

use crate::birth::{LocalPki, peer_names};
use crate::cluster::ClusterConfiguration;
use crate::config::ServerConfiguration;
use crate::etcd::Authority;
use crate::keys::ClusterKeys;
use crate::quorum::Quorum;
use crate::{dial, kubeconfig};

/// How long a forwarded call may take.
const FORWARD: Duration = Duration::from_secs(30);
/// Longest life of a token or certificate made here, seconds.
const MAX_TTL: i64 = 365 * 86_400;
/// The group of replicas' own client certificates.
pub const REPLICAS: &str = "system:triarch-replicas";
/// Says that a call was forwarded, so that it is not forwarded again.
const FORWARDED: &str = "triarch-forwarded";

/// How the caller reached the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The socket in the data directory: whoever opens it owns the replica.
    Socket,
    /// The API port: the client certificate decides.
    Port,
}

/// See the module's text.
#[derive(Clone)]
pub struct AdminService {
    pub door: Door,
    pub db: Arc<RaftDb>,
    pub env: Env,
    pub keys: Arc<ClusterKeys>,
    pub pki: LocalPki,
    pub config: Arc<ServerConfiguration>,
    pub cluster_id: String,
    /// This replica's own client certificate, for calls to the leader.
    pub own: Arc<CertAndKey>,
    pub liveness: Arc<Liveness>,
    pub quorum: Quorum,
}

fn membership(e: MembershipError) -> Status {
    match e {
        MembershipError::NotLeader(_) => Status::unavailable(e.to_string()),
        MembershipError::Timeout(_) => Status::deadline_exceeded(e.to_string()),
        _ => Status::failed_precondition(e.to_string()),
    }
}

fn internal(e: impl std::fmt::Display) -> Status {
    Status::internal(e.to_string())
}

/// The name that a certificate is to carry.
fn check_user(user: &str) -> Result<(), Status> {
    match user.len() {
        1..=253 => Ok(()),
        _ => Err(Status::invalid_argument("user: takes 1 to 253 characters")),
    }
}

/// How long a token or certificate is to live.
fn lifetime(seconds: i64) -> Result<Duration, Status> {
    match seconds {
        1..=MAX_TTL => Ok(Duration::from_secs(seconds.unsigned_abs())),
        _ => Err(Status::invalid_argument(format!("ttl: got {seconds}s, takes 1s to 365d"))),
    }
}

impl AdminService {
    /// The service to mount.
    pub fn server(self) -> AdminServer<AdminService> {
        AdminServer::new(self)
    }

    /// Whether the caller administers the cluster.
    fn authorize<T>(&self, request: &Request<T>, groups: &[&str]) -> Result<(), Status> {
        if self.door == Door::Socket {
            return Ok(());
        }
        let certs = request.extensions().get::<PeerCertificates>().cloned().unwrap_or_default();
        let leaf = certs.0.first().ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        let info = identity::from_der(leaf).map_err(|e| Status::unauthenticated(e.to_string()))?;
        if info.identity.groups.iter().any(|g| groups.contains(&g.as_str())) {
            return Ok(());
        }
        Err(Status::permission_denied(format!("user {:?} is not in any of the groups {groups:?}", info.identity.user)))
    }

    /// The leader's admin service when that is another replica, and this call
    /// has not been forwarded yet.
    async fn leader<T>(&self, request: &Request<T>) -> Result<Option<AdminClient<tonic::transport::Channel>>, Status> {
        let view = self.db.leader_watch().view();
        if view.leader == Some(self.db.config().node_id) {
            return Ok(None);
        }
        let no_leader = || Status::unavailable("there is no leader now; try again");
        if request.metadata().contains_key(FORWARDED) {
            return Err(no_leader());
        }
        let leader = view.leader.ok_or_else(no_leader)?;
        let status = self.db.status().await;
        let replica = status.replicas.iter().find(|r| r.id == leader).ok_or_else(no_leader)?;
        let tls = tls::client(self.keys.ca.certificate_pem(), Some(&self.own), &["h2"]).map_err(internal)?;
        let url = format!("https://{}", replica.client_address);
        let channel = dial::with_timeout(Duration::from_secs(5), dial::https(&url, tls)).await;
        let channel = channel.map_err(|e| Status::unavailable(format!("the leader at {url}: {e:#}")))?;
        Ok(Some(AdminClient::new(channel)))
    }

    /// Whether this replica is the leader, as far as it knows.
    pub fn leads(&self) -> bool {
        self.db.leader_watch().view().leader == Some(self.db.config().node_id)
    }

    /// The leader's admin service; `None` when this replica leads.
    pub async fn to_leader(&self) -> Result<Option<AdminClient<tonic::transport::Channel>>, Status> {
        self.leader(&Request::new(())).await
    }

    async fn members(&self) -> Vec<Member> {
        let status = self.db.status().await;
        status
            .replicas
            .into_iter()
            .map(|r| Member {
                id: r.id,
                name: r.name,
                peer_address: r.peer_address,
                advertise_address: r.client_address,
                role: if r.voter { "voter" } else { "learner" }.into(),
            })
            .collect()
    }

    async fn find(&self, name: &str) -> Result<u64, Status> {
        let status = self.db.status().await;
        let names: Vec<&str> = status.replicas.iter().map(|r| r.name.as_str()).collect();
        let found = status.replicas.iter().find(|r| r.name == name).map(|r| r.id);
        found.ok_or_else(|| Status::not_found(format!("no replica is named {name:?}; there are {}", names.join(", "))))
    }

    fn nodes(&self) -> Vec<NodeStatus> {
        let all = |resource: &str| {
            let request = ListRequest { prefix: Prefix::resource(resource), after: None, limit: 0, at: None };
            self.db.mvcc().list(&request).map(|l| l.items).unwrap_or_default()
        };
        let mut pods = std::collections::BTreeMap::<String, u32>::new();
        for p in all("pods") {
            let v = triarch_gateway::node_set::value(&p);
            if let Some(node) = v.pointer("/spec/nodeName").and_then(|n| n.as_str()) {
                *pods.entry(node.to_owned()).or_default() += 1;
            }
        }
        all("nodes")
            .iter()
            .map(|n| {
                let v = triarch_gateway::node_set::value(n);
                let conditions =
                    v.pointer("/status/conditions").and_then(|c| c.as_array()).cloned().unwrap_or_default();
                let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
                let name = n.key.name().to_owned();
                NodeStatus { ready, pods: pods.get(&name).copied().unwrap_or(0), name }
            })
            .collect()
    }
}

/// The request with a mark that it was forwarded.
fn onward<T>(body: T) -> Request<T> {
    let mut request = Request::new(body);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request.set_timeout(FORWARD);
    request
}

/// Forwards to the leader and returns, when the leader is another replica.
macro_rules! on_leader {
    ($self:ident, $request:ident, $method:ident) => {
        if let Some(mut leader) = $self.leader(&$request).await? {
            return leader.$method(onward($request.into_inner())).await;
        }
    };
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn join_server(&self, request: Request<JoinServerRequest>) -> Result<Response<JoinServerResponse>, Status> {
        on_leader!(self, request, join_server);
        let r = request.into_inner();
        self.db.read_barrier().await.map_err(|e| Status::unavailable(e.to_string()))?;
        check_token(self.db.mvcc(), &r.token, TokenClass::Server, self.env.wall())
            .map_err(|e| Status::unauthenticated(e.to_string()))?;
        if let Some(why) = triarch_api::names::dns1123_label(&r.name).first() {
            return Err(Status::invalid_argument(format!("replica name {:?}: {why}", r.name)));
        }
        let members = self.members().await;
        let replica = Replica {
            name: r.name.clone(),
            peer_address: r.peer_address.clone(),
            client_address: r.advertise_address.clone(),
            incarnation: r.incarnation,
        };
        let node_id = self.db.add_replica(replica, r.feature_level).await.map_err(membership)?;
        let joining = ServerConfiguration {
            peer_listen: r.peer_address.clone(),
            peer_advertise: r.peer_address,
            ..(*self.config).clone()
        };
        let peer = self.keys.peer(&r.name, &peer_names(&joining), self.env.wall()).map_err(internal)?;
        tracing::info!(name = r.name, node_id, "replica joins as a learner");
        let bytes = |s: &str| s.as_bytes().to_vec().into();
        Ok(Response::new(JoinServerResponse {
            cluster_id: self.cluster_id.clone(),
            node_id,
            ca_pem: bytes(self.keys.ca.certificate_pem()),
            seal_key: bytes(self.pki.seal.to_text().expose()),
            peer_certificate_pem: bytes(&peer.certificate_pem),
            peer_key_pem: bytes(peer.key_pem.expose()),
            peer_ca_pem: bytes(self.keys.peer_ca.certificate_pem()),
            members,
            shared_configuration: ClusterConfiguration::of(&self.config).to_json(),
            ..JoinServerResponse::default()
        }))
    }

    async fn add_replica(&self, request: Request<AddReplicaRequest>) -> Result<Response<AddReplicaResponse>, Status> {
        self.authorize(&request, &[triarch_auth::SYSTEM_MASTERS, REPLICAS])?;
        on_leader!(self, request, add_replica);
        self.db.promote(request.into_inner().node_id).await.map_err(membership)?;
        Ok(Response::new(AddReplicaResponse { members: self.members().await }))
    }

    async fn remove_replica(
        &self,
        request: Request<RemoveReplicaRequest>,
    ) -> Result<Response<RemoveReplicaResponse>, Status> {
        self.authorize(&request, &[triarch_auth::SYSTEM_MASTERS, REPLICAS])?;
        on_leader!(self, request, remove_replica);
        let id = self.find(&request.into_inner().name).await?;
        self.db.remove_replica(id).await.map_err(membership)?;
        Ok(Response::new(RemoveReplicaResponse { members: self.members().await }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.authorize(&request, &[triarch_auth::SYSTEM_MASTERS, REPLICAS])?;
        // The leader knows when it last heard of each; without one, this
        // replica says what it knows.
        if request.get_ref().forward
            && let Ok(Some(mut leader)) = self.leader(&request).await
            && let Ok(answer) = leader.status(onward(StatusRequest { forward: false })).await
        {
            return Ok(answer);
        }
        let status = self.db.status().await;
        // Without a quorum the last leader that was heard of is nobody's.
        let known = status.leader.filter(|_| self.quorum.reachable());
        let leader = status.replicas.iter().find(|r| Some(r.id) == known).map(|r| r.name.clone());
        let replicas = status
            .replicas
            .into_iter()
            .map(|r| ReplicaStatus {
                name: r.name,
                id: r.id,
                pid: r.pid,
                address: r.client_address,
                applied_revision: r.applied_revision,
                last_quorum_ack_ms: r.last_ack.map_or(-1, |d| d.as_millis() as i64),
                disk_bytes: r.disk_bytes,
                ready: r.ready,
                error: if r.reachable { String::new() } else { "not reachable".into() },
                role: if r.voter { "voter" } else { "learner" }.into(),
                feature_level: r.supports,
            })
            .collect();
        Ok(Response::new(StatusResponse {
            leader: leader.unwrap_or_default(),
            term: status.term,
            replicas,
            nodes: self.nodes(),
            cluster_id: self.cluster_id.clone(),
            feature_level: u32::try_from(self.db.mvcc().feature_level()).unwrap_or(u32::MAX),
            version: env!("CARGO_PKG_VERSION").into(),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        self.authorize(&request, &[triarch_auth::SYSTEM_MASTERS, REPLICAS])?;
        on_leader!(self, request, transfer_leader);
        let to = match request.into_inner().to {
            name if name.is_empty() => None,
            name => Some(self.find(&name).await?),
        };
        let started = self.env.mono();
        let view = self.db.transfer_leader(to).await.map_err(membership)?;
        let took_ms = (self.env.mono() - started).as_millis() as u64;
        let members = self.members().await;
        let leader = members.into_iter().find(|m| Some(m.id) == view.leader).map(|m| m.name).unwrap_or_default();
        Ok(Response::new(TransferLeaderResponse { leader, term: view.term, took_ms }))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        self.authorize(&request, &[triarch_auth::SYSTEM_MASTERS])?;
        let r = request.into_inner();
        let class = TokenClass::parse(&r.class)
            .ok_or_else(|| Status::invalid_argument(format!("class: got {:?}, takes node or server", r.class)))?;
        let lifetime = lifetime(r.ttl_seconds)?;
        let token = JoinToken::generate(class, self.keys.ca.fingerprint());
        let expires = self.env.wall() + lifetime;
        let record = serde_json::to_vec(&token.record(expires)).map_err(internal)?;
        let key: Key = token_key(&token.id);
        let txn = Txn {
            guards: vec![Guard::Absent(key.clone())],
            ops: vec![Op::Put(key, Object::plain(record))],
            epoch: None,
        };
        let done = self.db.commit(txn).await.map_err(|e| Status::unavailable(e.to_string()))?;
        if !matches!(done.outcome, TxnOutcome::Committed { .. }) {
            return Err(internal("the token's id is taken; try again"));
        }
        let join_url = format!("https://{}", self.config.advertised());
        Ok(Response::new(CreateTokenResponse { token: token.to_text().expose().to_owned(), join_url }))
    }

    async fn kubeconfig(&self, request: Request<KubeconfigRequest>) -> Result<Response<KubeconfigResponse>, Status> {
        self.authorize(&request, &[triarch_auth::SYSTEM_MASTERS])?;
        let r = request.into_inner();
        check_user(&r.user)?;
        let lifetime = lifetime(r.ttl_seconds)?;
        let who = Identity { user: r.user.clone(), groups: r.groups };
        let cert =
            self.keys.client(&who, self.env.wall(), lifetime).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let server = if r.server.is_empty() { format!("https://{}", self.config.advertised()) } else { r.server };
        let text = kubeconfig::render(&r.cluster_name, &r.user, &server, self.keys.ca.certificate_pem(), &cert);
        Ok(Response::new(KubeconfigResponse { kubeconfig: text.map_err(internal)? }))
    }

    async fn etcd_certificate(
        &self,
        request: Request<EtcdCertificateRequest>,
    ) -> Result<Response<EtcdCertificateResponse>, Status> {
        self.authorize(&request, &[triarch_auth::SYSTEM_MASTERS])?;
        let r = request.into_inner();
        check_user(&r.user)?;
        let lifetime = lifetime(r.ttl_seconds)?;
        let authority = Authority::of(&self.db, &self.pki.seal, &self.env).await;
        let authority = authority.map_err(|e| Status::unavailable(e.to_string()))?;
        let cert = authority.client(&r.user, &self.env, lifetime);
        let cert = cert.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let bytes = |s: &str| s.as_bytes().to_vec().into();
        Ok(Response::new(EtcdCertificateResponse {
            ca_pem: bytes(authority.certificate_pem()),
            certificate_pem: bytes(&cert.certificate_pem),
            key_pem: bytes(cert.key_pem.expose()),
        }))
    }

    async fn report_liveness(
        &self,
        request: Request<ReportLivenessRequest>,
    ) -> Result<Response<ReportLivenessResponse>, Status> {
        self.authorize(&request, &[REPLICAS])?;
        let nodes = request.into_inner().nodes;
        self.liveness.reported(nodes.into_iter().map(|n| (n.name, n.milliseconds_ago)));
        Ok(Response::new(ReportLivenessResponse {}))
    }
}
