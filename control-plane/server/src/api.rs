//! What a replica serves above its store: the Kubernetes API, the gateway for
//! agents, the admin service, and what runs beside them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry as Prometheus;
use tonic::service::Routes;
use triarch_apiserver::server::{ApiServer, Limits, Page, Parts};
use triarch_apiserver::{Audit, Bounds, Check, Connections, VersionInfo};
use triarch_auth::authn::Authn;
use triarch_auth::escalation::Escalation;
use triarch_auth::impersonate::Impersonating;
use triarch_auth::issuer::TokenIssuer;
use triarch_auth::node::NodeAuthorizer;
use triarch_auth::rbac::Rbac;
use triarch_auth::reviews::Reviews;
use triarch_env::{Env, Scope};
use triarch_gateway::session::{Settings, Shared};
use triarch_gateway::{Board, Gateway, Liveness, TunnelHub};
use triarch_mvcc::Db;
use triarch_pki::ca::CertAndKey;
use triarch_raft::RaftDb;
use triarch_registry::{KindTable, Registry};

use crate::admin::{AdminService, Door};
use crate::birth::LocalPki;
use crate::cluster;
use crate::config::ServerConfiguration;
use crate::connector::Connectors;
use crate::keys::ClusterKeys;
use crate::leader::Leader;
use crate::listen::Port;
use crate::plugins::Plugins;
use crate::quorum::Quorum;

/// Agents say that they live this often.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What serves the API, agents and operators.
pub struct Api {
    db: Arc<RaftDb>,
    server: Arc<ApiServer>,
    gateway: Gateway,
    admin: AdminService,
    leader: Arc<Leader>,
    board: Arc<Board>,
    liveness: Arc<Liveness>,
    /// Connections of all listeners, counted.
    seen: Connections,
}

impl Api {
    pub fn new(
        env: &Env,
        background: &Env,
        pki: &LocalPki,
        db: &Arc<RaftDb>,
        keys: &Arc<ClusterKeys>,
        config: &Arc<ServerConfiguration>,
        own: Arc<CertAndKey>,
        scope: &Scope,
        prometheus: Arc<Mutex<Prometheus>>,
        audit: Audit,
        quorum: Quorum,
        seen: Connections,
    ) -> Api {
        let (env, store) = (env.clone(), db.mvcc().clone());
        let door: Arc<dyn Db> = db.clone();
        let rbac = Arc::new(Rbac::new(store.clone()));
        let authorizer = Arc::new(triarch_auth::Chain { node: NodeAuthorizer::new(store.clone()), rbac: rbac.clone() });
        let plugins = Plugins::new(vec![
            Arc::new(triarch_admission::Chain::new(authorizer.clone())),
            Arc::new(Escalation::new(rbac.clone())),
        ]);
        let table = KindTable::new(triarch_kinds::KINDS);
        let registry = Registry::new(door.clone(), env.clone(), table, Arc::new(plugins));
        let sa_key = Arc::new(
            triarch_pki::jwt::ServiceAccountKey::load(keys.service_account.key_pem())
                .expect("the key was loaded before"),
        );
        let issuer = format!("https://kubernetes.default.svc.{}", config.cluster_domain);
        let audiences = vec![issuer.clone()];
        let authn = Arc::new(Authn {
            db: door.clone(),
            env: env.clone(),
            service_accounts: sa_key.clone(),
            issuer: issuer.clone(),
            audiences: audiences.clone(),
            front_proxy_ca: Some(keys.front_proxy_ca.certificate_pem().to_owned()),
        });
        registry.set_issuer(Arc::new(TokenIssuer {
            db: door,
            env: env.clone(),
            key: sa_key.clone(),
            issuer: issuer.clone(),
            audiences,
        }));
        registry.set_virtuals(vec![Arc::new(Reviews {
            authn: authn.clone(),
            authorizer: authorizer.clone(),
            rbac: rbac.clone(),
        })]);
        let hub = TunnelHub::new(env.clone());
        let board = Board::of(&registry).expect("pods are selected by their node: see the list of kinds");
        let liveness = Arc::new(Liveness::new(env.clone()));
        let checks = {
            let (db, caught_up, reachable) = (db.clone(), db.clone(), quorum.clone());
            vec![
                Check::new(
                    "log",
                    true,
                    move || if db.is_stopped() { Err("the log has failed".into()) } else { Ok(()) },
                ),
                Check::new(
                    "caught-up",
                    false,
                    move || if caught_up.is_ready() { Ok(()) } else { Err("behind".into()) },
                ),
                Check::new("quorum", false, move || {
                    if reachable.reachable() { Ok(()) } else { Err("no quorum answers".into()) }
                }),
            ]
        };
        let server = ApiServer::new(Parts {
            registry: registry.clone(),
            authenticator: Arc::new(Impersonating { inner: authn, authorizer: authorizer.clone() }),
            authorizer,
            connector: Some(Arc::new(Connectors { registry: registry.clone(), hub: hub.clone() })),
            checks,
            pages: pages(&issuer, &sa_key, config),
            prometheus,
            audit,
            version: VersionInfo { git_commit: env!("TRIARCH_COMMIT").into(), ..VersionInfo::default() },
            limits: Limits::default(),
            address: config.advertised().to_owned(),
            scope: scope.clone(),
        });
        let cluster_id = db.config().cluster_id.clone();
        let watch = db.leader_watch().clone();
        let (db2, config2, id2) = (db.clone(), config.clone(), cluster_id.clone());
        let settings = move || Settings {
            heartbeat_interval: HEARTBEAT,
            servers: db2.voters().iter().map(|(_, r)| format!("https://{}", r.client_address)).collect(),
            api_endpoints: cluster::endpoints(&db2).iter().map(|(_, a)| format!("https://{a}")).collect(),
            cluster_domain: config2.cluster_domain.clone(),
            service_cidr: config2.service_cidr.clone(),
            cluster_id: id2.clone(),
        };
        let shared = Shared {
            env: background.clone(),
            registry: registry.clone(),
            board: board.clone(),
            liveness: liveness.clone(),
            settings: Arc::new(settings),
            term: Arc::new(move || watch.view().term),
        };
        let ca =
            triarch_pki::ca::Ca::load(keys.ca.certificate_pem(), keys.ca.key_pem()).expect("the CA was loaded before");
        let gateway = Gateway { shared, scope: scope.clone(), hub, ca: Arc::new(ca) };
        let admin = AdminService {
            door: Door::Port,
            db: db.clone(),
            env: env.clone(),
            keys: keys.clone(),
            pki: pki.clone(),
            config: config.clone(),
            cluster_id,
            own,
            liveness: liveness.clone(),
            quorum,
        };
        let leader = Arc::new(Leader {
            env: background.clone(),
            registry,
            db: db.clone(),
            keys: keys.clone(),
            liveness: liveness.clone(),
            config: config.clone(),
        });
        Api { db: db.clone(), server, gateway, admin, leader, board, liveness, seen }
    }

    /// The client port: API, gateway and admin.
    pub fn port(&self) -> Arc<Port> {
        let mut routes = Routes::builder();
        routes.add_service(self.gateway.clone().server());
        routes.add_service(self.admin.clone().server());
        let bounds = Bounds::counted(self.seen.of("client"));
        Arc::new(Port { grpc: routes.routes(), api: Some(self.server.clone()), bounds })
    }

    /// The admin socket.
    pub fn socket(&self) -> Arc<Port> {
        let admin = AdminService { door: Door::Socket, ..self.admin.clone() };
        let bounds = Bounds::counted(self.seen.of("admin"));
        Arc::new(Port { grpc: Routes::new(admin.server()), api: None, bounds })
    }

    /// Starts what runs beside requests: the gateway's board, the leader's
    /// work, and a follower's reports of nodes that it heard.
    pub fn background(&self, env: &Env, scope: &Scope) {
        self.board.start(env, scope);
        let (leader, watch, env2, scope2) =
            (self.leader.clone(), self.db.leader_watch().clone(), env.clone(), scope.clone());
        env.spawn_in(scope, "leadership", async move {
            let work = |epoch, scope: Scope| {
                let leader = leader.clone();
                async move { leader.start(epoch, &scope) }
            };
            watch.run_as_leader(&env2, &scope2, work).await;
        });
        let (admin, liveness, env3) = (self.admin.clone(), self.liveness.clone(), env.clone());
        env.spawn_in(scope, "liveness-report", async move { crate::report::run(&env3, &liveness, &admin).await });
    }
}

/// OIDC discovery and the key set.
fn pages(issuer: &str, key: &Arc<triarch_pki::jwt::ServiceAccountKey>, config: &ServerConfiguration) -> Vec<Page> {
    let discovery = serde_json::json!({
        "issuer": issuer,
        "jwks_uri": format!("https://{}/openid/v1/jwks", config.endpoint()),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    let (discovery, jwks) = (discovery.to_string(), key.jwks().to_string());
    vec![
        Page {
            path: "/.well-known/openid-configuration",
            content_type: "application/json",
            body: Arc::new(move || discovery.clone().into()),
        },
        Page {
            path: "/openid/v1/jwks",
            content_type: "application/jwk-set+json",
            body: Arc::new(move || jwks.clone().into()),
        },
    ]
}
