//! What a process gets from outside: tasks, clocks, randomness, disk.
//!
//! Everything that the simulation runs (store, proposer, watch hub, registry,
//! admission, leader scope, drivers of reconcilers and scheduler, gateway
//! session, hollow agent) takes an [`Env`] as an argument and names no async
//! runtime, no clock and no random source of its own. Binaries build a
//! [`TokioRuntime`]; the simulation builds one on virtual time.
//!
//! ```text
//!   binaries ─► TokioRuntime ─┐
//!                             ├─► Env ─► storage, registry, controllers, …
//!   chaos/sim ─► SimRuntime ──┘
//! ```
//!
//! Owned here too, because every process needs the same one: exit codes,
//! [`Scope`] (cancellation) and [`Secret`] (a string that cannot be printed).

mod clock;
pub mod disk;
mod exit;
pub mod priority;
mod runtime;
mod scope;
mod secret;
mod tokio_runtime;

pub use clock::{Mono, Wall};
pub use disk::{Disk, DiskFile, OpenMode, RealDisk, SimDisk};
pub use exit::ExitCode;
pub use runtime::{Elapsed, Env, Runtime};
pub use scope::Scope;
pub use secret::Secret;
pub use tokio_runtime::TokioRuntime;
