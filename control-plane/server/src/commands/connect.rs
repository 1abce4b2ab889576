//! How verbs reach a replica: by the socket in its data directory (whoever can
//! open it owns the directory), or by a kubeconfig of a cluster administrator.

use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::Channel;
use triarch_env::ExitCode;
use triarch_rpc::admin::admin_client::AdminClient;

use super::Failure;
use crate::dial;

/// A dial that takes longer than this is given up.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the replica is.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Data directory of a replica on this machine
    #[arg(long, env = "TRIARCH_DATA_DIR", default_value = "/var/lib/triarch")]
    pub data_dir: PathBuf,
    /// Reach the cluster through this kubeconfig instead
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
}

/// A client for the replica's admin service.
pub async fn admin(target: &Target) -> Result<AdminClient<Channel>, Failure> {
    let unreachable = |e: anyhow::Error| Failure::new(ExitCode::Unreachable, format!("{e:#}"));
    let channel = match &target.kubeconfig {
        Some(path) => {
            let config = crate::kubeconfig::read(path).map_err(|e| Failure::new(ExitCode::Usage, format!("{e:#}")))?;
            dial::with_timeout(DIAL_TIMEOUT, dial::https(&config.server, config.tls)).await.map_err(unreachable)?
        }
        None => {
            let socket = target.data_dir.join(crate::ADMIN_SOCKET);
            let channel = dial::with_timeout(DIAL_TIMEOUT, dial::unix(&socket)).await;
            channel.map_err(|e| {
                unreachable(e.context(format!(
                    "no replica answers at {}; name its directory with --data-dir, or use --kubeconfig",
                    socket.display()
                )))
            })?
        }
    };
    Ok(AdminClient::new(channel))
}

/// The exit code that an RPC's status stands for.
pub fn failure(status: tonic::Status) -> Failure {
    let code = match status.code() {
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded => ExitCode::Unreachable,
        tonic::Code::InvalidArgument => ExitCode::Usage,
        tonic::Code::FailedPrecondition | tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => {
            ExitCode::Refused
        }
        _ => ExitCode::Failed,
    };
    Failure::new(code, status.message())
}
