//! `triarch-sim`: runs seeds, prints what fired, fails on a violation.

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use triarch_sim::run::Outcome;
use triarch_sim::runner;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs clusters of 1, 3 and 5 replicas, clients and faults on virtual time, one run per seed.
#[derive(Parser)]
#[command(version, about, after_help = "EXAMPLES:\n  triarch-sim --seeds 200\n  triarch-sim --seed 17 --trace")]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Run this seed only; what never fired is no failure then.
    #[arg(long, conflicts_with_all = ["seeds", "start"])]
    seed: Option<u64>,
    /// Print the run's trace (with --seed).
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Print what the replicas log to stderr, filtered as by RUST_LOG (with --seed).
    #[arg(long, requires = "seed", value_name = "FILTER")]
    log: Option<String>,
}

/// Virtual times in the log's lines.
struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        let now = triarch_sim::trace::virtual_now();
        write!(w, "{:>5}.{:06}", now.as_secs(), now.subsec_micros())
    }
}

fn tell(seed: u64, outcome: &Outcome) {
    for v in &outcome.counts.violations {
        eprintln!("seed={seed} invariant={} {}", v.invariant, v.detail);
    }
    if outcome.counts.violated > 0 {
        eprintln!("seed={seed}: replay with `cargo run --release -p triarch-sim -- --seed {seed} --trace`");
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(filter) = &args.log {
        let logs = tracing_subscriber::fmt().with_timer(VirtualTime).with_ansi(false).with_writer(std::io::stderr);
        logs.with_env_filter(filter).init();
    }
    let failed = match args.seed {
        Some(seed) => {
            let outcome = runner::one(seed, args.trace);
            for line in &outcome.trace {
                println!("{line}");
            }
            tell(seed, &outcome);
            let c = &outcome.counts;
            println!(
                "seed={seed} violations={} writes={} acked={} elections={} unfinished={}",
                c.violated, c.writes, c.acked, c.elections, c.unfinished
            );
            c.violated > 0 || c.unfinished > 0
        }
        None => {
            let report = runner::many(args.start, args.seeds, tell);
            println!("{}", report.text());
            report.failed()
        }
    };
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
