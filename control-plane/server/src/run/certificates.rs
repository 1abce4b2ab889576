//! What this replica shows to clients and peers, and whom it takes a peer for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use triarch_apiserver::listen::Tls;
use triarch_env::{Env, Scope};
use triarch_gateway::service::PeerCertificates;
use triarch_pki::ca::AltNames;
use triarch_pki::tls::{self, ClientAuth};
use triarch_raft::RaftDb;
use triarch_raft::grpc::VerifyPeer;

use super::Running;
use crate::birth;
use crate::config::ServerConfiguration;
use crate::keys::{CERT_LIFETIME, ClusterKeys};

/// How often certificates are looked at.
const RENEW_CHECK: Duration = Duration::from_secs(3600);

impl Running {
    /// Everything that clients may call this replica.
    pub(super) fn names(&self, config: &ServerConfiguration) -> AltNames {
        let mut all: Vec<String> = vec![
            "localhost".into(),
            "127.0.0.1".into(),
            "::1".into(),
            "kubernetes".into(),
            "kubernetes.default".into(),
            "kubernetes.default.svc".into(),
            format!("kubernetes.default.svc.{}", config.cluster_domain),
            config.kubernetes_service_ip().to_string(),
            host(config.advertised()),
            host(&config.listen),
        ];
        if !config.shared_listen.is_empty() {
            all.push(host(&config.shared_listen));
        }
        if !config.api_endpoint.is_empty() {
            all.push(host(&config.api_endpoint));
        }
        all.extend(config.tls_san.iter().cloned());
        AltNames::parse(all.iter().map(String::as_str).filter(|h| *h != "0.0.0.0" && *h != "::"))
    }

    pub(super) fn client_tls(&self, keys: &ClusterKeys, names: &AltNames) -> anyhow::Result<tls::ServerTls> {
        let cert = keys.serving(&self.name, names, self.env.wall())?;
        let cas = format!("{}{}", keys.ca.certificate_pem(), keys.front_proxy_ca.certificate_pem());
        Ok(tls::server(&cert, &cas, ClientAuth::Optional, &["h2", "http/1.1"])?)
    }

    /// Renews serving and peer certificates at two thirds of their life.
    pub(super) fn renewals(&self, keys: &Arc<ClusterKeys>, names: AltNames, client: Tls, peer: Tls, scope: &Scope) {
        let (env, keys, name) = (self.env.clone(), keys.clone(), self.name.clone());
        let (mut pki, dir, config) = (self.born.pki.clone(), self.born.dir.path().to_owned(), self.config.clone());
        self.env.spawn_in(scope, "renewals", async move {
            let mut serving_due = env.wall() + CERT_LIFETIME * 2 / 3;
            loop {
                env.sleep(RENEW_CHECK).await;
                if env.wall() >= serving_due {
                    let cas = format!("{}{}", keys.ca.certificate_pem(), keys.front_proxy_ca.certificate_pem());
                    let renewed = keys
                        .serving(&name, &names, env.wall())
                        .and_then(|cert| tls::server(&cert, &cas, ClientAuth::Optional, &["h2", "http/1.1"]));
                    match renewed {
                        Ok(tls) => {
                            client.replace(tls);
                            serving_due = env.wall() + CERT_LIFETIME * 2 / 3;
                        }
                        Err(e) => tracing::error!(error = %e, "the serving certificate cannot be renewed"),
                    }
                }
                if pki.due(&env)
                    && let Err(e) = renew_peer(&keys, &name, &config, &env, &mut pki, &dir, &peer)
                {
                    tracing::error!(error = %format!("{e:#}"), "the peer certificate cannot be renewed");
                }
            }
        });
    }
}

/// The host of `host:port`.
pub(super) fn host(address: &str) -> String {
    address.rsplit_once(':').map_or(address, |(h, _)| h).trim_matches(['[', ']']).to_owned()
}

fn renew_peer(
    keys: &ClusterKeys,
    name: &str,
    config: &ServerConfiguration,
    env: &Env,
    pki: &mut birth::LocalPki,
    dir: &Path,
    peer: &Tls,
) -> anyhow::Result<()> {
    pki.peer = keys.peer(name, &birth::peer_names(config), env.wall())?;
    pki.save(dir)?;
    peer.replace(tls::server(&pki.peer, &pki.peer_ca, ClientAuth::Required, &["h2"])?);
    Ok(())
}

/// A peer speaks for the replica that its certificate names. A replica that
/// knows no members yet takes anyone whom the peer CA has signed.
pub(super) fn verify_peer(db: &Arc<RaftDb>) -> VerifyPeer {
    let db = Arc::downgrade(db);
    Arc::new(move |extensions, sender| {
        let certs = extensions.get::<PeerCertificates>().cloned().unwrap_or_default();
        let leaf = certs.0.first().ok_or("a peer shows a certificate")?;
        let user = triarch_pki::identity::from_der(leaf).map_err(|e| e.to_string())?.identity.user;
        let known = db.upgrade().and_then(|db| db.replica(sender.id)).map(|r| r.name);
        speaks_for(&user, known.as_deref())
    })
}

/// Whether a certificate of this user may speak for the replica that is known
/// under this name, or for one that is not known yet.
fn speaks_for(user: &str, known: Option<&str>) -> Result<(), String> {
    let name = user.strip_prefix("system:triarch-replica:").ok_or("the certificate is not a replica's")?;
    match known {
        Some(known) if known != name => {
            Err(format!("the certificate of replica {name} does not speak for replica {known}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_speaks_for_its_own_replica_only() {
        let user = "system:triarch-replica:a";
        assert_eq!(speaks_for(user, Some("a")), Ok(()));
        assert_eq!(speaks_for(user, None), Ok(()), "this one may be the newcomer");
        let e = speaks_for(user, Some("b")).unwrap_err();
        assert_eq!(e, "the certificate of replica a does not speak for replica b");
        for other in ["system:admin", "a", "system:node:a", ""] {
            assert_eq!(speaks_for(other, None), Err("the certificate is not a replica's".into()));
        }
    }
}
