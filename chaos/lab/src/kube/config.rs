//! A kubeconfig with embedded certificates, as `triarch kubeconfig` prints it.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use triarch_env::Secret;
use triarch_pki::ca::CertAndKey;

use crate::error::{Context, LabError, Result};

/// Larger files are no kubeconfig.
const MAX_BYTES: usize = 1 << 20;

/// Where a cluster is and who we are there.
#[derive(Clone)]
pub struct Kubeconfig {
    /// `https://host:port`.
    pub server: String,
    /// PEM.
    pub ca: String,
    pub identity: CertAndKey,
}

impl Kubeconfig {
    pub fn read(path: &Path) -> Result<Kubeconfig> {
        let text = std::fs::read_to_string(path).step("kubeconfig", path.display())?;
        Kubeconfig::parse(&text)
    }

    pub fn parse(text: &str) -> Result<Kubeconfig> {
        if text.len() > MAX_BYTES {
            return Err(LabError::new("kubeconfig", format!("{} bytes, takes at most {MAX_BYTES}", text.len())));
        }
        let doc: Value = serde_saphyr::from_str(text).step("kubeconfig", "not YAML")?;
        let context = named(&doc["contexts"], &doc["current-context"], "context")?;
        let cluster = named(&doc["clusters"], &context["cluster"], "cluster")?;
        let user = named(&doc["users"], &context["user"], "user")?;
        let server = cluster["server"].as_str().filter(|s| s.starts_with("https://"));
        let server = server.ok_or_else(|| LabError::new("kubeconfig", "the cluster has no https:// server"))?;
        Ok(Kubeconfig {
            server: server.trim_end_matches('/').to_owned(),
            ca: data(cluster, "certificate-authority-data")?,
            identity: CertAndKey {
                certificate_pem: data(user, "client-certificate-data")?,
                key_pem: Secret::new(data(user, "client-key-data")?),
            },
        })
    }
}

fn named<'a>(list: &'a Value, name: &Value, what: &str) -> Result<&'a Value> {
    let found = list.as_array().into_iter().flatten().find(|e| e["name"] == *name && !name.is_null());
    found.map(|e| &e[what]).ok_or_else(|| LabError::new("kubeconfig", format!("there is no {what} named {name}")))
}

fn data(from: &Value, key: &str) -> Result<String> {
    let text = from[key].as_str().ok_or_else(|| LabError::new("kubeconfig", format!("there is no {key}")))?;
    let bytes = BASE64_STANDARD.decode(text).step("kubeconfig", key)?;
    String::from_utf8(bytes).step("kubeconfig", key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(context: &str) -> String {
        let b64 = |s: &str| BASE64_STANDARD.encode(s);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {context}\nclusters:\n- name: c\n  cluster:\n    \
             server: https://127.0.0.1:6443/\n    certificate-authority-data: {}\ncontexts:\n- name: main\n  context:\n    \
             cluster: c\n    user: u\nusers:\n- name: u\n  user:\n    client-certificate-data: {}\n    \
             client-key-data: {}\n",
            b64("CA"),
            b64("CERT"),
            b64("KEY")
        )
    }

    #[test]
    fn the_current_context_names_cluster_and_user() {
        let config = Kubeconfig::parse(&text("main")).unwrap();
        assert_eq!(config.server, "https://127.0.0.1:6443");
        assert_eq!(config.ca, "CA");
        assert_eq!(config.identity.certificate_pem, "CERT");
        assert_eq!(config.identity.key_pem.expose(), "KEY");
    }

    #[test]
    fn a_kubeconfig_without_its_context_is_refused() {
        assert!(Kubeconfig::parse(&text("other")).err().unwrap().reason.contains("no context named \"other\""));
        assert!(Kubeconfig::parse("{}").is_err());
    }
}
