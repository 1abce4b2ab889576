//! Who this agent is: joining by token, the certificate in the data directory,
//! its renewal at two thirds of its life.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ClientConfig;
use serde_json::{Value, json};
use triarch_env::{Env, Secret, Wall};
use triarch_pki::ca::CertAndKey;
use triarch_pki::identity::Identity as Subject;
use triarch_pki::tls::{EXPIRED, FOREIGN};
use triarch_pki::token::{JoinToken, TokenClass};
use triarch_rpc::node::node_gateway_client::NodeGatewayClient;
use triarch_rpc::node::{JoinRequest, RenewRequest};

use crate::address::Address;
use crate::uplink::channel;

/// What to do about a certificate that is of no use any more.
pub const EXPIRED_ADVICE: &str =
    "start the agent once with a new --token (from `triarch token create --class node`); its pods and ledger stay";

const JOIN_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{0}")]
    Usage(String),
    #[error("no replica answered: {0}")]
    Unreachable(String),
    #[error("the cluster refused this node: {0}")]
    Refused(String),
    #[error("{0}")]
    Safety(String),
    #[error("{path}: {source}")]
    Disk { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Pki(#[from] triarch_pki::PkiError),
}

/// What joining told about the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    pub node_name: String,
    pub cluster_id: String,
    pub cluster_domain: String,
    pub service_cidr: String,
    pub servers: Vec<String>,
    pub api_endpoints: Vec<String>,
}

/// The agent's certificate and what it may be used for. Shared; renewed in place.
#[derive(Debug)]
pub struct Identity {
    dir: PathBuf,
    pub cluster: Cluster,
    ca_pem: RwLock<String>,
    certificate_pem: RwLock<String>,
    tls: RwLock<Arc<ClientConfig>>,
}

fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> IdentityError + '_ {
    move |source| IdentityError::Disk { path: path.to_owned(), source }
}

fn private(path: &Path, text: &str) -> Result<(), IdentityError> {
    let fresh = path.with_extension("new");
    let write = || {
        let _ = fs::remove_file(&fresh);
        let mut f = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        f.write_all(text.as_bytes())?;
        f.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(disk(path))
}

impl Cluster {
    fn to_json(&self) -> Value {
        json!({"nodeName": self.node_name, "clusterID": self.cluster_id, "clusterDomain": self.cluster_domain,
            "serviceCIDR": self.service_cidr, "servers": self.servers, "apiEndpoints": self.api_endpoints})
    }

    fn from_json(v: &Value) -> Cluster {
        let text = |k: &str| v[k].as_str().unwrap_or_default().to_owned();
        let list =
            |k: &str| v[k].as_array().into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect();
        Cluster {
            node_name: text("nodeName"),
            cluster_id: text("clusterID"),
            cluster_domain: text("clusterDomain"),
            service_cidr: text("serviceCIDR"),
            servers: list("servers"),
            api_endpoints: list("apiEndpoints"),
        }
    }
}

impl Identity {
    /// The identity that the data directory holds, if any.
    pub fn load(dir: &Path, node_name: &str) -> Result<Option<Identity>, IdentityError> {
        let at = |name: &str| dir.join(name);
        if !at("cluster.json").exists() {
            return Ok(None);
        }
        let read = |name: &str| fs::read_to_string(at(name)).map_err(disk(&at(name)));
        let value: Value = serde_json::from_str(&read("cluster.json")?).map_err(|e| {
            IdentityError::Safety(format!(
                "{}: {e}; remove the data directory to join anew",
                at("cluster.json").display()
            ))
        })?;
        let cluster = Cluster::from_json(&value);
        if cluster.node_name != node_name {
            return Err(IdentityError::Safety(format!(
                "the data directory {} belongs to node {:?}, not {node_name:?}: give each node its own --data-dir",
                dir.display(),
                cluster.node_name
            )));
        }
        let pair = CertAndKey { certificate_pem: read("node.crt")?, key_pem: Secret::new(read("node.key")?) };
        let ca_pem = read("ca.crt")?;
        let tls = triarch_pki::tls::client(&ca_pem, Some(&pair), &["h2"])?;
        Ok(Some(Identity {
            dir: dir.to_owned(),
            cluster,
            ca_pem: RwLock::new(ca_pem),
            certificate_pem: RwLock::new(pair.certificate_pem),
            tls: RwLock::new(Arc::new(tls)),
        }))
    }

    /// Trades the token for a certificate at the first replica that answers.
    pub async fn join(
        env: &Env,
        dir: &Path,
        node_name: &str,
        token: &Secret,
        servers: &[Address],
    ) -> Result<Identity, IdentityError> {
        let parsed = JoinToken::parse(token.expose()).map_err(|e| IdentityError::Usage(e.to_string()))?;
        if parsed.class != TokenClass::Node {
            let text = "a token of class server cannot join a node; make one with `triarch token create --class node`";
            return Err(IdentityError::Usage(text.into()));
        }
        let (key_pem, csr_der) = triarch_pki::ca::request(&subject(node_name))?;
        let tls = Arc::new(triarch_pki::tls::pinned_client(parsed.ca_sha256, &["h2"])?);
        let mut last = String::new();
        for server in servers {
            let request = JoinRequest {
                token: token.expose().to_owned(),
                node_name: node_name.to_owned(),
                csr_der: csr_der.clone().into(),
            };
            let mut client = NodeGatewayClient::new(channel(server, tls.clone()));
            let answer = match env.timeout(JOIN_LIMIT, client.join(request)).await {
                Ok(Ok(answer)) => answer.into_inner(),
                Ok(Err(status)) if refused(&status) => return Err(IdentityError::Refused(status.message().to_owned())),
                Ok(Err(status)) => {
                    last = format!("{server}: {}", explain(&status));
                    continue;
                }
                Err(_) => {
                    last = format!("{server}: no answer within {} s", JOIN_LIMIT.as_secs());
                    continue;
                }
            };
            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            let (certificate, ca) = (text(&answer.certificate_pem), text(&answer.ca_pem));
            if triarch_pki::token::fingerprint_pem(&ca)? != parsed.ca_sha256 {
                return Err(IdentityError::Safety("the CA in the answer is not the one that the token names".into()));
            }
            let cluster = Cluster {
                node_name: node_name.to_owned(),
                cluster_id: answer.cluster_id,
                cluster_domain: answer.cluster_domain,
                service_cidr: answer.service_cidr,
                servers: answer.servers,
                api_endpoints: answer.api_endpoints,
            };
            private(&dir.join("node.key"), key_pem.expose())?;
            private(&dir.join("node.crt"), &certificate)?;
            private(&dir.join("ca.crt"), &ca)?;
            // Last: its presence says that the others are complete.
            private(&dir.join("cluster.json"), &cluster.to_json().to_string())?;
            return Identity::load(dir, node_name)?
                .ok_or_else(|| IdentityError::Safety("the identity vanished".into()));
        }
        Err(IdentityError::Unreachable(last))
    }

    /// The client side of TLS with the certificate in force.
    pub fn tls(&self) -> Arc<ClientConfig> {
        self.tls.read().clone()
    }

    /// When the certificate should be replaced, and when it ends.
    pub fn renewal(&self) -> Result<(Wall, Wall), IdentityError> {
        let info = triarch_pki::identity::from_pem(&self.certificate_pem.read())?;
        Ok((info.renew_at(), info.not_after))
    }

    /// Why the certificate is of no use at `now`; `None` while it is.
    pub fn unusable(&self, now: Wall) -> Result<Option<String>, IdentityError> {
        let info = triarch_pki::identity::from_pem(&self.certificate_pem.read())?;
        let said = |what: &str, at: Wall| {
            let path = self.dir.join("node.crt");
            let node = &self.cluster.node_name;
            format!(
                "the certificate of node {node:?} in {} {what} {} (it is {} now)",
                path.display(),
                at.rfc3339(),
                now.rfc3339()
            )
        };
        Ok(if now >= info.not_after {
            Some(said("expired at", info.not_after))
        } else if now < info.not_before {
            Some(said("is valid only from", info.not_before))
        } else {
            None
        })
    }

    /// Asks `server` for the next certificate and uses it from now on.
    pub async fn renew(&self, env: &Env, server: &Address) -> Result<(), IdentityError> {
        let (key_pem, csr_der) = triarch_pki::ca::request(&subject(&self.cluster.node_name))?;
        let mut client = NodeGatewayClient::new(channel(server, self.tls()));
        let asking = client.renew(RenewRequest { csr_der: csr_der.into() });
        let answer = match env.timeout(JOIN_LIMIT, asking).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(IdentityError::Unreachable(format!("{server}: {}", explain(&status)))),
            Err(_) => return Err(IdentityError::Unreachable(format!("{server}: no answer"))),
        };
        let certificate_pem = String::from_utf8_lossy(&answer.certificate_pem).into_owned();
        let sent = String::from_utf8_lossy(&answer.ca_pem).into_owned();
        let ca_pem = if sent.is_empty() { self.ca_pem.read().clone() } else { sent };
        let pair = CertAndKey { certificate_pem, key_pem };
        let tls = triarch_pki::tls::client(&ca_pem, Some(&pair), &["h2"])?;
        private(&self.dir.join("node.key"), pair.key_pem.expose())?;
        private(&self.dir.join("node.crt"), &pair.certificate_pem)?;
        private(&self.dir.join("ca.crt"), &ca_pem)?;
        *self.ca_pem.write() = ca_pem;
        *self.certificate_pem.write() = pair.certificate_pem;
        *self.tls.write() = Arc::new(tls);
        Ok(())
    }
}

fn subject(node_name: &str) -> Subject {
    Subject::new(&format!("system:node:{node_name}"), &["system:nodes"])
}

/// Keeps the certificate young until the process ends.
pub async fn keep_renewed(env: Env, identity: Arc<Identity>, servers: Vec<Address>) {
    let mut turn = 0;
    loop {
        let (renew_at, _) = match identity.renewal() {
            Ok(times) => times,
            Err(e) => {
                tracing::error!(error = %e, "the node's certificate cannot be read");
                return;
            }
        };
        let left = renew_at.micros.saturating_sub(env.wall().micros);
        if left > 0 {
            let wait = Duration::from_micros(left.unsigned_abs()).min(Duration::from_secs(3600));
            env.sleep(wait).await;
            continue;
        }
        let server = &servers[turn % servers.len()];
        turn += 1;
        match identity.renew(&env, server).await {
            Ok(()) => tracing::info!("the node's certificate was renewed"),
            Err(e) => {
                match identity.unusable(env.wall()) {
                    Ok(Some(why)) => tracing::error!(%why, error = %e, "{EXPIRED_ADVICE}"),
                    _ => tracing::warn!(error = %e, "the node's certificate could not be renewed yet"),
                }
                env.sleep(env.jitter(Duration::from_secs(30), 50)).await;
            }
        }
    }
}

fn refused(status: &tonic::Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::FailedPrecondition
    )
}

/// The innermost reason of a transport error, which is the one that helps,
/// with what it means where that is known.
pub fn explain(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(e) = source {
        text = e.to_string();
        source = e.source();
    }
    match meaning(&text) {
        Some(meaning) => format!("{meaning} ({text})"),
        None => text,
    }
}

/// What a refused handshake is about, by its text or its TLS alert.
fn meaning(text: &str) -> Option<&'static str> {
    let of = |parts: &[&str]| parts.iter().any(|p| text.contains(p));
    if of(&["alert: CertificateExpired", EXPIRED]) {
        return Some(
            "the replica refused this node's certificate because it has expired: start the agent with a new --token",
        );
    }
    if of(&["alert: UnknownCA", "alert: DecryptError", "alert: BadCertificate", "alert: CertificateUnknown", FOREIGN]) {
        return Some(
            "the replica refused this node's certificate because it is of another cluster: use another --data-dir, and a --token of this cluster",
        );
    }
    if of(&["certificate: UnknownIssuer", "certificate: BadSignature"]) {
        return Some(
            "the replica is of another cluster than this node's certificate: check --server, or join anew with another --data-dir",
        );
    }
    if of(&["certificate: Expired", "certificate: NotValidYet"]) {
        return Some("the replica's certificate is not valid at this machine's time: check both clocks");
    }
    None
}
