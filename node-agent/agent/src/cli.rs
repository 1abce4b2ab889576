//! The command line of `triarch-node`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use triarch_env::Secret;

use crate::address::Address;
use crate::thresholds::Thresholds;

const EXAMPLES: &str = "Examples:
  Join a cluster with containerd (the token is printed by `triarch token create --class node`):
    triarch-node --server https://10.0.0.1:6443 --server https://10.0.0.2:6443 \\
        --token triarch1.node.… --data-dir /var/lib/triarch-node --cri /run/containerd/containerd.sock
  Start again later (the certificate is in the data directory, no token is needed):
    triarch-node --server https://10.0.0.1:6443 --data-dir /var/lib/triarch-node --cri /run/containerd/containerd.sock
  A thousand simulated nodes, hollow-0000 to hollow-0999:
    triarch-node --server unix:///run/triarch/1.sock --token triarch1.node.… --data-dir /tmp/hollow --hollow 1000";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventsArg {
    All,
    Warnings,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints a completion script for a shell.
    Completion { shell: clap_complete::Shell },
}

/// Runs pods on this machine for a Triarch control plane.
#[derive(Debug, Parser)]
#[command(name = "triarch-node", version, after_help = EXAMPLES, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A control-plane replica, https://HOST:PORT or unix:///PATH; give all of them.
    #[arg(long = "server", value_name = "URL", env = "TRIARCH_SERVER", value_delimiter = ',', required = true, value_parser = Address::parse)]
    pub servers: Vec<Address>,
    /// A node-class join token; needed until the data directory holds a certificate.
    #[arg(long, value_name = "T", env = "TRIARCH_TOKEN", hide_env_values = true, value_parser = secret)]
    pub token: Option<Secret>,
    /// A file that holds the token.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Where the agent keeps its certificate, its ledger and the pods' volumes.
    #[arg(long, value_name = "D", env = "TRIARCH_DATA_DIR", required = true)]
    pub data_dir: Option<PathBuf>,
    /// The container runtime's socket.
    #[arg(long, value_name = "SOCKET", conflicts_with = "hollow", required_unless_present = "hollow")]
    pub cri: Option<PathBuf>,
    /// Run N simulated nodes instead of this machine's containers.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub hollow: Option<u32>,
    /// The node's name; the host name when absent.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The node's address as other nodes reach it; the one of the default route when absent.
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<std::net::Ipv4Addr>,
    /// Labels to register the node with.
    #[arg(long = "node-label", value_name = "KEY=VALUE", value_parser = label)]
    pub node_labels: Vec<(String, String)>,
    /// How many pods the node takes.
    #[arg(long, value_name = "N", default_value_t = 110)]
    pub max_pods: u32,
    /// How much memory and disk must be left, else the node is under pressure and takes no new pods.
    #[arg(long, value_name = "SIGNAL<AMOUNT,…", default_value = "memory.available<100Mi,nodefs.available<10%", value_parser = Thresholds::parse)]
    pub eviction_hard: Thresholds,
    /// Control group below which this node's pods live.
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub cgroup_root: String,
    /// Where containers' logs are written.
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub log_dir: PathBuf,
    /// Where the runtime reads its network configuration; written from the Node's podCIDR.
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// The cluster's name server for pods; the node's own when absent.
    #[arg(long, value_name = "IP")]
    pub cluster_dns: Vec<String>,
    /// Leave services to something else.
    #[arg(long)]
    pub no_proxy: bool,
    /// Leave routes to other nodes' pods to something else.
    #[arg(long)]
    pub no_routes: bool,
    /// Hold the replicas' advertised addresses inside this node and relay them (the lab).
    #[arg(long)]
    pub relay_api: bool,
    /// A unix socket on which `CONNECT host:port` is dialled from inside this node (the lab).
    #[arg(long, value_name = "unix:///PATH")]
    pub listen_relay: Option<String>,
    /// Where /healthz and /metrics are served: unix:///PATH or 127.0.0.1:PORT.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<String>,
    /// Which events pods report; simulated nodes report warnings only unless told otherwise.
    #[arg(long, value_enum)]
    pub events: Option<EventsArg>,
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged, as `info` or `warn,triarch_kubelet=debug`.
    #[arg(long, value_name = "FILTER", env = "TRIARCH_LOG", default_value = "info")]
    pub log: String,
}

fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (k, v) = text.split_once('=').ok_or_else(|| format!("{text:?} is no label: expected KEY=VALUE"))?;
    Ok((k.to_owned(), v.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("triarch-node").chain(line.split_whitespace()))
    }

    #[test]
    fn the_two_ways_of_running_are_understood() {
        let a = parse("--server https://a:1 --server unix:///b --token t --data-dir /d --cri /s").expect("valid");
        assert_eq!((a.servers.len(), a.max_pods, a.eviction_hard), (2, 110, Thresholds::default()));
        assert_eq!(parse("--server https://a:1 --data-dir /d --hollow 3").expect("valid").hollow, Some(3));
        assert!(matches!(parse("completion bash").expect("valid").command, Some(Command::Completion { .. })));
    }

    #[test]
    fn a_bad_line_names_what_is_wrong() {
        let text = |line: &str| parse(line).expect_err("invalid").to_string();
        assert!(
            text("--server http://a:1 --data-dir /d --hollow 1").contains("expected https://HOST:PORT or unix:///PATH")
        );
        assert!(text("--server https://a:1 --data-dir /d").contains("--cri"));
        assert!(text("--data-dir /d --hollow 1").contains("--server"));
        let bad = "--server https://a:1 --data-dir /d --cri /s --eviction-hard nodefs.available<much";
        assert!(text(bad).contains("--eviction-hard") && text(bad).contains("neither a quantity nor 0% to 100%"));
        assert!(text("--server https://a:1 --data-dir /d --hollow 1 --cri /s").contains("cannot be used with"));
    }
}
