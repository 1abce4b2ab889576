//! Where this replica listens.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use triarch_apiserver::listen::{self, Tls};
use triarch_env::{Env, ExitCode, Scope};

use super::Running;
use crate::commands::Failure;
use crate::listen::Port;
use crate::quorum::Quorum;

pub(super) fn bind(address: &str, key: &str, shared: bool) -> Result<tokio::net::TcpListener, Failure> {
    let resolved = address.to_socket_addrs().ok().and_then(|mut a| a.next());
    let at: SocketAddr = resolved.ok_or_else(|| {
        Failure::new(ExitCode::Usage, format!("{key}: got {address:?}, takes an address of this machine"))
    })?;
    listen::bind(at, shared).map_err(|e| {
        let hint =
            if e.kind() == std::io::ErrorKind::AddrInUse { "; stop what listens there, or choose another" } else { "" };
        Failure::new(ExitCode::Failed, format!("{key}: cannot listen on {address}: {e}{hint}"))
    })
}

pub(super) fn unix(path: &Path) -> Result<UnixListener, Failure> {
    let fail = |e: std::io::Error| Failure::new(ExitCode::Failed, format!("cannot listen on {}: {e}", path.display()));
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}

impl Running {
    /// Listens on the shared port while this replica is ready, and leaves it
    /// while it is not, so that the kernel sends clients elsewhere.
    pub(super) fn share(
        &self,
        quorum: Quorum,
        first: tokio::net::TcpListener,
        port: Arc<Port>,
        tls: Tls,
        scope: &Scope,
    ) {
        let (env, scope2, address) = (self.env.clone(), scope.clone(), self.config.shared_listen.clone());
        self.env.spawn_in(scope, "shared-port", async move {
            let mut listener = Some(first);
            loop {
                let Some(socket) = listener.take().or_else(|| bind(&address, "sharedListen", true).ok()) else {
                    env.sleep(Duration::from_millis(200)).await;
                    continue;
                };
                let here = scope2.child();
                env.spawn("shared-listener", listen::serve(port.clone(), socket, Some(tls.clone()), here.clone()));
                lagging(&quorum, &env).await;
                tracing::warn!("this replica lags and leaves the shared port");
                here.cancel();
                while !quorum.ready() {
                    env.sleep(Duration::from_millis(100)).await;
                }
            }
        });
    }
}

/// Resolves when the replica has been without a leader, or behind, for a while.
async fn lagging(quorum: &Quorum, env: &Env) {
    let mut since = None;
    loop {
        env.sleep(Duration::from_millis(250)).await;
        since = match (quorum.ready(), since) {
            (true, _) => None,
            (false, None) => Some(env.mono()),
            (false, Some(at)) if env.mono() - at > Duration::from_secs(2) => return,
            (false, at) => at,
        };
    }
}
