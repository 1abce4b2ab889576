//! The command line: one file per verb.

mod completion;
mod config;
mod connect;
mod etcd_certificate;
pub(crate) use connect::failure as rpc_failure;
mod kubeconfig;
mod leader;
mod replica;
mod server;
mod status;
mod token;
mod version;

use clap::{Parser, Subcommand};
use triarch_env::ExitCode;

/// Kubernetes in Rust, with no etcd.
#[derive(Debug, Parser)]
#[command(
    name = "triarch",
    version,
    about,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 ok, 1 failed, 2 usage, 3 not reachable, 4 refused for safety.

Examples:
  triarch server --data-dir /var/lib/triarch --name a --init
  triarch token create --class server --print-join
  triarch kubeconfig --user admin --group system:masters > ~/.kube/config
  triarch status -o json"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a control-plane replica
    Server(server::Args),
    /// Make join tokens
    Token(token::Args),
    /// Print a kubeconfig with a new client certificate
    Kubeconfig(kubeconfig::Args),
    /// Make a client certificate for the etcd facade
    EtcdCertificate(etcd_certificate::Args),
    /// Move leadership
    Leader(leader::Args),
    /// Remove replicas from the cluster
    Replica(replica::Args),
    /// Show replicas and nodes
    Status(status::Args),
    /// Check and print configurations
    Config(config::Args),
    /// Print the version, commit and feature level
    Version(version::Args),
    /// Print a shell's completion script
    Completion(completion::Args),
}

/// A command that did not succeed: what to print, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub code: ExitCode,
    pub message: String,
}

impl Failure {
    pub fn new(code: ExitCode, message: impl ToString) -> Failure {
        Failure { code, message: message.to_string() }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(e: E) -> Failure {
        Failure { code: ExitCode::Failed, message: format!("{:#}", e.into()) }
    }
}

/// What a verb returns: its exit code, or why it failed.
pub type Outcome = Result<ExitCode, Failure>;

/// Runs the verb, prints its failure to standard error and returns the exit code.
pub fn run(cli: Cli) -> ExitCode {
    let outcome = match cli.command {
        Command::Server(a) => server::run(a),
        Command::Token(a) => token::run(a),
        Command::Kubeconfig(a) => kubeconfig::run(a),
        Command::EtcdCertificate(a) => etcd_certificate::run(a),
        Command::Leader(a) => leader::run(a),
        Command::Replica(a) => replica::run(a),
        Command::Status(a) => status::run(a),
        Command::Config(a) => config::run(a),
        Command::Version(a) => version::run(a),
        Command::Completion(a) => completion::run(a),
    };
    outcome.unwrap_or_else(|f| {
        eprintln!("triarch: {}", f.message);
        f.code
    })
}

/// Runs an asynchronous verb on a small runtime.
fn block_on<T>(fut: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(fut))
}
