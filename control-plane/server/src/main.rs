//! The `triarch` binary. It only parses and dispatches: one file per verb.

use std::process::ExitCode;

use clap::Parser;
use triarch_server::commands::Cli;

fn main() -> ExitCode {
    triarch_pki::install_crypto();
    triarch_server::commands::run(Cli::parse()).into()
}
