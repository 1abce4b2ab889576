//! `triarch-sim`: runs seeds, prints what fired, fails on a violation.

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use triarch_mutants::BUILT;
use triarch_sim::mutants::{self, Mutant};
use triarch_sim::run::Outcome;
use triarch_sim::runner;
use triarch_sim::settings::Stack;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs clusters of 1, 3 and 5 replicas, clients and faults on virtual time, one run per seed.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "EXAMPLES:\n  triarch-sim --seeds 200\n  triarch-sim --store --seeds 1000 --start 5000\n  triarch-sim --seed 17 --trace\n  triarch-sim --mutants --seeds 1000   (built with --features mutants)"
)]
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
    /// The store alone, without registry, controllers and nodes.
    #[arg(long)]
    store: bool,
    /// Print the run's trace (with --seed).
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Make every known mistake, one at a time, and tell which invariant finds it.
    #[arg(long, conflicts_with = "seed")]
    mutants: bool,
    /// Make this mistake (with --seed, or hunted for in --seeds).
    #[arg(long, value_name = "NAME", value_parser = known_mutant)]
    mutant: Option<&'static Mutant>,
    /// Print what the replicas log to stderr, filtered as by RUST_LOG (with --seed).
    #[arg(long, requires = "seed", value_name = "FILTER")]
    log: Option<String>,
}

impl Args {
    fn stack(&self) -> Stack {
        if self.store { Stack::Store } else { Stack::Whole }
    }
}

fn known_mutant(name: &str) -> Result<&'static Mutant, String> {
    let all = || mutants::MUTANTS.iter().map(|m| m.name).collect::<Vec<_>>().join(", ");
    if !BUILT {
        return Err(NO_MUTANTS.into());
    }
    mutants::named(name).ok_or_else(|| format!("takes one of {}", all()))
}

const NO_MUTANTS: &str = "no mistakes are built in; use `cargo run --release -p triarch-sim --features mutants -- …`";

/// Hunts for mistakes; `true`: one was missed.
fn hunt(args: &Args) -> bool {
    let all: Vec<&'static Mutant> =
        mutants::MUTANTS.iter().filter(|m| args.mutant.is_none_or(|o| o.name == m.name)).collect();
    let told = |v: &mutants::Verdict| {
        let seed = v.found.map_or(format!("not found in {} seeds", v.seeds), |s| {
            format!("found by {} in seed {s}", v.mutant.invariant)
        });
        eprintln!("{}: {seed}", v.mutant.name);
    };
    let mut verdicts = runner::hunt(&all, args.start, args.seeds, args.stack(), told);
    verdicts.sort_by_key(|v| mutants::MUTANTS.iter().position(|m| m.name == v.mutant.name));
    println!("{}", mutants::text(&verdicts));
    verdicts.iter().any(|v| v.found.is_none())
}

fn one(args: &Args, seed: u64) -> Outcome {
    match args.mutant {
        Some(mutant) => runner::mistaken(mutant, seed, args.stack(), args.trace),
        None => runner::one(seed, args.stack(), args.trace),
    }
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
            let outcome = one(&args, seed);
            for line in &outcome.trace {
                println!("{line}");
            }
            tell(seed, &outcome);
            let c = &outcome.counts;
            if args.trace {
                return if outcome.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            }
            println!(
                "seed={seed} violations={} writes={} acked={} elections={} unfinished={}",
                c.violated, c.writes, c.acked, c.elections, c.unfinished
            );
            outcome.failed()
        }
        None if args.mutants && !BUILT => {
            eprintln!("{NO_MUTANTS}");
            return ExitCode::from(2);
        }
        None if args.mutants || args.mutant.is_some() => hunt(&args),
        None => {
            let report = runner::many(args.start, args.seeds, args.stack(), tell);
            println!("{}", report.text());
            report.failed()
        }
    };
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
