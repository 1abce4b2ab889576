//! Replicas on virtual time: openraft's simulated runtime as our environment.
//!
//! One seed is one run: the same polls in the same order, byte for byte.

mod process;

use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::{AsyncRuntime, Instant};
use openraft_rt_sim::SimInstant;
pub use openraft_rt_sim::SimRuntime;
use parking_lot::Mutex;
pub use process::{Process, ProcessRuntime};
use triarch_env::{Env, Mono, Runtime, Wall};

/// The wall clock of a simulation starts here: 2030-01-01T00:00:00Z.
const WALL_START: i64 = 1_893_456_000;

/// An environment on the [`SimRuntime`] that is current when it is used, with
/// randomness of its own.
#[derive(Debug)]
pub struct SimEnv(Mutex<u64>);

impl SimEnv {
    /// Give every replica its own seed, drawn from the run's.
    pub fn env(seed: u64) -> Env {
        Env::new(SimEnv(Mutex::new(seed)))
    }
}

impl Runtime for SimEnv {
    fn spawn(&self, _: &'static str, fut: BoxFuture<'static, ()>) {
        // Dropping the handle detaches the task.
        drop(SimRuntime::spawn(fut));
    }

    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        SimRuntime::sleep(d).boxed()
    }

    fn mono(&self) -> Mono {
        Mono(SimInstant::now().elapsed_since_start())
    }

    fn wall(&self) -> Wall {
        Wall::from_secs(WALL_START) + self.mono().0
    }

    fn random_u64(&self) -> u64 {
        // SplitMix64: one draw moves the state by a fixed odd step.
        let mut state = self.0.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The environment of a simulated process: its tasks are the process's.
struct ProcessEnv {
    process: Process,
    inner: SimEnv,
}

impl Process {
    /// This process's environment, with randomness of its own.
    pub fn env(&self, seed: u64) -> Env {
        Env::new(ProcessEnv { process: self.clone(), inner: SimEnv(Mutex::new(seed)) })
    }
}

impl Runtime for ProcessEnv {
    fn spawn(&self, _: &'static str, fut: BoxFuture<'static, ()>) {
        self.process.spawn(fut);
    }

    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(d)
    }

    fn mono(&self) -> Mono {
        self.inner.mono()
    }

    fn wall(&self) -> Wall {
        let world = self.inner.wall();
        Wall { micros: world.micros.saturating_add(self.process.clock_ahead()) }
    }

    fn random_u64(&self) -> u64 {
        self.inner.random_u64()
    }
}

/// A run of its own: virtual time, one thread, one seed.
pub struct Simulation(SimRuntime);

impl Simulation {
    pub fn new(seed: u64) -> Simulation {
        Simulation(SimRuntime::with_seed(seed))
    }

    /// Records every poll, wake and timer, for [`Simulation::take_trace`].
    pub fn record_trace(&mut self) {
        self.0.record_trace(true);
    }

    pub fn take_trace(&self) -> Vec<String> {
        self.0.take_trace()
    }

    /// Runs until `fut` is done. Panics when nothing can go on any more.
    pub fn block_on<T>(&mut self, fut: impl Future<Output = T>) -> T {
        self.0.block_on(fut)
    }
}
