//! The verbs.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;

use super::config::Kubeconfig;
use super::transport::{self, Http};
use super::watch::Watch;
use crate::error::LabError;

/// A larger answer is refused, in bytes.
const MAX_ANSWER: usize = 512 << 20;
/// A request without an answer by then is given up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// No answer: whether it was carried out is unknown.
    #[error("{0}")]
    Transport(String),
    /// The API said no.
    #[error("{code} {reason}: {message}")]
    Status { code: u16, reason: String, message: String },
    #[error("the answer cannot be read: {0}")]
    Body(String),
}

impl KubeError {
    /// The `reason` of the Status, or empty.
    pub fn reason(&self) -> &str {
        match self {
            KubeError::Status { reason, .. } => reason,
            _ => "",
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, KubeError::Status { code: 404, .. })
    }
}

impl From<KubeError> for LabError {
    fn from(e: KubeError) -> LabError {
        LabError::new("api", e)
    }
}

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
}

impl PatchKind {
    fn media_type(self) -> &'static str {
        match self {
            PatchKind::Json => "application/json-patch+json",
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// A client of one address. Clones share connections.
#[derive(Clone)]
pub struct KubeClient {
    config: Kubeconfig,
    http: Http,
    h2: bool,
}

impl KubeClient {
    /// HTTP/1.1: connections spread over the replicas behind a shared port.
    pub fn new(config: Kubeconfig) -> Result<KubeClient, LabError> {
        KubeClient::build(config, false)
    }

    /// One HTTP/2 connection for everything.
    pub fn h2(config: Kubeconfig) -> Result<KubeClient, LabError> {
        KubeClient::build(config, true)
    }

    fn build(config: Kubeconfig, h2: bool) -> Result<KubeClient, LabError> {
        let alpn = if h2 { "h2" } else { "http/1.1" };
        let tls = triarch_pki::tls::client(&config.ca, Some(&config.identity), &[alpn]);
        let tls = tls.map_err(|e| LabError::new("kubeconfig", e))?;
        Ok(KubeClient { http: transport::client(tls, h2), config, h2 })
    }

    /// The same identity at another address (`https://host:port`), with
    /// connections of its own.
    pub fn at(&self, server: &str) -> Result<KubeClient, LabError> {
        KubeClient::build(Kubeconfig { server: server.to_owned(), ..self.config.clone() }, self.h2)
    }

    pub fn server(&self) -> &str {
        &self.config.server
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        media: Option<&str>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, KubeError> {
        let mut builder = Request::builder().method(method).uri(format!("{}{path}", self.config.server));
        builder = builder.header(header::ACCEPT, "application/json").header(header::USER_AGENT, "triarch-lab");
        if let Some(media) = media {
            builder = builder.header(header::CONTENT_TYPE, media);
        }
        builder.body(Full::new(body)).map_err(|e| KubeError::Transport(e.to_string()))
    }

    /// One request with its whole answer, whatever the code.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        media: Option<&str>,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), KubeError> {
        let answer = self.exchange(method, path, media, body).await?;
        Ok((answer.status(), answer.into_body()))
    }

    /// The same with the answer's headers.
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        media: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Bytes>, KubeError> {
        let request = self.request(&method, path, media, body)?;
        let exchange = async {
            let answer = self.http.request(request).await.map_err(|e| KubeError::Transport(chain(&e)))?;
            let (head, body) = answer.into_parts();
            let whole = Limited::new(body, MAX_ANSWER).collect().await;
            let whole = whole.map_err(|e| KubeError::Transport(format!("the answer broke off: {e}")))?;
            Ok(Response::from_parts(head, whole.to_bytes()))
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(done) => done,
            Err(_) => Err(KubeError::Transport(format!("{method} {path}: no answer within {TIMEOUT:?}"))),
        }
    }

    async fn object(&self, method: Method, path: &str, media: Option<&str>, body: Bytes) -> Result<Value, KubeError> {
        let (code, bytes) = self.raw(method, path, media, body).await?;
        if !code.is_success() {
            return Err(refusal(code, &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|e| KubeError::Body(e.to_string()))
    }

    pub async fn get(&self, path: &str) -> Result<Value, KubeError> {
        self.object(Method::GET, path, None, Bytes::new()).await
    }

    /// The body of a path that serves text (`/readyz`).
    pub async fn text(&self, path: &str) -> Result<String, KubeError> {
        let (code, bytes) = self.raw(Method::GET, path, None, Bytes::new()).await?;
        if code.is_success() { Ok(String::from_utf8_lossy(&bytes).into_owned()) } else { Err(refusal(code, &bytes)) }
    }

    /// The items of a list.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, KubeError> {
        match self.get(path).await?["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Err(KubeError::Body(format!("{path} is no list"))),
        }
    }

    /// POST to a collection.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, KubeError> {
        self.object(Method::POST, path, Some("application/json"), body(object)).await
    }

    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value, KubeError> {
        self.object(Method::PUT, path, Some("application/json"), body(object)).await
    }

    pub async fn patch(&self, path: &str, kind: PatchKind, patch: &Value) -> Result<Value, KubeError> {
        self.object(Method::PATCH, path, Some(kind.media_type()), body(patch)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, KubeError> {
        self.object(Method::DELETE, path, None, Bytes::new()).await
    }

    /// Creates the object, or merges it into the one that is there.
    pub async fn ensure(&self, object: &Value) -> Result<Value, KubeError> {
        let (collection, one) = path_for(object).ok_or_else(|| KubeError::Body("no kind that is known here".into()))?;
        match self.create(&collection, object).await {
            Err(e) if e.reason() == "AlreadyExists" => self.patch(&one, PatchKind::Merge, object).await,
            other => other,
        }
    }

    /// Watches a collection: `path` as for a list, with its query.
    pub async fn watch(&self, path: &str) -> Result<Watch, KubeError> {
        let sign = if path.contains('?') { '&' } else { '?' };
        let request = self.request(&Method::GET, &format!("{path}{sign}watch=true"), None, Bytes::new())?;
        let answer = tokio::time::timeout(TIMEOUT, self.http.request(request)).await;
        let answer = answer.map_err(|_| KubeError::Transport("no answer to the watch".into()))?;
        let answer = answer.map_err(|e| KubeError::Transport(chain(&e)))?;
        let (head, body) = answer.into_parts();
        if !head.status.is_success() {
            let bytes = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| KubeError::Body(e.to_string()))?;
            return Err(refusal(head.status, &bytes.to_bytes()));
        }
        Ok(Watch::new(body))
    }
}

fn body(object: &Value) -> Bytes {
    serde_json::to_vec(object).expect("a JSON value can always be written").into()
}

/// The innermost cause: hyper's own says only "client error".
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn refusal(code: StatusCode, bytes: &[u8]) -> KubeError {
    let status: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    let message = match text("message") {
        m if m.is_empty() => String::from_utf8_lossy(&bytes[..bytes.len().min(500)]).into_owned(),
        m => m,
    };
    KubeError::Status { code: code.as_u16(), reason: text("reason"), message }
}

/// Kinds that the lab itself writes, with their plurals; true: in a namespace.
const PLURALS: &[(&str, &str, bool)] = &[
    ("ConfigMap", "configmaps", true),
    ("Deployment", "deployments", true),
    ("Namespace", "namespaces", false),
    ("Node", "nodes", false),
    ("Pod", "pods", true),
    ("Secret", "secrets", true),
    ("Service", "services", true),
];

/// Paths of an object's collection and of itself.
pub fn path_for(object: &Value) -> Option<(String, String)> {
    let (_, plural, namespaced) = PLURALS.iter().find(|(kind, ..)| object["kind"] == *kind)?;
    let version = object["apiVersion"].as_str()?;
    let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let meta = &object["metadata"];
    let namespace = meta["namespace"].as_str().unwrap_or("default");
    let collection =
        if *namespaced { format!("{root}/namespaces/{namespace}/{plural}") } else { format!("{root}/{plural}") };
    let one = format!("{collection}/{}", meta["name"].as_str()?);
    Some((collection, one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_have_the_paths_of_their_kinds() {
        let deployment =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "x"}});
        let (collection, one) = path_for(&deployment).unwrap();
        assert_eq!(collection, "/apis/apps/v1/namespaces/x/deployments");
        assert_eq!(one, "/apis/apps/v1/namespaces/x/deployments/web");
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}});
        assert_eq!(path_for(&namespace).unwrap().1, "/api/v1/namespaces/x");
        assert_eq!(path_for(&json!({"apiVersion": "v1", "kind": "Unheard", "metadata": {"name": "x"}})), None);
    }

    #[test]
    fn a_refusal_says_what_the_status_says_or_else_the_text() {
        let e = refusal(StatusCode::CONFLICT, br#"{"reason":"AlreadyExists","message":"it is"}"#);
        assert_eq!((e.reason(), e.to_string().as_str()), ("AlreadyExists", "409 AlreadyExists: it is"));
        assert!(refusal(StatusCode::BAD_GATEWAY, b"plain").to_string().contains("plain"));
    }
}
