//! One port for everything: the Kubernetes API, and our own gRPC services
//! beside it, told apart by content type.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tonic::service::Routes;
use tower::ServiceExt;
use triarch_apiserver::listen::Handler;
use triarch_apiserver::respond::{self, Body};
use triarch_apiserver::server::{ApiServer, Peer};
use triarch_gateway::service::PeerCertificates;

/// Requests of `application/grpc` go to `grpc`, all others to `api`.
pub struct Port {
    pub grpc: Routes,
    pub api: Option<Arc<ApiServer>>,
}

impl Handler for Port {
    fn handle(self: Arc<Self>, mut request: Request<Incoming>, peer: Peer) -> BoxFuture<'static, Response<Body>> {
        let kind = request.headers().get(http::header::CONTENT_TYPE).map(|v| v.as_bytes());
        if kind.is_some_and(|k| k.starts_with(b"application/grpc")) {
            request.extensions_mut().insert(PeerCertificates(peer.certificates.clone()));
            let routes = self.grpc.clone();
            return async move {
                match routes.oneshot(request.map(tonic::body::Body::new)).await {
                    Ok(response) => response.map(|b| b.map_err(std::io::Error::other).boxed_unsync()),
                    Err(never) => match never {},
                }
            }
            .boxed();
        }
        match &self.api {
            Some(api) => {
                let api = api.clone();
                async move { ApiServer::handle(&api, request, &peer).await }.boxed()
            }
            None => async { respond::page_not_found() }.boxed(),
        }
    }
}

/// The etcd facade's port. With TLS only cluster administrators are let in.
pub struct EtcdPort {
    pub routes: Routes,
    /// Plain text on loopback, by configuration.
    pub insecure: bool,
}

impl Handler for EtcdPort {
    fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> BoxFuture<'static, Response<Body>> {
        let admin = || {
            let info = triarch_pki::identity::from_der(peer.certificates.first()?).ok()?;
            info.identity.groups.iter().any(|g| g == triarch_auth::SYSTEM_MASTERS).then_some(())
        };
        if !self.insecure && admin().is_none() {
            let refused =
                tonic::Status::unauthenticated("etcdserver: a client certificate of system:masters is needed");
            return async move {
                refused.into_http::<tonic::body::Body>().map(|b| b.map_err(std::io::Error::other).boxed_unsync())
            }
            .boxed();
        }
        let routes = self.routes.clone();
        async move {
            match routes.oneshot(request.map(tonic::body::Body::new)).await {
                Ok(response) => response.map(|b| b.map_err(std::io::Error::other).boxed_unsync()),
                Err(never) => match never {},
            }
        }
        .boxed()
    }
}
