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
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Pause => "pause",
            Fault::Stop => "stop",
            Fault::Transfer => "transfer",
        }
    }
}

/// `triarch-nemesis leader-kill`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Starts three replicas of its own, writes through all of them, watches on all of
them, hurts whichever leads, and checks every answer and every event. The last
line says what came of it; the exit code is 1 for any loss or violation, or too
few acknowledged writes.

Examples:
  triarch-nemesis leader-kill --kills 20
  triarch-nemesis leader-kill --kills 20 --fault pause --seed 7
  triarch-nemesis leader-kill --kills 5 --fault transfer --triarch target/release/triarch --keep")]
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
    /// The program to hurt; default: built from this checkout
    #[arg(long, value_name = "PATH", env = "TRIARCH_PROGRAM")]
    pub triarch: Option<PathBuf>,
    /// Where the replicas keep their data; default: a new folder in target/
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Leave data and logs behind
    #[arg(long)]
    pub keep: bool,
}
