//! `triarch completion SHELL`.

use clap::CommandFactory;
use clap_complete::Shell;
use triarch_env::ExitCode;

use super::{Cli, Outcome};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  source <(triarch completion bash)")]
pub struct Args {
    shell: Shell,
}

pub fn run(args: Args) -> Outcome {
    clap_complete::generate(args.shell, &mut Cli::command(), "triarch", &mut std::io::stdout());
    Ok(ExitCode::Ok)
}
