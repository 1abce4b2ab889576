//! Which systems, and for how long.

use std::path::PathBuf;

/// A system under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// Three replicas of this checkout, behind the facade
    #[value(name = "triarch")]
    Triarch,
    /// The newest release of 3.7 that the lab's module names
    #[value(name = "etcd-3.7")]
    Etcd37,
    /// A release that still has mistakes which later ones have not
    #[value(name = "etcd-3.5.1")]
    Etcd351,
}

impl Which {
    pub const ALL: [Which; 3] = [Which::Triarch, Which::Etcd37, Which::Etcd351];

    pub fn name(self) -> &'static str {
        match self {
            Which::Triarch => "triarch",
            Which::Etcd37 => "etcd-3.7",
            Which::Etcd351 => "etcd-3.5.1",
        }
    }

    /// Whether anything that is found in it is a failure of the run.
    pub fn must_be_clean(self) -> bool {
        self != Which::Etcd351
    }
}

/// `triarch-nemesis histories`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Starts three members of each system, writes, reads and watches through all of
them over etcd's API, kills and pauses them meanwhile, and reads every answer and
every event with the same checkers. The last line says what was found; the exit code
is 1 when it is anything in Triarch or in etcd 3.7.

Examples:
  triarch-nemesis histories --minutes 5
  triarch-nemesis histories --minutes 1 --only etcd-3.5.1 --seed 7 --keep")]
pub struct Options {
    /// Load and faults of each system, minutes
    #[arg(long, default_value_t = 5.0, value_parser = minutes)]
    pub minutes: f64,
    /// Seed of what clients do and of the faults
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// One system alone
    #[arg(long, value_enum)]
    pub only: Option<Which>,
    /// The triarch to hurt; default: built from this checkout
    #[arg(long, value_name = "PATH", env = "TRIARCH_PROGRAM")]
    pub triarch: Option<PathBuf>,
    /// Where members keep their data; default: a new folder in target/
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Leave data and logs behind
    #[arg(long)]
    pub keep: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    let range = 0.1..=240.0;
    text.parse().ok().filter(|m| range.contains(m)).ok_or_else(|| "takes 0.1 to 240".to_owned())
}
