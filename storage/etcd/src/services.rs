//! The facade's services, told apart by path.

use std::convert::Infallible;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use crate::etcdserverpb::auth_server::AuthServer;
use crate::etcdserverpb::cluster_server::ClusterServer;
use crate::etcdserverpb::kv_server::KvServer;
use crate::etcdserverpb::lease_server::LeaseServer;
use crate::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::etcdserverpb::watch_server::WatchServer;
use crate::refuse::Refusing;
use crate::{Facade, MAX_REQUEST_BYTES};

/// All of them, ready to be called. Keys and watches, which are most of the
/// traffic, are found without a router.
#[derive(Clone)]
pub struct Services {
    kv: KvServer<Facade>,
    watch: WatchServer<Facade>,
    others: Routes,
}

impl Services {
    pub fn new(facade: Facade) -> Services {
        // Room beyond the largest request, so that a slightly larger one is
        // refused in etcd's words.
        let decode = MAX_REQUEST_BYTES + (512 << 10);
        let others = Routes::new(LeaseServer::new(facade.clone()))
            .add_service(Refusing(ClusterServer::new(facade.clone())))
            .add_service(Refusing(MaintenanceServer::new(facade.clone())))
            .add_service(Refusing(AuthServer::new(facade.clone())));
        Services {
            kv: KvServer::new(facade.clone()).max_decoding_message_size(decode),
            watch: WatchServer::new(facade).max_decoding_message_size(decode),
            others: others.prepare(),
        }
    }

    /// All services, for a server that mounts routes.
    pub fn routes(self) -> Routes {
        self.others.add_service(self.kv).add_service(self.watch)
    }

    /// Answers one request. An unknown method is answered as gRPC has it.
    pub fn call<B>(&self, request: Request<B>) -> BoxFuture<'static, Result<Response<Body>, Infallible>>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let path = request.uri().path();
        if path.starts_with("/etcdserverpb.KV/") {
            self.kv.clone().call(request).boxed()
        } else if path.starts_with("/etcdserverpb.Watch/") {
            self.watch.clone().call(request).boxed()
        } else {
            self.others.clone().call(request.map(Body::new)).boxed()
        }
    }
}
