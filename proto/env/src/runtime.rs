//! The environment handle: tasks, time and randomness behind one small trait.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either};

use crate::{Mono, Scope, Wall};

/// What a runtime must offer. Implemented by [`crate::TokioRuntime`] and by the
/// simulation; nothing else should need to.
pub trait Runtime: Send + Sync + 'static {
    /// Starts a detached task. `name` appears in traces and task dumps.
    fn spawn(&self, name: &'static str, fut: BoxFuture<'static, ()>);
    /// Resolves after `d`.
    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()>;
    /// Monotonic now.
    fn mono(&self) -> Mono;
    /// Wall-clock now.
    fn wall(&self) -> Wall;
    /// 64 uniformly random bits; cryptographically strong outside simulation.
    fn random_u64(&self) -> u64;
}

/// A deadline passed before the future was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("deadline exceeded")]
pub struct Elapsed;

/// A process's environment; cheap to clone.
#[derive(Clone)]
pub struct Env(Arc<dyn Runtime>);

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}

impl Env {
    pub fn new(runtime: impl Runtime) -> Env {
        Env(Arc::new(runtime))
    }

    /// Starts a detached task.
    pub fn spawn(&self, name: &'static str, fut: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(name, fut.boxed());
    }

    /// Starts a task that is dropped where it stands when `scope` ends.
    pub fn spawn_in(&self, scope: &Scope, name: &'static str, fut: impl Future<Output = ()> + Send + 'static) {
        let scope = scope.clone();
        self.0.spawn(
            name,
            async move {
                scope.run(fut).await;
            }
            .boxed(),
        );
    }

    pub fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(d)
    }

    /// Sleeps until `at`; returns at once when it is past.
    pub fn sleep_until(&self, at: Mono) -> BoxFuture<'static, ()> {
        self.0.sleep(at - self.mono())
    }

    /// `fut`, or [`Elapsed`] after `d`. The future is polled first.
    pub async fn timeout<T>(&self, d: Duration, fut: impl Future<Output = T>) -> Result<T, Elapsed> {
        let sleep = self.0.sleep(d);
        match futures::future::select(std::pin::pin!(fut), sleep).await {
            Either::Left((out, _)) => Ok(out),
            Either::Right(_) => Err(Elapsed),
        }
    }

    pub fn mono(&self) -> Mono {
        self.0.mono()
    }

    pub fn wall(&self) -> Wall {
        self.0.wall()
    }

    pub fn random_u64(&self) -> u64 {
        self.0.random_u64()
    }

    /// A value in `0..n`; 0 when `n` is 0.
    pub fn random_below(&self, n: u64) -> u64 {
        if n == 0 { 0 } else { ((u128::from(self.random_u64()) * u128::from(n)) >> 64) as u64 }
    }

    /// `d` spread by up to ±`percent` (0 to 100), so that retries do not march in step.
    pub fn jitter(&self, d: Duration, percent: u32) -> Duration {
        let span = d.as_nanos() as u64 / 100 * u64::from(percent.min(100));
        let offset = self.random_below(span.saturating_mul(2).saturating_add(1));
        Duration::from_nanos((d.as_nanos() as u64).saturating_sub(span).saturating_add(offset))
    }

    /// A version 4 UUID (RFC 9562) from this environment's randomness.
    pub fn uuid(&self) -> String {
        let (hi, lo) = (self.random_u64(), self.random_u64());
        let hi = (hi & !0xf000) | 0x4000;
        let lo = (lo & !(0b11 << 62)) | (0b10 << 62);
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            hi >> 32,
            hi >> 16 & 0xffff,
            hi & 0xffff,
            lo >> 48,
            lo & 0xffff_ffff_ffff
        )
    }

    /// `n` characters of the alphabet that Kubernetes uses in generated names
    /// (no vowels, no look-alikes).
    pub fn random_suffix(&self, n: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..n).map(|_| char::from(ALPHABET[self.random_below(ALPHABET.len() as u64) as usize])).collect()
    }
}
