//! Many seeds: two at a time, each on a thread of its own, and what came of them.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::faults;
use crate::invariants;
use crate::mutants::{Mutant, Verdict};
use crate::run::{Outcome, run};
use crate::settings::Stack;
use crate::tally::{Counts, Violation};

/// Seeds at a time.
const THREADS: u64 = 2;

/// What a run of many seeds gave.
#[derive(Debug, Default)]
pub struct Report {
    pub stack: Stack,
    pub seeds: u64,
    pub counts: Counts,
    pub simulated: Duration,
    pub real: Duration,
    /// Faults and invariants that never fired.
    pub silent: Vec<&'static str>,
}

/// Runs one seed; a panic of the simulation itself is a violation as well.
pub fn one(seed: u64, stack: Stack, trace: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(seed, stack, trace))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
        let violations = vec![Violation { invariant: "no-panic", detail: text }];
        let counts = Counts { violations, violated: 1, ..Counts::default() };
        Outcome { counts, simulated: Duration::ZERO, trace: Vec::new() }
    })
}

/// Runs one seed with a mistake in it.
pub fn mistaken(mutant: &'static Mutant, seed: u64, stack: Stack, trace: bool) -> Outcome {
    let _active = triarch_mutants::Active::new(mutant.name);
    one(seed, stack, trace)
}

/// Runs seeds with each mistake until the named invariant has found it, at most
/// `seeds` of them; then the seed that found it once more without the mistake.
pub fn hunt(
    mutants: &[&'static Mutant],
    start: u64,
    seeds: u64,
    stack: Stack,
    told: impl Fn(&Verdict) + Sync,
) -> Vec<Verdict> {
    let (next, verdicts) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let mut verdict = Verdict { mutant, found: None, seeds: 0, others: Vec::new() };
                    for seed in start..start + seeds {
                        let outcome = mistaken(mutant, seed, stack, false);
                        verdict.seeds += 1;
                        let by = |v: &Violation| v.invariant == mutant.invariant;
                        for v in outcome.counts.violations.iter().filter(|v| !by(v)) {
                            if !verdict.others.contains(&v.invariant) {
                                verdict.others.push(v.invariant);
                            }
                        }
                        if outcome.counts.violations.iter().any(by) && one(seed, stack, false).counts.violated == 0 {
                            verdict.found = Some(seed);
                            break;
                        }
                    }
                    told(&verdict);
                    verdicts.lock().push(verdict);
                }
            });
        }
    });
    verdicts.into_inner()
}

/// Runs `seeds` from `start` on. `told` hears of each seed as it ends.
pub fn many(start: u64, seeds: u64, stack: Stack, told: impl Fn(u64, &Outcome) + Sync) -> Report {
    let (next, report, began) = (AtomicU64::new(0), Mutex::new(Report { stack, ..Report::default() }), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(seeds) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= seeds {
                        return;
                    }
                    let outcome = one(start + n, stack, false);
                    told(start + n, &outcome);
                    let mut report = report.lock();
                    report.seeds += 1;
                    report.counts.add(&outcome.counts);
                    report.simulated += outcome.simulated;
                }
            });
        }
    });
    let mut report = report.into_inner();
    report.real = began.elapsed();
    let fired = |table: &std::collections::BTreeMap<&str, u64>, name: &str| table.get(name).is_some_and(|n| *n > 0);
    report.silent.extend(faults::names(stack).filter(|n| !fired(&report.counts.faults, n)));
    report.silent.extend(invariants::names(stack).iter().filter(|n| !fired(&report.counts.checks, n)));
    report
}

impl Report {
    pub fn failed(&self) -> bool {
        self.counts.violated > 0 || self.counts.unfinished > 0 || !self.silent.is_empty()
    }

    /// Faults and invariants with their counts, then the figures in one line.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut table = |title: &str,
                         names: &mut dyn Iterator<Item = &'static str>,
                         counts: &std::collections::BTreeMap<&'static str, u64>| {
            let _ = writeln!(out, "{title:<22} {:>12}", "count");
            for name in names {
                let _ = writeln!(out, "  {name:<20} {:>12}", counts.get(name).copied().unwrap_or(0));
            }
        };
        table("fault", &mut faults::names(self.stack), &self.counts.faults);
        table("invariant", &mut invariants::names(self.stack).iter().copied(), &self.counts.checks);
        for name in &self.silent {
            let _ = writeln!(out, "never fired: {name}");
        }
        let c = &self.counts;
        let faults: u64 = c.faults.values().sum();
        let (simulated, real) = (self.simulated.as_secs_f64(), self.real.as_secs_f64());
        let _ = write!(
            out,
            "seeds={} violations={} writes={} acked={} faults={faults} elections={} unfinished={} \
             simulated_s={simulated:.0} real_s={real:.1} speedup={:.0}",
            self.seeds,
            c.violated,
            c.writes,
            c.acked,
            c.elections,
            c.unfinished,
            simulated / real.max(1e-9)
        );
        out
    }
}
