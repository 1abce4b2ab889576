//! `triarch-nemesis`: faults on a cluster of its own.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use triarch_nemesis::{Options, run};

#[derive(Debug, Parser)]
#[command(name = "triarch-nemesis", version, about = "Hurts replicas and checks that nothing was broken by it")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Hurt the leader again and again under load
    LeaderKill(Options),
}

fn main() -> ExitCode {
    let Verb::LeaderKill(options) = Cli::parse().verb;
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("failed: {e}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(run::leader_kill(&options));
    runtime.shutdown_background();
    match done {
        Ok(report) => {
            println!("{report}");
            if report.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!("failed: {e:#}");
            ExitCode::FAILURE
        }
    }
}
