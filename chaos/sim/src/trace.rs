//! The run's story, line by line, with virtual times. Kept only when asked for.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use triarch_env::{Env, Mono};

/// Lines kept at most; a run is much shorter.
const MAX_LINES: usize = 4_000_000;

/// Clones share the lines.
#[derive(Clone)]
pub struct Trace {
    env: Env,
    start: Mono,
    lines: Option<Arc<Mutex<Vec<String>>>>,
}

/// Virtual time of the run on this thread; only inside one.
pub fn virtual_now() -> Duration {
    triarch_raft::sim::SimEnv::env(0).mono().0
}

impl Trace {
    pub fn new(env: Env, on: bool) -> Trace {
        let start = env.mono();
        Trace { env, start, lines: on.then(Arc::default) }
    }

    /// Virtual time since the run began.
    pub fn now(&self) -> Duration {
        self.env.mono() - self.start
    }

    pub fn line(&self, text: impl FnOnce() -> String) {
        let Some(lines) = &self.lines else { return };
        let at = self.now();
        let mut lines = lines.lock();
        if lines.len() < MAX_LINES {
            lines.push(format!("{:>5}.{:06} {}", at.as_secs(), at.subsec_micros(), text()));
        }
    }

    pub fn take(&self) -> Vec<String> {
        self.lines.as_ref().map(|l| std::mem::take(&mut *l.lock())).unwrap_or_default()
    }
}
