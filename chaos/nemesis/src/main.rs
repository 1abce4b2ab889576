//! `triarch-nemesis`: faults on a cluster of its own.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use triarch_nemesis::{Options, histories, run};

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
    /// Read the histories of Triarch and of two releases of etcd with the same checkers
    Histories(histories::Options),
}

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("failed: {e}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match &verb {
            Verb::LeaderKill(options) => run::leader_kill(options).await.map(|r| (r.to_string(), r.good())),
            Verb::Histories(options) => histories::run(options).await.map(|r| (r.to_string(), r.good())),
        }
    });
    runtime.shutdown_background();
    match done {
        Ok((report, good)) => {
            println!("{report}");
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!("failed: {e:#}");
            ExitCode::FAILURE
        }
    }
}
