//! Counters of the log. Plain atomics: whoever exports metrics reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Called with the duration of each sync, on the driver.
pub type ObserveFsync = Arc<dyn Fn(Duration) + Send + Sync>;

/// What the log did since it was opened.
#[derive(Debug, Default)]
pub struct WalMetrics {
    pub fsyncs: AtomicU64,
    /// Write calls, and bytes in them.
    pub writes: AtomicU64,
    pub bytes: AtomicU64,
    /// Groups, and commands in them: their ratio is what group commit gains.
    pub groups: AtomicU64,
    pub commands: AtomicU64,
    /// Segment files now.
    pub segments: AtomicU64,
    /// The last sync, nanoseconds.
    pub last_fsync_nanos: AtomicU64,
}

impl WalMetrics {
    pub(crate) fn synced(&self, took: Duration, observe: Option<&ObserveFsync>) {
        self.last_fsync_nanos.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        if let Some(observe) = observe {
            observe(took);
        }
    }
}
