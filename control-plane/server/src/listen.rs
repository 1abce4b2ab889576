//! One port for everything: the Kubernetes API, and our own gRPC services
//! beside it, told apart by content type.

use std::convert::Infallible;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tonic::service::Routes;
use tower::ServiceExt;
use triarch_apiserver::Bounds;
use triarch_apiserver::listen::Handler;
use triarch_apiserver::respond::{self, Body};
use triarch_apiserver::server::{ApiServer, Peer};
use triarch_gateway::service::PeerCertificates;

/// Requests of `application/grpc` go to `grpc`, all others to `api`.
pub struct Port {
    pub grpc: Routes,
    pub api: Option<Arc<ApiServer>>,
    pub bounds: Bounds,
}

impl Handler for Port {
    /// Peers alone: their streams carry what is ready, and their calls wait.
    fn together(&self) -> bool {
        self.api.is_none()
    }

    fn bounds(&self) -> Bounds {
        self.bounds.clone()
    }

    fn handle(self: Arc<Self>, mut request: Request<Incoming>, peer: Peer) -> BoxFuture<'static, Response<Body>> {
        let kind = request.headers().get(http::header::CONTENT_TYPE).map(|v| v.as_bytes());
        if kind.is_some_and(|k| k.starts_with(b"application/grpc")) {
            if let Some(why) = &peer.refused {
                let refused = tonic::Status::unauthenticated(&**why);
                return async move { answered(Ok(refused.into_http())) }.boxed();
            }
            request.extensions_mut().insert(PeerCertificates(peer.certificates.clone()));
            let routes = self.grpc.clone();
            return routes.oneshot(request.map(tonic::body::Body::new)).map(answered).boxed();
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

pub(crate) fn answered(response: Result<Response<tonic::body::Body>, Infallible>) -> Response<Body> {
    match response {
        Ok(response) => response.map(|b| b.map_err(std::io::Error::other).boxed_unsync()),
        Err(never) => match never {},
    }
}
