//! The way of a request: id, limits, who, may they, what, and the record of it.
//!
//! ```text
//!   parse ─► authenticate ─► authorize ─► body ─► in-flight limit ─► dispatch ─► headers, metrics, audit
//! ```
//! It holds no state of the API: every replica's server answers every request.
//! A body that comes slowly holds no place among the requests that are served.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use prometheus_client::registry::Registry as Prometheus;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;
use triarch_api::status::Status;
use triarch_env::{Env, Scope};
use triarch_registry::{
    Authenticator, AuthnError, Authorizer, AuthzAttributes, Credentials, Registry, RequestContext, UserInfo,
};

use crate::audit::{self, Audit, Exchange};
use crate::body;
use crate::connect::{BoxError, Connector, RequestBody};
use crate::health::Check;
use crate::info::{MAX_PATH, RequestInfo};
use crate::metrics::{KindLabels, Metrics, RequestLabels, VerbLabels};
use crate::openapi::OpenApi;
use crate::query::Query;
use crate::respond::{self, Body};
use crate::version::VersionInfo;
use crate::watch::EventCache;
use crate::{negotiate, paths, resource};

/// Bounds, with upstream's defaults.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
    /// Bytes of all bodies together, of requests that are read or served now.
    pub bodies: usize,
    pub inflight_readonly: usize,
    pub inflight_mutating: usize,
    pub request_timeout: Duration,
    /// Watches without `timeoutSeconds` end after one to two times this.
    pub min_watch: Duration,
    /// Watches, logs and streams open at a time.
    pub long_running: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body: 3 * 1024 * 1024,
            bodies: 256 * 1024 * 1024,
            inflight_readonly: 400,
            inflight_mutating: 200,
            request_timeout: Duration::from_secs(60),
            min_watch: Duration::from_secs(1800),
            long_running: 100_000,
        }
    }
}

/// What upstream says with a 429.
const TOO_MANY: &str = "Too many requests, please try again later.";

/// A static document at a path of its own (OIDC discovery, JWKS).
#[derive(Clone)]
pub struct Page {
    pub path: &'static str,
    pub content_type: &'static str,
    pub body: Arc<dyn Fn() -> bytes::Bytes + Send + Sync>,
}

/// What a server is made of.
pub struct Parts {
    pub registry: Arc<Registry>,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub connector: Option<Arc<dyn Connector>>,
    pub checks: Vec<Check>,
    pub pages: Vec<Page>,
    /// Shared with the rest of the process: /metrics shows all of it.
    pub prometheus: Arc<Mutex<Prometheus>>,
    pub audit: Audit,
    pub version: VersionInfo,
    pub limits: Limits,
    /// `host:port` that /api shows.
    pub address: String,
    /// Watches end with it.
    pub scope: Scope,
}

/// The HTTP API.
pub struct ApiServer {
    pub(crate) parts: Parts,
    pub(crate) env: Env,
    pub(crate) metrics: Metrics,
    pub(crate) cache: Arc<EventCache>,
    pub(crate) openapi: OpenApi,
    readonly: Semaphore,
    mutating: Semaphore,
    long: Arc<Semaphore>,
    /// [`body::UNIT`]s.
    pub(crate) bodies: Semaphore,
}

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// IP address, for audit.
    pub address: String,
    /// Verified client certificates (DER), leaf first.
    pub certificates: Arc<Vec<Vec<u8>>>,
    /// What is wrong with the client certificate that it showed instead.
    pub refused: Option<Arc<str>>,
}

/// One request on its way.
pub(crate) struct Incoming {
    pub ctx: RequestContext,
    pub info: RequestInfo,
    pub query: Query,
    pub indent: bool,
    pub head: http::request::Parts,
}

impl ApiServer {
    pub fn new(parts: Parts) -> Arc<ApiServer> {
        let metrics = Metrics::register(&mut parts.prometheus.lock());
        Arc::new(ApiServer {
            env: parts.registry.env().clone(),
            metrics,
            cache: Arc::default(),
            openapi: OpenApi::new(parts.registry.kinds()),
            readonly: Semaphore::new(parts.limits.inflight_readonly),
            mutating: Semaphore::new(parts.limits.inflight_mutating),
            long: Arc::new(Semaphore::new(parts.limits.long_running)),
            bodies: Semaphore::new(parts.limits.bodies / body::UNIT),
            parts,
        })
    }

    pub fn registry(&self) -> &Arc<Registry> {
        &self.parts.registry
    }

    /// Answers one request; never fails.
    pub fn handle<B>(self: &Arc<Self>, request: Request<B>, peer: &Peer) -> BoxFuture<'static, Response<Body>>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        self.clone().respond(head, body.map_err(Into::into).boxed_unsync(), peer.clone()).boxed()
    }

    async fn respond(self: Arc<Self>, head: http::request::Parts, body: RequestBody, peer: Peer) -> Response<Body> {
        let (started, received) = (self.env.mono(), self.env.wall());
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let indent = negotiate::pretty(&head.headers, &query.0);
        let info = RequestInfo::parse(&head.method, head.uri.path(), &query.0);
        let id = audit_id(&head.headers).unwrap_or_else(|| self.env.uuid());
        let uri = head.uri.path_and_query().map_or_else(String::new, |p| p.as_str().to_owned());
        let agent = header(&head.headers, "user-agent").to_owned();
        let mut ctx = RequestContext::new(UserInfo::default(), id.as_str());
        let (record, long) = (info.clone(), info.long_running());
        let span = tracing::debug_span!("request", id = %id, verb = %info.verb, path = %info.path);
        let answered = AssertUnwindSafe(self.answer(&mut ctx, info, query, indent, head, body, &peer))
            .catch_unwind()
            .instrument(span)
            .await;
        let mut response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => respond::status(&status, indent),
            Err(_) => {
                tracing::error!(id = %id, path = %record.path, "a request handler panicked");
                respond::status(&Status::internal("the handler of this request failed"), indent)
            }
        };
        let code = response.status().as_u16();
        finish(&mut response, &id, &ctx);
        self.count(&record, code, started);
        tracing::debug!(id = %id, user = %ctx.user.name, verb = %record.verb, uri = %uri, code, "answered");
        if self.parts.audit.enabled() {
            let x = Exchange {
                id: &id,
                stage: if long && code < 400 { "ResponseStarted" } else { "ResponseComplete" },
                uri: &uri,
                user: &ctx.user,
                source: &peer.address,
                user_agent: &agent,
                received,
                now: self.env.wall(),
                code,
            };
            self.parts.audit.record(&audit::event(&record, &ctx, &x));
        }
        response
    }

    async fn answer(
        self: &Arc<Self>,
        ctx: &mut RequestContext,
        info: RequestInfo,
        query: Query,
        indent: bool,
        head: http::request::Parts,
        body: RequestBody,
        peer: &Peer,
    ) -> Result<Response<Body>, Status> {
        if info.path.len() > MAX_PATH {
            return Ok(respond::text(414, "the path of the request is too long\n"));
        }
        let user = self.authenticate(&head.headers, peer).boxed().await?;
        ctx.user = Arc::new(user);
        self.authorize(ctx, &info, &query).boxed().await?;
        let mut held = None;
        let body = if info.mutating() && !info.long_running() {
            let read = self.read_whole(body, &head.headers, &mut held);
            let read = tokio::time::timeout(self.parts.limits.request_timeout, read).await;
            let whole = read.unwrap_or_else(|_| Err(self.too_late()))?;
            Full::new(whole).map_err(|never| match never {}).boxed_unsync()
        } else {
            body
        };
        let _permit = if info.long_running() {
            None
        } else {
            let (pool, request_kind) =
                if info.mutating() { (&self.mutating, "mutating") } else { (&self.readonly, "readOnly") };
            let labels = KindLabels { request_kind };
            match pool.try_acquire() {
                Ok(permit) => {
                    Some((permit, crate::watch::Open::new(self.metrics.inflight.get_or_create_owned(&labels))))
                }
                Err(_) => {
                    self.metrics.rejected.get_or_create(&labels).inc();
                    let mut r = respond::text(429, format!("{TOO_MANY}\n"));
                    r.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
                    return Ok(r);
                }
            }
        };
        let long = info.long_running() || info.verb == "deletecollection";
        let incoming = Incoming { ctx: ctx.clone(), info, query, indent, head };
        // Boxed: the futures of all verbs in one would be large.
        let serve: BoxFuture<'_, Result<Response<Body>, Status>> = if incoming.info.is_resource {
            resource::serve(self, incoming, body).boxed()
        } else {
            paths::serve(self, incoming).boxed()
        };
        if long {
            return serve.await;
        }
        match tokio::time::timeout(self.parts.limits.request_timeout, serve).await {
            Ok(answer) => answer,
            Err(_) => Err(self.too_late()),
        }
    }

    fn too_late(&self) -> Status {
        let seconds = self.parts.limits.request_timeout.as_secs();
        Status::timeout(format!("request did not complete within the allotted time ({seconds}s)"), 0)
    }

    /// A place for a request without an end of its own; 429 when there is none.
    pub(crate) fn long_running(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.long.clone().try_acquire_owned().map_err(|_| self.too_many("longRunning"))
    }

    pub(crate) fn too_many(&self, request_kind: &'static str) -> Status {
        self.metrics.rejected.get_or_create(&KindLabels { request_kind }).inc();
        Status::too_many_requests(TOO_MANY, 1)
    }

    async fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Result<UserInfo, Status> {
        let mut credentials = Credentials {
            peer_certificates: peer.certificates.to_vec(),
            refused_certificate: peer.refused.as_deref().map(str::to_owned),
            ..Credentials::default()
        };
        for (name, value) in headers {
            let Ok(text) = value.to_str() else { continue };
            match name.as_str() {
                "authorization" => credentials.authorization = Some(text.to_owned()),
                "sec-websocket-protocol" => {
                    const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
                    let token = text.split(',').map(str::trim).find_map(|p| p.strip_prefix(PREFIX));
                    credentials.websocket_token = token.and_then(decode_token).or(credentials.websocket_token);
                }
                _ => credentials.headers.push((name.as_str().to_owned(), text.to_owned())),
            }
        }
        match self.parts.authenticator.authenticate(&credentials).await {
            Ok(Some(user)) => Ok(user),
            Ok(None) => Ok(UserInfo::new("system:anonymous", &["system:unauthenticated"])),
            Err(AuthnError::Invalid(why)) => {
                tracing::info!(reason = %why, source = %peer.address, "authentication failed");
                Err(Status::unauthorized("Unauthorized"))
            }
            Err(AuthnError::Refused(status)) => Err(*status),
            Err(AuthnError::Unavailable(why)) => Err(Status::service_unavailable(why).retry_after(1)),
        }
    }

    async fn authorize(&self, ctx: &RequestContext, info: &RequestInfo, query: &Query) -> Result<(), Status> {
        let attributes = AuthzAttributes {
            verb: info.verb.clone(),
            resource_request: info.is_resource,
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            path: info.path.clone(),
            field_selector: query.get("fieldSelector").to_owned(),
            label_selector: query.get("labelSelector").to_owned(),
        };
        let decision = self.parts.authorizer.authorize(&ctx.user, &attributes).await;
        let allowed = decision.allowed();
        ctx.audit("authorization.k8s.io/decision", if allowed { "allow" } else { "forbid" });
        ctx.audit("authorization.k8s.io/reason", decision.reason());
        if allowed {
            return Ok(());
        }
        Err(forbidden(&ctx.user.name, info, decision.reason()))
    }

    fn count(&self, info: &RequestInfo, code: u16, started: triarch_env::Mono) {
        // Only what exists becomes a label.
        let known = self.parts.registry.kinds().get(&info.group, &info.version, &info.resource);
        let resource = known.map_or("", |k| k.plural).to_owned();
        let sub = known.and_then(|k| k.subresources.iter().find(|s| s.name == info.subresource)).map_or("", |s| s.name);
        let group = known.map_or("", |k| k.group).to_owned();
        let version = known.map_or("", |k| k.version).to_owned();
        const VERBS: &[&str] = &[
            "get",
            "list",
            "watch",
            "create",
            "update",
            "patch",
            "delete",
            "deletecollection",
            "post",
            "put",
            "head",
            "options",
        ];
        let verb = VERBS.iter().find(|v| **v == info.verb).copied().unwrap_or("other").to_owned();
        let labels = RequestLabels {
            verb: verb.clone(),
            group,
            version,
            resource: resource.clone(),
            subresource: sub.to_owned(),
            code,
        };
        self.metrics.requests.get_or_create(&labels).inc();
        if !info.long_running() {
            let took = self.env.mono().since(started).as_secs_f64();
            self.metrics.duration.get_or_create(&VerbLabels { verb, resource }).observe(took);
        }
    }
}

/// `pods "a" is forbidden: User "x" cannot get resource "pods" in API group "" in the namespace "default"`
pub fn forbidden(user: &str, info: &RequestInfo, reason: &str) -> Status {
    let mut why = if info.is_resource {
        let resource = if info.subresource.is_empty() {
            info.resource.clone()
        } else {
            format!("{}/{}", info.resource, info.subresource)
        };
        let place = match info.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            ns => format!("in the namespace {ns:?}"),
        };
        format!("User {user:?} cannot {} resource {resource:?} in API group {:?} {place}", info.verb, info.group)
    } else {
        format!("User {user:?} cannot {} path {:?}", info.verb, info.path)
    };
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    Status::forbidden((info.group.as_str(), info.resource.as_str()), &info.name, why)
}

/// Headers that every answer has.
fn finish(response: &mut Response<Body>, id: &str, ctx: &RequestContext) {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("audit-id", id);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    headers.insert("x-kubernetes-pf-flowschema-uid", HeaderValue::from_static("7a1f7b8e-5f36-4c1e-9f0e-0d3a4f8c2b11"));
    headers
        .insert("x-kubernetes-pf-prioritylevel-uid", HeaderValue::from_static("2c9d1a54-83b7-4e6a-b1c2-6f0e9d7a3c25"));
    for warning in ctx.warnings() {
        let text: String = warning.chars().filter(|c| !c.is_control()).take(1024).collect();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            headers.append(HeaderName::from_static("warning"), value);
        }
    }
}

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// The caller's own id, when it is one that may be logged.
fn audit_id(headers: &HeaderMap) -> Option<String> {
    let id = header(headers, "audit-id");
    let fits =
        !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    fits.then(|| id.to_owned())
}

fn decode_token(text: &str) -> Option<String> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    String::from_utf8(bytes).ok()
}

/// Whether the request is one that an upgrade may follow.
pub(crate) fn wants_upgrade(method: &Method, headers: &HeaderMap) -> bool {
    matches!(*method, Method::GET | Method::POST)
        && header(headers, "connection").to_lowercase().contains("upgrade")
        && headers.contains_key("upgrade")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_who_what_and_where() {
        let info = RequestInfo::parse(&Method::GET, "/apis/apps/v1/namespaces/a/deployments/d/scale", &[]);
        assert_eq!(
            forbidden("bob", &info, "").message,
            r#"deployments.apps "d" is forbidden: User "bob" cannot get resource "deployments/scale" in API group "apps" in the namespace "a""#
        );
        let info = RequestInfo::parse(&Method::GET, "/api/v1/nodes", &[]);
        assert_eq!(
            forbidden("bob", &info, "because").message,
            r#"nodes is forbidden: User "bob" cannot list resource "nodes" in API group "" at the cluster scope: because"#
        );
        let info = RequestInfo::parse(&Method::GET, "/metrics", &[]);
        assert_eq!(forbidden("bob", &info, "").message, r#"forbidden: User "bob" cannot get path "/metrics""#);
    }
}
