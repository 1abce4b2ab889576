//! `triarch-nemesis`: faults on a cluster of its own.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use triarch_nemesis::options::Fault;
use triarch_nemesis::{Options, QuietOptions, SuiteOptions, ground, histories, quiet, run, suite};

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
    /// Let one fault after the other happen, and write a report
    Suite(SuiteOptions),
    /// Keep the machine busy, and see that nobody is taken for dead
    Quiet(QuietOptions),
    /// Read the histories of Triarch and of two releases of etcd with the same checkers
    Histories(histories::Options),
}

fn main() -> ExitCode {
    match Cli::parse().verb.run() {
        Ok((line, good)) => {
            println!("{line}");
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!("failed: {e:#}");
            ExitCode::FAILURE
        }
    }
}

impl Verb {
    /// The last line, and whether it is good.
    fn run(self) -> anyhow::Result<(String, bool)> {
        match self {
            Verb::LeaderKill(o) => {
                let binaries = ground::programs(&o.place)?;
                if o.fault == Fault::Partition {
                    ground::isolate()?;
                }
                let report = until_signal(run::leader_kill(&o, binaries))?;
                Ok((report.to_string(), report.good()))
            }
            Verb::Suite(o) if o.kubeconfig.is_some() && !o.yes => Ok((suite::plan(&o)?, true)),
            Verb::Suite(o) => {
                let binaries = ground::programs(&o.place)?;
                let outcome = if o.kubeconfig.is_some() {
                    until_signal(suite::outside(&o, &binaries))?
                } else {
                    ground::isolate()?;
                    until_signal(suite::suite(&o, binaries))?
                };
                Ok((outcome.to_string(), outcome.good()))
            }
            Verb::Quiet(o) => {
                let binaries = ground::programs(&o.place)?;
                ground::isolate()?;
                let quiet = until_signal(quiet::quiet(&o, binaries))?;
                Ok((quiet.to_string(), quiet.good()))
            }
            Verb::Histories(o) => {
                let report = until_signal(histories::run(&o))?;
                Ok((report.to_string(), report.good()))
            }
        }
    }
}

/// Runs `work` to its end, or until Ctrl-C or SIGTERM: what it has made is
/// cleared away in both cases.
fn until_signal<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(async {
        let mut ends = signal(SignalKind::terminate())?;
        tokio::select! {
            done = work => done,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = ends.recv() => anyhow::bail!("asked to stop"),
        }
    });
    runtime.shutdown_background();
    done
}
