//! Kubeconfig files: written for users, read by our own commands.

use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::ClientConfig;
use serde_json::{Value, json};
use triarch_env::Secret;
use triarch_pki::ca::CertAndKey;
use triarch_pki::tls;

/// A kubeconfig with embedded credentials, as YAML.
pub fn render(cluster: &str, user: &str, server: &str, ca_pem: &str, cert: &CertAndKey) -> anyhow::Result<String> {
    let b64 = |s: &str| BASE64_STANDARD.encode(s);
    let context = format!("{user}@{cluster}");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"certificate-authority-data": b64(ca_pem), "server": server}}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
        "preferences": {},
        "users": [{"name": user, "user": {
            "client-certificate-data": b64(&cert.certificate_pem),
            "client-key-data": b64(cert.key_pem.expose()),
        }}],
    });
    Ok(serde_saphyr::to_string(&config)?)
}

/// What our commands take from a kubeconfig.
pub struct Kubeconfig {
    pub server: String,
    pub tls: ClientConfig,
}

/// Reads the current context of a kubeconfig with embedded data (as
/// [`render`] writes it).
pub fn read(path: &Path) -> anyhow::Result<Kubeconfig> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let config: Value = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
    let current = config["current-context"].as_str().unwrap_or_default();
    let context = named(&config["contexts"], current, "context").with_context(|| format!("no context {current:?}"))?;
    let cluster = named(&config["clusters"], text_of(context, "cluster"), "cluster").context("no such cluster")?;
    let user = named(&config["users"], text_of(context, "user"), "user").context("no such user")?;
    let data = |v: &Value, key: &str| -> anyhow::Result<String> {
        let encoded = v[key].as_str().with_context(|| format!("{}: {key} is missing", path.display()))?;
        Ok(String::from_utf8(BASE64_STANDARD.decode(encoded)?)?)
    };
    let cert = CertAndKey {
        certificate_pem: data(user, "client-certificate-data")?,
        key_pem: Secret::new(data(user, "client-key-data")?),
    };
    let server = text_of(cluster, "server");
    if !server.starts_with("https://") {
        bail!("{}: server {server:?} is not https://…", path.display());
    }
    let tls = tls::client(&data(cluster, "certificate-authority-data")?, Some(&cert), &["h2"])?;
    Ok(Kubeconfig { server: server.to_owned(), tls })
}

fn text_of<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

fn named<'a>(list: &'a Value, name: &str, inner: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|e| e["name"] == name).map(|e| &e[inner])
}
