//! What to do, and how often.

use std::path::PathBuf;

/// How the leader is hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// SIGKILL, then started again
    Kill,
    /// SIGSTOP for a while: its connections stay and nothing answers
    Pause,
    /// SIGTERM, then started again
    Stop,
    /// `triarch leader transfer`
    Transfer,
    /// Cut off from the others and not from clients, for a while (needs root)
    Partition,
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Pause => "pause",
            Fault::Stop => "stop",
            Fault::Transfer => "transfer",
            Fault::Partition => "partition",
        }
    }

    /// Its name in the table of faults.
    pub fn kind(self) -> &'static str {
        match self {
            Fault::Partition => "leader-cut-off",
            other => other.name(),
        }
    }

    /// How long it lasts, milliseconds.
    pub fn lasts(self) -> u64 {
        match self {
            Fault::Pause | Fault::Partition => 1_500,
            _ => 0,
        }
    }
}

/// The programs that are hurt, and where they keep what they have.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The program to hurt, with triarch-node beside it; default: built from this checkout
    #[arg(long, value_name = "PATH", env = "TRIARCH_PROGRAM")]
    pub triarch: Option<PathBuf>,
    /// Where the replicas keep their data; default: a new folder in target/
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Leave data and logs behind
    #[arg(long)]
    pub keep: bool,
}

/// `triarch-nemesis leader-kill`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Starts three replicas of its own, writes through all of them, watches on all of
them, hurts whichever leads, and checks every answer and every event. The last
line says what came of it; the exit code is 1 for any loss or violation, for a
watch that broke at a replica that was not hurt, for an election that the one
which came back caused, or too few acknowledged writes.

  gap_…_ms          the longest time without an acknowledged write after each fault
  failed_requests   of commands at the address that all replicas share, retried as
                    kubectl does (refused connections, 429 and 5xx with Retry-After)
  next_bind_p99_ms  from the fault until a pod that a controller made after it is bound

Examples:
  triarch-nemesis leader-kill --kills 20
  triarch-nemesis leader-kill --kills 20 --fault pause --seed 7
  triarch-nemesis leader-kill --kills 5 --fault transfer --triarch target/release/triarch --keep
  sudo triarch-nemesis leader-kill --kills 20 --fault partition")]
pub struct Options {
    /// How often the leader is hurt
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub kills: u32,
    /// How the leader is hurt
    #[arg(long, value_enum, default_value = "kill")]
    pub fault: Fault,
    /// Seed of what the clients do
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Writers, spread over all replicas
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u32).range(16..=64))]
    pub writers: u32,
    /// Acknowledged writes between two faults
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(500..=10_000))]
    pub acked: u64,
    #[command(flatten)]
    pub place: Place,
}

/// `triarch-nemesis suite`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Starts three replicas of its own, each in its own network namespace, on its own
disk and with its own clock, loads them, and lets one fault after the other
happen, in an order that the seed decides. Writes a report and says where; the
exit code is 1 when a check has failed. Needs root.

With --kubeconfig it uses a cluster that runs already: it can only load it,
check what it answers, and hand leadership over. Without --yes it says what it
would do there.

Examples:
  sudo triarch-nemesis suite --minutes 10
  sudo triarch-nemesis suite --minutes 60 --seed 7 --report suite.html
  sudo triarch-nemesis suite --triarch old/triarch --upgrade-to new/triarch
  sudo triarch-nemesis suite --only kill,disk-full --minutes 2
  triarch-nemesis suite --kubeconfig admin.yaml --yes --minutes 5")]
pub struct SuiteOptions {
    /// Minutes of faults; the last one may end a little later
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=24 * 60))]
    pub minutes: u64,
    /// Seed of the order of faults and of what the clients do
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A few short faults in less than a minute, for `./test`
    #[arg(long, conflicts_with_all = ["minutes", "only"])]
    pub short: bool,
    /// Only these faults
    #[arg(long, value_delimiter = ',', value_name = "FAULT,…")]
    pub only: Vec<String>,
    /// Writers, spread over all replicas
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(3..=64))]
    pub writers: u32,
    /// Where the report is written; default: nemesis-SEED.html here
    #[arg(long, value_name = "PATH")]
    pub report: Option<PathBuf>,
    /// Another build, for rolling upgrades to and fro; default: a copy of the same one
    #[arg(long, value_name = "PATH")]
    pub upgrade_to: Option<PathBuf>,
    /// A cluster that runs already
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Really do it to that cluster
    #[arg(long, requires = "kubeconfig")]
    pub yes: bool,
    #[command(flatten)]
    pub place: Place,
}

/// `triarch-nemesis quiet`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Three replicas with nothing wrong but a busy machine: a thread that spins for
each core, and disks that stand still for 100 ms now and then. Nobody should be
taken for dead. The exit code is 1 when there was an election. Needs root.

  elections     changes of term
  false_alarms  times that a replica suspected the leader, which was alive all the
                while: its connection broke, or it was silent for an election timeout

Example:
  sudo triarch-nemesis quiet --minutes 30")]
pub struct QuietOptions {
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=24 * 60))]
    pub minutes: u64,
    /// Seed of when disks stand still and of what the clients do
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long a disk stands still, milliseconds; 0: never
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub stall_ms: u64,
    /// Threads that spin; default: one a core
    #[arg(long)]
    pub spinners: Option<usize>,
    #[command(flatten)]
    pub place: Place,
}
