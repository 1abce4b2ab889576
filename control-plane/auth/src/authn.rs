//! Authentication: client certificates, the front proxy, service-account
//! tokens and bootstrap tokens, in upstream's order of trust.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use triarch_env::{Env, Wall};
use triarch_mvcc::{Db, Mvcc};
use triarch_pki::jwt::{Claims, MAX_TOKEN_LEN, ServiceAccountKey};
use triarch_pki::tls::EXPIRED;
use triarch_pki::{PkiError, identity};
use triarch_registry::{Authenticator, AuthnError, Credentials, UserInfo};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::stored::{get, text};
use crate::{AUTHENTICATED, SERVICE_ACCOUNT_PREFIX};

/// Everything authentication needs to know.
pub struct Authn {
    pub db: Arc<dyn Db>,
    pub env: Env,
    pub service_accounts: Arc<ServiceAccountKey>,
    /// `iss` of tokens that are ours.
    pub issuer: String,
    /// A token must be for one of these to be used against the API.
    pub audiences: Vec<String>,
    /// CA of the front proxy (PEM). A client certificate that it signed names
    /// no user: the `X-Remote-*` headers do.
    pub front_proxy_ca: Option<String>,
}

#[async_trait]
impl Authenticator for Authn {
    async fn authenticate(&self, c: &Credentials) -> Result<Option<UserInfo>, AuthnError> {
        let certificate = self.certificate(c);
        if let Ok(Some(user)) = certificate {
            return Ok(Some(user));
        }
        let bearer = c.authorization.as_deref().and_then(|a| {
            let (scheme, token) = a.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match bearer.or(c.websocket_token.as_deref()) {
            None | Some("") => certificate,
            Some(token) => self.token(token, &self.audiences).await.map(|(user, _)| Some(user)),
        }
    }
}

impl Authn {
    /// The user of a bearer token that is meant for one of `audiences`, and
    /// the audiences that matched.
    pub async fn token(&self, token: &str, audiences: &[String]) -> Result<(UserInfo, Vec<String>), AuthnError> {
        let invalid = |why: String| AuthnError::Invalid(why);
        if token.len() > MAX_TOKEN_LEN {
            return Err(invalid("token is longer than 16 KiB".into()));
        }
        if let Some((id, secret)) = bootstrap_token(token) {
            let user = self.fresh(|store| bootstrap_user(store, id, secret, self.env.wall())).await?;
            return Ok((user, self.audiences.clone()));
        }
        let wanted: Vec<&str> = audiences.iter().map(String::as_str).collect();
        let claims = self
            .service_accounts
            .verify(token, &self.issuer, &wanted, self.env.wall())
            .map_err(|e| invalid(e.to_string()))?;
        let user = self.fresh(|store| service_account_user(store, &claims)).await?;
        let matched = audiences.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        Ok((user, matched))
    }

    /// Asks this replica's memory; when that says no, once more after a
    /// linearizable read point, because a token may be newer than what this
    /// replica has applied.
    async fn fresh<T>(&self, ask: impl Fn(&Mvcc) -> Result<T, String>) -> Result<T, AuthnError> {
        if let Ok(found) = ask(self.db.mvcc()) {
            return Ok(found);
        }
        self.db.read_barrier().await.map_err(|e| AuthnError::Unavailable(e.to_string()))?;
        ask(self.db.mvcc()).map_err(AuthnError::Invalid)
    }

    /// The user of the client certificate. It may have expired since the
    /// connection was made.
    fn certificate(&self, c: &Credentials) -> Result<Option<UserInfo>, AuthnError> {
        if let Some(why) = &c.refused_certificate {
            return Err(AuthnError::Invalid(why.clone()));
        }
        let Some(leaf) = c.peer_certificates.first() else { return Ok(None) };
        let info = identity::from_der(leaf).map_err(|e| AuthnError::Invalid(e.to_string()))?;
        if info.not_after < self.env.wall() {
            return Err(AuthnError::Invalid(PkiError::Untrusted(EXPIRED.into()).to_string()));
        }
        if self.is_front_proxy(leaf) {
            return Ok(remote_user(&c.headers));
        }
        if info.identity.user.is_empty() {
            return Ok(None);
        }
        let mut user = UserInfo { name: info.identity.user, groups: info.identity.groups, ..UserInfo::default() };
        user.groups.push(AUTHENTICATED.into());
        credential_id(&mut user, format!("X509SHA256={}", info.fingerprint));
        Ok(Some(user))
    }

    fn is_front_proxy(&self, leaf: &[u8]) -> bool {
        let Some(ca) = self.front_proxy_ca.as_deref().and_then(|p| pem::parse(p).ok()) else { return false };
        let (Ok((_, ca)), Ok((_, leaf))) = (X509Certificate::from_der(ca.contents()), X509Certificate::from_der(leaf))
        else {
            return false;
        };
        leaf.verify_signature(Some(ca.public_key())).is_ok()
    }
}

fn credential_id(user: &mut UserInfo, id: String) {
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![id]);
}

/// The user that the front proxy vouches for.
fn remote_user(headers: &[(String, String)]) -> Option<UserInfo> {
    let all = |name: &'static str| headers.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.clone());
    let name = all("x-remote-user").next().filter(|n| !n.is_empty())?;
    let mut user = UserInfo {
        name,
        uid: all("x-remote-uid").next().unwrap_or_default(),
        groups: all("x-remote-group").collect(),
        ..UserInfo::default()
    };
    for (k, v) in headers {
        if let Some(key) = k.strip_prefix("x-remote-extra-") {
            user.extra.entry(key.to_owned()).or_default().push(v.clone());
        }
    }
    if !user.in_group(AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    Some(user)
}

/// A service account's user name and groups.
pub fn account_user(namespace: &str, name: &str, uid: &str) -> UserInfo {
    UserInfo {
        name: format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
            AUTHENTICATED.into(),
        ],
        ..UserInfo::default()
    }
}

fn service_account_user(store: &Mvcc, claims: &Claims) -> Result<UserInfo, String> {
    let k = &claims.kubernetes;
    let (ns, sa) = (k.namespace.as_str(), &k.serviceaccount);
    if claims.sub != format!("{SERVICE_ACCOUNT_PREFIX}{ns}:{}", sa.name) {
        return Err("the token's subject is not its service account".into());
    }
    let live = |resource: &str, name: &str, uid: &str, what: &str| -> Result<Value, String> {
        let v = get(store, resource, ns, name).ok_or_else(|| format!("{what} {ns}/{name} has been deleted"))?;
        if text(&v, "/metadata/uid") != uid {
            return Err(format!("{what} UID ({}) does not match claim ({uid})", text(&v, "/metadata/uid")));
        }
        Ok(v)
    };
    live("serviceaccounts", &sa.name, &sa.uid, "service account")?;
    let mut user = account_user(ns, &sa.name, &sa.uid);
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if let Some(pod) = &k.pod {
        live("pods", &pod.name, &pod.uid, "pod")?;
        extra("pod-name", &pod.name);
        extra("pod-uid", &pod.uid);
    }
    if let Some(secret) = &k.secret {
        live("secrets", &secret.name, &secret.uid, "secret")?;
    }
    if let Some(node) = &k.node {
        extra("node-name", &node.name);
        extra("node-uid", &node.uid);
    }
    if !claims.jti.is_empty() {
        extra("credential-id", &format!("JTI={}", claims.jti));
    }
    Ok(user)
}

/// `[a-z0-9]{6}.[a-z0-9]{16}`, split at the dot.
fn bootstrap_token(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (plain(id, 6) && plain(secret, 16)).then_some((id, secret))
}

fn bootstrap_user(store: &Mvcc, id: &str, secret: &str, now: Wall) -> Result<UserInfo, String> {
    let unknown = || "unknown bootstrap token".to_owned();
    let object = get(store, "secrets", "kube-system", &format!("bootstrap-token-{id}")).ok_or_else(unknown)?;
    let data = |key: &str| {
        let raw = object.get("data").and_then(|d| d.get(key)).and_then(Value::as_str).unwrap_or_default();
        String::from_utf8(BASE64_STANDARD.decode(raw).unwrap_or_default()).unwrap_or_default()
    };
    let good = text(&object, "/type") == "bootstrap.kubernetes.io/token"
        && data("token-id") == id
        && same(&data("token-secret"), secret)
        && data("usage-bootstrap-authentication") == "true"
        && object.pointer("/metadata/deletionTimestamp").is_none();
    if !good {
        return Err(unknown());
    }
    let expiration = data("expiration");
    // RFC 3339 in UTC compares as text.
    if !expiration.is_empty() && expiration.as_str() <= now.rfc3339().as_str() {
        return Err("the bootstrap token has expired".into());
    }
    let mut groups = vec!["system:bootstrappers".to_owned()];
    let extra = data("auth-extra-groups");
    groups
        .extend(extra.split(',').map(str::trim).filter(|g| g.starts_with("system:bootstrappers:")).map(str::to_owned));
    groups.push(AUTHENTICATED.into());
    Ok(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

/// Compares without telling by time where the two differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}
