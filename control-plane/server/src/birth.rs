//! How a replica comes to be: founding a cluster, joining one, or being one
//! that was here before. Exactly one of the three fits a data directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use triarch_env::{Disk, Env, ExitCode, RealDisk, Secret};
use triarch_pki::ca::{AltNames, CertAndKey};
use triarch_pki::seal::SealKey;
use triarch_pki::token::{JoinToken, TokenClass};
use triarch_pki::{check, identity, tls};
use triarch_raft::{DataDir, DataDirError, FORMAT, Identity};
use triarch_rpc::admin::admin_client::AdminClient;
use triarch_rpc::admin::{AddReplicaRequest, JoinServerRequest};

use crate::commands::Failure;
use crate::config::ServerConfiguration;
use crate::dial;
use crate::keys::ClusterKeys;

/// The name that every replica's peer certificate carries.
pub const PEER_NAME: &str = "triarch-peer";
/// The peer certificate, and behind it its key.
const PEER: &str = "peer.pem";
const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY";
/// A joiner waits this long for one answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What a replica keeps beside its data so that it can start before it can
/// read the store.
#[derive(Clone)]
pub struct LocalPki {
    pub seal: SealKey,
    pub peer: CertAndKey,
    pub peer_ca: String,
    pub ca: String,
}

/// A replica that may start.
pub struct Born {
    pub dir: DataDir,
    pub pki: LocalPki,
    /// Its log is new: an empty one is no sign of a wiped disk.
    pub new: bool,
    /// It founded the cluster just now: these keys go into the store.
    pub founding: Option<ClusterKeys>,
    /// It joined just now: whom to tell when it listens.
    pub joined: Option<String>,
}

pub(crate) fn refuse(e: &DataDirError) -> Failure {
    let code = match e {
        DataDirError::Io { .. } => ExitCode::Failed,
        _ => ExitCode::Refused,
    };
    Failure::new(code, e)
}

fn pki_path(dir: &Path, name: &str) -> PathBuf {
    dir.join("pki").join(name)
}

impl LocalPki {
    /// Writes each file whole. Certificate and key of the peer are one file, so
    /// that a renewal which is interrupted leaves a pair.
    pub fn save(&self, dir: &Path) -> anyhow::Result<()> {
        RealDisk.create_dir_all(&dir.join("pki"))?;
        let peer = Secret::new(format!("{}{}", self.peer.certificate_pem, self.peer.key_pem.expose()));
        let files = [
            ("seal.key", self.seal.to_text().expose()),
            (PEER, peer.expose()),
            ("peer-ca.pem", &self.peer_ca),
            ("ca.pem", &self.ca),
        ];
        for (name, text) in files {
            RealDisk.write_atomic(&pki_path(dir, name), text.as_bytes()).with_context(|| format!("write {name}"))?;
        }
        Ok(())
    }

    /// Reads what [`LocalPki::save`] wrote, and checks that it is that still.
    pub fn load(dir: &Path) -> Result<LocalPki, Failure> {
        let bad = |name: &str, why: &dyn std::fmt::Display| {
            let path = pki_path(dir, name);
            let text = format!("{}: {why}; restore it, or remove this replica and join it again", path.display());
            Failure::new(ExitCode::Refused, text)
        };
        let read = |name: &str| {
            let bytes = RealDisk.read(&pki_path(dir, name)).map_err(|e| bad(name, &e))?;
            String::from_utf8(bytes).map_err(|_| bad(name, &"not a text"))
        };
        let seal = SealKey::parse(&read("seal.key")?).map_err(|_| bad("seal.key", &"not a key"))?;
        let both = Secret::new(read(PEER)?);
        let peer = match both.expose().find(KEY_BEGINS).map(|at| both.expose().split_at(at)) {
            Some((cert, key)) => CertAndKey { certificate_pem: cert.into(), key_pem: Secret::new(key) },
            // As it was written before the two were one file.
            None => {
                let key = RealDisk.read(&pki_path(dir, "peer-key.pem")).ok().and_then(|k| String::from_utf8(k).ok());
                let key_pem = Secret::new(key.ok_or_else(|| bad(PEER, &"it has no key"))?);
                CertAndKey { certificate_pem: both.expose().into(), key_pem }
            }
        };
        let (peer_ca, ca) = (read("peer-ca.pem")?, read("ca.pem")?);
        check::authority(&ca).map_err(|e| bad("ca.pem", &e))?;
        check::authority(&peer_ca).map_err(|e| bad("peer-ca.pem", &e))?;
        check::signed_by(&peer.certificate_pem, &peer_ca).map_err(|e| bad(PEER, &e))?;
        check::key_of(&peer).map_err(|e| bad(PEER, &e))?;
        Ok(LocalPki { seal, peer, peer_ca, ca })
    }

    /// Whether the peer certificate is past two thirds of its life.
    pub fn due(&self, env: &Env) -> bool {
        identity::from_pem(&self.peer.certificate_pem).map_or(true, |i| env.wall() >= i.renew_at())
    }
}

/// Names for a peer certificate.
pub fn peer_names(config: &ServerConfiguration) -> AltNames {
    let host = |a: &str| a.rsplit_once(':').map_or(a, |(h, _)| h).trim_matches(['[', ']']).to_owned();
    let hosts = [PEER_NAME.to_owned(), host(config.peer_advertised()), host(&config.peer_listen)];
    AltNames::parse(hosts.iter().map(String::as_str).filter(|h| *h != "0.0.0.0" && *h != "::"))
}

/// Founds a cluster in an empty directory.
pub fn init(mut dir: DataDir, name: &str, config: &ServerConfiguration, env: &Env) -> Result<Born, Failure> {
    if dir.identity().is_some() {
        return Err(refuse(&DataDirError::NotEmpty(dir.path().to_owned())));
    }
    let keys = ClusterKeys::generate(env.wall())?;
    let pki = LocalPki {
        seal: SealKey::generate(),
        peer: keys.peer(name, &peer_names(config), env.wall())?,
        peer_ca: keys.peer_ca.certificate_pem().to_owned(),
        ca: keys.ca.certificate_pem().to_owned(),
    };
    pki.save(dir.path())?;
    let identity = Identity {
        format: FORMAT,
        cluster_id: env.uuid(),
        node_id: 1,
        name: name.to_owned(),
        incarnation: env.random_u64(),
    };
    dir.create_identity(identity).map_err(|e| refuse(&e))?;
    Ok(Born { dir, pki, new: true, founding: Some(keys), joined: None })
}

/// Joins a cluster: pins its CA, shows the token, keeps what it is handed.
pub async fn join(
    mut dir: DataDir,
    name: &str,
    config: &mut ServerConfiguration,
    env: &Env,
    url: &str,
    token: &str,
) -> Result<Born, Failure> {
    let usage = |e: &dyn std::fmt::Display| Failure::new(ExitCode::Usage, e);
    let parsed = JoinToken::parse(token).map_err(|e| usage(&format!("--token: {e}")))?;
    if parsed.class != TokenClass::Server {
        return Err(usage(
            &"--token: got a token of class node, takes one of class server (`triarch token create --class server`)",
        ));
    }
    let incarnation = env.random_u64();
    let request = JoinServerRequest {
        token: token.to_owned(),
        name: name.to_owned(),
        peer_address: config.peer_advertised().to_owned(),
        advertise_address: config.advertised().to_owned(),
        san: config.tls_san.clone(),
        incarnation,
        feature_level: triarch_mvcc::levels::LATEST,
    };
    let tls = tls::pinned_client(parsed.ca_sha256, &["h2"])?;
    let channel = dial::with_timeout(JOIN_TIMEOUT, dial::https(url, tls)).await;
    let channel = channel.map_err(|e| Failure::new(ExitCode::Unreachable, format!("--join {url}: {e:#}")))?;
    let r = AdminClient::new(channel).join_server(request).await;
    let r = r.map_err(crate::commands::rpc_failure)?.into_inner();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let pki = LocalPki {
        seal: SealKey::parse(&text(&r.seal_key))?,
        peer: CertAndKey {
            certificate_pem: text(&r.peer_certificate_pem),
            key_pem: Secret::new(text(&r.peer_key_pem)),
        },
        peer_ca: text(&r.peer_ca_pem),
        ca: text(&r.ca_pem),
    };
    pki.save(dir.path())?;
    let peers = r.members.iter().map(|m| triarch_raft::Peer { id: m.id, address: m.peer_address.clone() });
    dir.save_peers(&peers.collect::<Vec<_>>()).map_err(|e| refuse(&e))?;
    let identity =
        Identity { format: FORMAT, cluster_id: r.cluster_id, node_id: r.node_id, name: name.to_owned(), incarnation };
    dir.create_identity(identity).map_err(|e| refuse(&e))?;
    crate::cluster::adopt(config, &r.shared_configuration)?;
    Ok(Born { dir, pki, new: true, founding: None, joined: Some(url.to_owned()) })
}

/// Starts again in a directory that has a replica.
pub fn again(dir: DataDir, name: &str) -> Result<Born, Failure> {
    if dir.identity().is_none() {
        let path = dir.path().display();
        return Err(Failure::new(
            ExitCode::Usage,
            format!(
                "data directory {path} is empty: found a new cluster with --init, or join one with --join URL --token T"
            ),
        ));
    }
    dir.expect(None, Some(name)).map_err(|e| refuse(&e))?;
    let pki = LocalPki::load(dir.path())?;
    Ok(Born { dir, pki, new: false, founding: None, joined: None })
}

/// Tells the cluster that this replica listens, and waits until it is a voter.
pub async fn announce(url: &str, pki: &LocalPki, node_id: u64, client: Arc<CertAndKey>) -> anyhow::Result<()> {
    let tls = tls::client(&pki.ca, Some(&client), &["h2"])?;
    let channel = dial::with_timeout(JOIN_TIMEOUT, dial::https(url, tls)).await?;
    let request = AddReplicaRequest { node_id, ..AddReplicaRequest::default() };
    AdminClient::new(channel).add_replica(request).await.map_err(|s| anyhow::anyhow!("{}", s.message()))?;
    Ok(())
}
