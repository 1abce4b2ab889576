//! The seeded simulation: clusters of 1, 3 and 5 replicas, clients and faults in one thread on
//! virtual time.
//!
//! ```text
//!   Run ── machines (disks) ── processes (RaftDb, control plane) ── network
//!    │                             └── hollow node agents
//!    │        ▲ faults: LOCAL          ▲ faults: NETWORK
//!    ├─ workloads ─► history ─┐
//!    └─ observe ───► log ─────┴─► invariants
//! ```
//! One seed is one run, poll for poll; a violation is replayed with
//! `--seed N --trace`. Faults, workloads and invariants are one file each;
//! [`faults::LOCAL`], [`faults::NETWORK`] and [`invariants::INVARIANTS`] are the
//! visible lists, and a run of many seeds fails when one of them never fired.
//! Nothing here knows how the store works: it sees what clients see, and disks
//! and wires from below.

pub mod agents;
pub mod control_plane;
pub mod faults;
pub mod history;
pub mod invariants;
pub mod log;
pub mod machine;
pub mod mutants;
pub mod network;
pub mod observe;
pub mod run;
pub mod runner;
pub mod settings;
pub mod tally;
pub mod trace;
pub mod uplink;
pub mod workloads;
