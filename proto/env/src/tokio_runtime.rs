//! The production environment: tokio's tasks and timers, the system's clocks and entropy.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::BoxFuture;
use rand::Rng;
use tracing::Instrument;

use crate::{Mono, Runtime, Wall};

/// Runs on the tokio runtime that is current when it is made.
#[derive(Debug, Clone)]
pub struct TokioRuntime {
    handle: tokio::runtime::Handle,
    start: Instant,
}

impl TokioRuntime {
    /// # Panics
    /// Outside a tokio runtime.
    pub fn current() -> TokioRuntime {
        TokioRuntime { handle: tokio::runtime::Handle::current(), start: Instant::now() }
    }

    /// Another runtime's tasks on the same clock.
    pub fn on(&self, handle: tokio::runtime::Handle) -> TokioRuntime {
        TokioRuntime { handle, start: self.start }
    }
}

impl Runtime for TokioRuntime {
    fn spawn(&self, name: &'static str, fut: BoxFuture<'static, ()>) {
        self.handle.spawn(fut.instrument(tracing::trace_span!("task", name)));
    }

    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(d).boxed()
    }

    fn mono(&self) -> Mono {
        Mono(self.start.elapsed())
    }

    fn wall(&self) -> Wall {
        let now = SystemTime::now();
        let micros = match now.duration_since(UNIX_EPOCH) {
            Ok(d) => i64::try_from(d.as_micros()).unwrap_or(i64::MAX),
            Err(e) => -i64::try_from(e.duration().as_micros()).unwrap_or(i64::MAX),
        };
        Wall { micros }
    }

    fn random_u64(&self) -> u64 {
        rand::rng().random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Elapsed, Env, Scope};

    #[tokio::test]
    async fn a_timeout_prefers_a_ready_future_and_ends_a_pending_one() {
        let env = Env::new(TokioRuntime::current());
        assert_eq!(env.timeout(Duration::ZERO, async { 7 }).await, Ok(7));
        assert_eq!(env.timeout(Duration::from_millis(1), std::future::pending::<()>()).await, Err(Elapsed));
    }

    #[tokio::test]
    async fn a_cancelled_scope_ends_the_tasks_of_its_children() {
        let env = Env::new(TokioRuntime::current());
        let (root, (tx, rx)) = (Scope::new(), tokio::sync::oneshot::channel::<()>());
        env.spawn_in(&root.child(), "pending", async move {
            let _held = tx;
            std::future::pending::<()>().await;
        });
        root.cancel();
        assert!(rx.await.is_err(), "the task was dropped with its scope");
    }

    #[tokio::test]
    async fn uuids_are_version_4_and_jitter_stays_inside_its_bounds() {
        let env = Env::new(TokioRuntime::current());
        let id = env.uuid();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]));
        for _ in 0..100 {
            let d = env.jitter(Duration::from_millis(100), 20);
            assert!((80..=120).contains(&d.as_millis()), "{d:?}");
        }
    }
}
