//! Replicas on virtual time: openraft's simulated runtime as our environment.
//!
//! One seed is one run: the same polls in the same order, byte for byte.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::{AsyncRuntime, Instant};
use openraft_rt_sim::SimInstant;
pub use openraft_rt_sim::SimRuntime;
use parking_lot::Mutex;
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
