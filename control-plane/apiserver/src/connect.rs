//! The seam to byte streams: log, exec, attach, portforward, proxy.
//!
//! The HTTP layer authenticates, authorizes and takes the connection over; the
//! connector finds the node, talks to it and answers. SPDY and WebSocket pass
//! through untouched: they are between the client and the container runtime.

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::upgrade::OnUpgrade;
use triarch_api::status::Status;
use triarch_registry::{Kind, RequestContext};

use crate::query::Query;
use crate::respond::Body;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// One request for a stream, already authorized.
pub struct ConnectRequest {
    pub ctx: RequestContext,
    pub kind: &'static Kind,
    pub namespace: String,
    /// As in the path: for proxies it may be `scheme:name:port`.
    pub name: String,
    pub subresource: String,
    /// What follows `…/proxy/`, as sent.
    pub rest: String,
    pub query: Query,
    /// The original head.
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: RequestBody,
    /// Set when the client asks for an upgrade. It resolves to the raw stream
    /// after the connector's 101 has been sent, so await it in a task of its own.
    pub upgrade: Option<OnUpgrade>,
}

/// Serves streams. The answer is sent as it is: 101 with the runtime's own
/// headers, a streaming body (logs), or a refusal.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    async fn connect(&self, request: ConnectRequest) -> Result<Response<Body>, Status>;
}
