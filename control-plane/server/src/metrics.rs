//! The store's figures in `/metrics`.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use triarch_raft::Counters;
use triarch_wal::ObserveFsync;

/// Registers `triarch_wal_fsync_duration_seconds` and returns what feeds it.
pub fn fsync_histogram(registry: &Arc<Mutex<Registry>>) -> ObserveFsync {
    let histogram = Histogram::new(exponential_buckets(0.000_05, 2.0, 16));
    registry.lock().register(
        "triarch_wal_fsync_duration_seconds",
        "Time that one fdatasync of the log took",
        histogram.clone(),
    );
    Arc::new(move |took| histogram.observe(took.as_secs_f64()))
}

/// Registers every counter of the store as `triarch_store_<name>_total`.
pub fn counters(registry: &Arc<Mutex<Registry>>, counters: Arc<Counters>) {
    registry.lock().register_collector(Box::new(StoreCounters(counters)));
}

struct StoreCounters(Arc<Counters>);

impl fmt::Debug for StoreCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreCounters")
    }
}

impl Collector for StoreCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, value) in self.0.values() {
            let metric = ConstCounter::new(value);
            let name = format!("triarch_store_{name}");
            let one = encoder.encode_descriptor(
                &name,
                "Counted by the replicated store since this process started",
                None,
                metric.metric_type(),
            )?;
            metric.encode(one)?;
        }
        Ok(())
    }
}
