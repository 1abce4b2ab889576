//! Metrics of the HTTP layer, under upstream's names.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct VerbLabels {
    pub verb: String,
    pub resource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct KindLabels {
    pub request_kind: &'static str,
}

/// Cheap to clone; every clone counts into the same numbers. Label values come
/// from known resources only, so that their number is bounded.
#[derive(Clone)]
pub struct Metrics {
    pub requests: Family<RequestLabels, Counter<u64, AtomicU64>>,
    pub duration: Family<VerbLabels, Histogram, fn() -> Histogram>,
    pub inflight: Family<KindLabels, Gauge>,
    pub watchers: Family<VerbLabels, Gauge>,
    pub long_running: Family<VerbLabels, Gauge>,
    pub rejected: Family<KindLabels, Counter>,
}

fn buckets() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Metrics {
        let m = Metrics {
            requests: Family::default(),
            duration: Family::new_with_constructor(buckets as fn() -> Histogram),
            inflight: Family::default(),
            watchers: Family::default(),
            long_running: Family::default(),
            rejected: Family::default(),
        };
        registry.register("apiserver_request", "Requests by verb, resource and code", m.requests.clone());
        registry.register("apiserver_request_duration_seconds", "Response latency in seconds", m.duration.clone());
        registry.register("apiserver_current_inflight_requests", "Requests being served now", m.inflight.clone());
        registry.register("apiserver_registered_watchers", "Watches open now", m.watchers.clone());
        registry.register("apiserver_longrunning_requests", "Long-running requests open now", m.long_running.clone());
        registry.register("apiserver_dropped_requests", "Requests refused with 429", m.rejected.clone());
        m
    }
}
