//! Real faults on real processes, and whether anything was broken by them.
//!
//! ```text
//!   writers ─► replicas ◄─ watchers        lab: three processes of our own
//!      │          ▲            │
//!      │        fault          │
//!      ▼                       ▼
//!   operations ────► check ◄─ events       last line: what came of it
//! ```
//! `histories` is the same over etcd's API, of Triarch and of etcd itself.
//!
//! Owns the load, the faults and the measure of gaps. Judges by
//! `triarch-check` alone. Invariant: everything is bounded in time, and no
//! process outlives the run.

pub mod board;
pub mod check;
pub mod clocks;
pub mod conduct;
pub mod disk_probe;
pub mod faults;
pub mod gaps;
pub mod ground;
pub mod histories;
pub mod load;
pub mod options;
pub mod pods;
pub mod quiet;
pub mod report;
pub mod requests;
pub mod run;
pub mod shared;
pub mod stage;
pub mod suite;
pub mod watcher;
pub mod writer;

pub use options::{Options, QuietOptions, SuiteOptions};
pub use report::Report;
