//! The `triarch` binary. It only parses and dispatches: one file per verb.

use std::process::ExitCode;

use clap::Parser;
use triarch_server::commands::Cli;

/// Thousands of objects of all sizes come and go at a time: the C library's
/// allocator gives pages back and clears them again, at a quarter of the CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    triarch_pki::install_crypto();
    triarch_server::commands::run(Cli::parse()).into()
}
