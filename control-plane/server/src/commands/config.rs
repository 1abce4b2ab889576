//! `triarch config check` and `triarch config defaults`.

use std::path::PathBuf;

use clap::Subcommand;
use triarch_env::ExitCode;

use super::{Failure, Outcome};
use crate::config::ServerConfiguration;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  triarch config defaults > server.yaml\n  triarch config check server.yaml")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check a configuration file; prints nothing but `ok` when it is good
    Check { file: PathBuf },
    /// Print a file with every key and its default
    Defaults,
}

pub fn run(args: Args) -> Outcome {
    match args.verb {
        Verb::Check { file } => {
            ServerConfiguration::read(&file).map_err(|e| Failure::new(ExitCode::Usage, e))?;
            println!("ok");
        }
        Verb::Defaults => print!("{}", serde_saphyr::to_string(&ServerConfiguration::default())?),
    }
    Ok(ExitCode::Ok)
}
