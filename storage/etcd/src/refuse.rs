//! Methods of etcd's that are refused, with what etcd itself says when it cannot
//! do them. Their messages are not even read, so they need no definitions.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::error;

/// Path and refusal. Members are replicas: `triarch server --join` and `triarch
/// replica remove` change them. Who may use the facade is decided by client
/// certificates, so there are no users and roles. A snapshot would have to be a
/// file of etcd's.
const REFUSED: &[(&str, fn() -> Status)] = &[
    ("/etcdserverpb.Cluster/MemberAdd", error::not_capable),
    ("/etcdserverpb.Cluster/MemberRemove", error::not_capable),
    ("/etcdserverpb.Cluster/MemberUpdate", error::not_capable),
    ("/etcdserverpb.Cluster/MemberPromote", error::not_capable),
    ("/etcdserverpb.Maintenance/Snapshot", error::not_capable),
    ("/etcdserverpb.Maintenance/Downgrade", error::not_capable),
    ("/etcdserverpb.Auth/AuthEnable", error::root_user_not_exist),
    ("/etcdserverpb.Auth/Authenticate", error::auth_not_enabled),
    ("/etcdserverpb.Auth/UserAdd", error::not_capable),
    ("/etcdserverpb.Auth/UserGet", error::user_not_found),
    ("/etcdserverpb.Auth/UserDelete", error::user_not_found),
    ("/etcdserverpb.Auth/UserChangePassword", error::user_not_found),
    ("/etcdserverpb.Auth/UserGrantRole", error::user_not_found),
    ("/etcdserverpb.Auth/UserRevokeRole", error::user_not_found),
    ("/etcdserverpb.Auth/RoleAdd", error::not_capable),
    ("/etcdserverpb.Auth/RoleGet", error::role_not_found),
    ("/etcdserverpb.Auth/RoleDelete", error::role_not_found),
    ("/etcdserverpb.Auth/RoleGrantPermission", error::role_not_found),
    ("/etcdserverpb.Auth/RoleRevokePermission", error::role_not_found),
];

/// A service with its refused methods.
#[derive(Clone)]
pub(crate) struct Refusing<S>(pub S);

impl<S: NamedService> NamedService for Refusing<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Refusing<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match REFUSED.iter().find(|(path, _)| *path == request.uri().path()) {
            Some((_, refusal)) => futures::future::ready(Ok(refusal().into_http())).boxed(),
            None => self.0.call(request).boxed(),
        }
    }
}
