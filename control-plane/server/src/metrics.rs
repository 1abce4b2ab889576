//! The store's figures in `/metrics`.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use triarch_raft::{Counters, Latencies, LatencyFigures, Queues, RaftDb};
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

/// Registers the store's counters (`triarch_store_<name>_total`), latencies
/// and queue lengths. They are read when somebody asks, not kept twice.
pub fn store(registry: &Arc<Mutex<Registry>>, db: &Arc<RaftDb>) {
    let weak = Arc::downgrade(db);
    let queues = move || Weak::upgrade(&weak).map(|db| db.queues()).unwrap_or_default();
    let store = Store { counters: db.counters().clone(), latencies: db.latencies().clone(), queues: Box::new(queues) };
    registry.lock().register_collector(Box::new(store));
}

struct Store {
    counters: Arc<Counters>,
    latencies: Arc<Latencies>,
    queues: Box<dyn Fn() -> Queues + Send + Sync>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Collector for Store {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, value) in self.counters.values() {
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
        let latencies = [
            ("commit", "Time from a proposal to its answer, of those with an outcome", &self.latencies.commit),
            ("apply", "Time that applying one entry to memory took", &self.latencies.apply),
        ];
        for (name, help, latency) in latencies {
            let name = format!("triarch_store_{name}_duration_seconds");
            let mut one = encoder.encode_descriptor(&name, help, None, MetricType::Histogram)?;
            let LatencyFigures { seconds, count, buckets } = latency.figures();
            one.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)?;
        }
        let queues = (self.queues)();
        let gauges = [
            ("proposals_queued", "Transactions that wait for a place in a batch", queues.proposals as i64),
            ("proposals_queued_bytes", "Bytes of those", queues.proposal_bytes as i64),
            ("proposals_unanswered", "Transactions without an answer yet", queues.unanswered as i64),
            ("apply_queue_entries", "Entries committed and not yet applied here", queues.apply as i64),
        ];
        for (name, help, value) in gauges {
            let metric = ConstGauge::new(value);
            let name = format!("triarch_store_{name}");
            let one = encoder.encode_descriptor(&name, help, None, metric.metric_type())?;
            metric.encode(one)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_and_queues_are_shown_beside_the_counters() {
        let queues = || Queues { proposals: 3, proposal_bytes: 900, unanswered: 5, apply: 2 };
        let store = Store { counters: Arc::default(), latencies: Arc::default(), queues: Box::new(queues) };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(store));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "triarch_store_commits_total 0",
            "# TYPE triarch_store_commit_duration_seconds histogram",
            "triarch_store_commit_duration_seconds_bucket{le=\"+Inf\"} 0",
            "triarch_store_apply_duration_seconds_count 0",
            "triarch_store_proposals_queued 3",
            "triarch_store_proposals_queued_bytes 900",
            "triarch_store_proposals_unanswered 5",
            "triarch_store_apply_queue_entries 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
    }
}
