//! What happened in a run, counted: faults injected, invariants checked, and
//! what was violated. Shared by everything in a run; sums over runs are taken
//! by the runner.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Violations that are kept of one run; the rest is only counted.
const KEPT: usize = 20;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub detail: String,
}

/// Counts of a run or of many.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub faults: BTreeMap<&'static str, u64>,
    pub checks: BTreeMap<&'static str, u64>,
    pub violations: Vec<Violation>,
    pub violated: u64,
    /// Writes asked for, and those that were acknowledged.
    pub writes: u64,
    pub acked: u64,
    pub elections: u64,
    /// Requests that were never answered.
    pub unfinished: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        for (to, from) in [(&mut self.faults, &other.faults), (&mut self.checks, &other.checks)] {
            for (name, n) in from {
                *to.entry(name).or_default() += n;
            }
        }
        self.violations.extend(other.violations.iter().cloned());
        self.violated += other.violated;
        self.writes += other.writes;
        self.acked += other.acked;
        self.elections += other.elections;
        self.unfinished += other.unfinished;
    }
}

/// The counters of a run; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<Counts>>);

impl Tally {
    pub fn fault(&self, name: &'static str) {
        *self.0.lock().faults.entry(name).or_default() += 1;
    }

    /// The invariant was checked against `n` facts.
    pub fn checked(&self, invariant: &'static str, n: u64) {
        *self.0.lock().checks.entry(invariant).or_default() += n;
    }

    pub fn violation(&self, invariant: &'static str, detail: impl Into<String>) {
        let mut counts = self.0.lock();
        counts.violated += 1;
        if counts.violations.len() < KEPT {
            counts.violations.push(Violation { invariant, detail: detail.into() });
        }
    }

    pub fn with<T>(&self, f: impl FnOnce(&mut Counts) -> T) -> T {
        f(&mut self.0.lock())
    }

    pub fn counts(&self) -> Counts {
        self.0.lock().clone()
    }
}
