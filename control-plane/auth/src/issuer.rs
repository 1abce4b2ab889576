//! Issues service-account tokens (TokenRequest).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use triarch_api::status::Status;
use triarch_env::{Env, Secret, Wall};
use triarch_mvcc::Db;
use triarch_pki::jwt::{Claims, KubernetesClaims, Ref, ServiceAccountKey};
use triarch_registry::{Issuer, Kind, RequestContext};

use crate::stored::{get, strings, text};

/// Upstream's default lifetime of a requested token.
const DEFAULT_EXPIRATION_SECONDS: i64 = 3600;

/// See the module's text.
pub struct TokenIssuer {
    pub db: Arc<dyn Db>,
    pub env: Env,
    pub key: Arc<ServiceAccountKey>,
    pub issuer: String,
    /// What a token is for when the request does not say.
    pub audiences: Vec<String>,
}

#[async_trait]
impl Issuer for TokenIssuer {
    async fn issue(
        &self,
        _ctx: &RequestContext,
        _kind: &'static Kind,
        account: &Value,
        mut request: Value,
    ) -> Result<Value, Status> {
        let ns = text(account, "/metadata/namespace").to_owned();
        let mut kubernetes = KubernetesClaims {
            namespace: ns.clone(),
            serviceaccount: reference(account),
            ..KubernetesClaims::default()
        };
        let spec = request.get("spec").cloned().unwrap_or(Value::Null);
        if let Some(bound) = spec.get("boundObjectRef").filter(|b| b.is_object()) {
            self.bind(&ns, account, bound, &mut kubernetes).await?;
        }
        let mut audiences = strings(&spec, "audiences");
        if audiences.is_empty() {
            audiences = self.audiences.clone();
        }
        let seconds = spec.get("expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_EXPIRATION_SECONDS);
        let now = self.env.wall();
        let expires = now + Duration::from_secs(seconds.max(0) as u64);
        let token = self.sign(kubernetes, audiences.clone(), now, expires)?;
        request["spec"]["audiences"] = json!(audiences);
        request["spec"]["expirationSeconds"] = json!(seconds);
        request["status"] = json!({"token": token.expose(), "expirationTimestamp": expires.rfc3339()});
        Ok(request)
    }
}

fn reference(object: &Value) -> Ref {
    Ref { name: text(object, "/metadata/name").to_owned(), uid: text(object, "/metadata/uid").to_owned() }
}

impl TokenIssuer {
    async fn bind(
        &self,
        ns: &str,
        account: &Value,
        bound: &Value,
        claims: &mut KubernetesClaims,
    ) -> Result<(), Status> {
        let (kind, name, uid) = (text(bound, "/kind"), text(bound, "/name"), text(bound, "/uid"));
        let api = text(bound, "/apiVersion");
        let resource = match (api, kind) {
            ("v1", "Pod") => "pods",
            ("v1", "Secret") => "secrets",
            ("v1", "Node") => "nodes",
            _ => return Err(Status::bad_request(format!("cannot bind token to object of type {api}, Kind={kind}"))),
        };
        let namespace = if kind == "Node" { "" } else { ns };
        let mut found = get(self.db.mvcc(), resource, namespace, name);
        if found.is_none() {
            self.db.read_barrier().await.map_err(|e| Status::service_unavailable(e.to_string()))?;
            found = get(self.db.mvcc(), resource, namespace, name);
        }
        let object = found.ok_or_else(|| Status::not_found(("", resource), name))?;
        let target = reference(&object);
        if !uid.is_empty() && uid != target.uid {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(Status::conflict(("", resource), name, why));
        }
        match kind {
            "Pod" => {
                if text(&object, "/spec/serviceAccountName") != text(account, "/metadata/name") {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                        text(account, "/metadata/name")
                    )));
                }
                let node = text(&object, "/spec/nodeName");
                if !node.is_empty() {
                    let known = get(self.db.mvcc(), "nodes", "", node);
                    let uid = known.map(|n| text(&n, "/metadata/uid").to_owned()).unwrap_or_default();
                    claims.node = Some(Ref { name: node.to_owned(), uid });
                }
                claims.pod = Some(target);
            }
            "Secret" => claims.secret = Some(target),
            _ => claims.node = Some(target),
        }
        Ok(())
    }

    fn sign(&self, kubernetes: KubernetesClaims, aud: Vec<String>, now: Wall, exp: Wall) -> Result<Secret, Status> {
        let sub =
            format!("{}{}:{}", crate::SERVICE_ACCOUNT_PREFIX, kubernetes.namespace, kubernetes.serviceaccount.name);
        let claims = Claims {
            aud,
            exp: exp.secs(),
            iat: now.secs(),
            iss: self.issuer.clone(),
            jti: self.env.uuid(),
            kubernetes,
            nbf: now.secs(),
            sub,
        };
        self.key.sign(&claims).map_err(|e| Status::internal(e.to_string()))
    }
}
