//! `triarch server`.

use std::path::PathBuf;

use triarch_env::{ExitCode, priority};

use super::{Failure, Outcome};
use crate::config::ServerConfiguration;
use crate::run;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A new data directory needs --init (the first replica of a new cluster, once) or
--join with --token (every other). A directory with data needs neither.

Examples:
  triarch server --data-dir /var/lib/triarch --name a --init
  triarch server --data-dir /var/lib/triarch --name b --join https://10.0.0.1:6443 --token triarch1.server…")]
pub struct Args {
    /// Directory for everything this replica keeps (made with mode 0700)
    #[arg(long, env = "TRIARCH_DATA_DIR")]
    data_dir: PathBuf,
    /// This replica's name, unique in the cluster
    #[arg(long)]
    name: String,
    /// Configuration file; see `triarch config defaults`
    #[arg(long)]
    config: Option<PathBuf>,
    /// Found a new cluster
    #[arg(long, conflicts_with = "join")]
    init: bool,
    /// Join the cluster that this replica belongs to: https://host:port
    #[arg(long, requires = "token", value_name = "URL")]
    join: Option<String>,
    /// A token of class server
    #[arg(long, env = "TRIARCH_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Address for clients, host:port
    #[arg(long)]
    listen: Option<String>,
    /// Address for the other replicas, host:port
    #[arg(long)]
    peer_listen: Option<String>,
    /// Address that several replicas of one machine share, host:port
    #[arg(long)]
    shared_listen: Option<String>,
    /// Unix socket on which node agents may reach this replica
    #[arg(long = "node-socket", value_name = "PATH")]
    node_sockets: Vec<PathBuf>,
    /// One more name or address for the serving certificate
    #[arg(long)]
    tls_san: Vec<String>,
    /// Serve etcd's API on this address (off by default)
    #[arg(long)]
    etcd_listen: Option<String>,
    /// text or json
    #[arg(long)]
    log_format: Option<String>,
}

pub fn run(args: Args) -> Outcome {
    let usage = |e: &dyn std::fmt::Display| Failure::new(ExitCode::Usage, e);
    let mut config = match &args.config {
        Some(path) => ServerConfiguration::read(path).map_err(|e| usage(&e))?,
        None => ServerConfiguration::default(),
    };
    config.override_from_env(|k| std::env::var(k).ok()).map_err(|e| usage(&e))?;
    let flags = [
        (args.listen, &mut config.listen),
        (args.peer_listen, &mut config.peer_listen),
        (args.shared_listen, &mut config.shared_listen),
        (args.etcd_listen, &mut config.etcd_facade.listen),
        (args.log_format, &mut config.log.format),
    ];
    for (flag, key) in flags {
        if let Some(value) = flag {
            *key = value;
        }
    }
    config.node_sockets.extend(args.node_sockets);
    config.tls_san.extend(args.tls_san);
    config.check().map_err(|e| usage(&e))?;
    let errors = triarch_api::names::dns1123_label(&args.name);
    if !errors.is_empty() {
        return Err(usage(&format!("--name: got {:?}, takes {}", args.name, errors.join(", "))));
    }
    let start = match (args.init, args.join, args.token) {
        (true, _, _) => run::Start::Init,
        (false, Some(url), Some(token)) => run::Start::Join { url, token },
        _ => run::Start::Again,
    };
    crate::telemetry::init(&config.log).map_err(|e| usage(&e))?;
    raise_descriptors();
    let mut requests = match workers() {
        // Without a second thread there is nothing to share tasks out to.
        1 => tokio::runtime::Builder::new_current_thread(),
        several => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(several);
            builder
        }
    };
    let runtime = requests.max_blocking_threads(16).thread_name("triarch").enable_all().build()?;
    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .max_blocking_threads(4)
        .thread_name("background")
        .on_thread_start(|| priority::set(priority::BACKGROUND))
        .enable_all()
        .build()?;
    let handle = background.handle().clone();
    let options = run::Options { data_dir: args.data_dir, name: args.name, config, start, background: handle };
    let done = runtime.block_on(run::serve(options));
    background.shutdown_timeout(std::time::Duration::from_secs(1));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done.map(|()| ExitCode::Ok)
}

/// Each connection takes a descriptor, and what is given by default is for
/// interactive programs: asks for as many as may be had.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| match soft < hard {
        true => setrlimit(Resource::RLIMIT_NOFILE, hard, hard),
        false => Ok(()),
    });
    if let Err(e) = raised {
        tracing::warn!(error = %e, "the limit of open files stays as it is");
    }
}

/// Threads for requests, and as many again for what goes on beside them: half
/// of the cores each (the log has its own).
/// More of them than can run at once wake each other for nothing, and the
/// agent, the kernel's share of the network and, on one machine, other replicas
/// want cores too.
fn workers() -> usize {
    const MOST: usize = 8;
    std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).clamp(1, MOST))
}
