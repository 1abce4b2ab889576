//! What a listener puts up with, and the count of what it did not.
//!
//! A client that is slow or silent holds one connection for a bounded time,
//! and nothing else: no place among the requests that are served, and no
//! memory beyond the connection's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Bounds of one listener.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Connections at a time.
    pub connections: usize,
    /// A TLS handshake that takes longer is given up.
    pub handshake: Duration,
    /// A request head that takes longer is given up, as is a connection
    /// without one.
    pub head: Duration,
    /// A client that takes nothing for so long is dropped.
    pub stalled: Duration,
    pub seen: Connections,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connections: 20_000,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            stalled: Duration::from_secs(60),
            seen: Connections::new("other"),
        }
    }
}

impl Bounds {
    /// The defaults, counted under this listener's name.
    pub fn counted(seen: Connections) -> Bounds {
        Bounds { seen, ..Bounds::default() }
    }
}

/// Why a connection was not served, or not any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There are too many.
    Limit,
    /// TLS was not agreed on, or not in time.
    Handshake,
    /// No request came in time.
    Head,
    /// The client does not read.
    Stalled,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Refusal::Limit => "limit",
            Refusal::Handshake => "handshake",
            Refusal::Head => "head",
            Refusal::Stalled => "stalled",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OpenLabels {
    listener: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabels {
    listener: &'static str,
    reason: &'static str,
}

/// The connections of one listener, counted. Clones count into the same numbers.
#[derive(Clone, Debug)]
pub struct Connections {
    listener: &'static str,
    open: Family<OpenLabels, Gauge>,
    refused: Family<RefusedLabels, Counter>,
    /// The limit was reached and said so.
    full: Arc<AtomicBool>,
}

impl Connections {
    /// Counts that nobody reads yet; see [`Connections::register`].
    pub fn new(listener: &'static str) -> Connections {
        Connections { listener, open: Family::default(), refused: Family::default(), full: Arc::default() }
    }

    /// Makes `/metrics` show the counts, of this listener and those that are
    /// made from it by [`Connections::of`].
    pub fn register(self, registry: &mut Registry) -> Connections {
        registry.register("triarch_connections", "Connections open now", self.open.clone());
        registry.register("triarch_connections_refused", "Connections not served, by reason", self.refused.clone());
        self
    }

    /// Another listener's, in the same metrics.
    pub fn of(&self, listener: &'static str) -> Connections {
        Connections { listener, full: Arc::default(), ..self.clone() }
    }

    pub(crate) fn opened(&self) -> Opened {
        let gauge = self.open.get_or_create_owned(&OpenLabels { listener: self.listener });
        gauge.inc();
        Opened(gauge)
    }

    pub fn refuse(&self, why: Refusal) {
        let labels = RefusedLabels { listener: self.listener, reason: why.as_str() };
        self.refused.get_or_create(&labels).inc();
    }

    /// How many were refused for this reason.
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused.get_or_create(&RefusedLabels { listener: self.listener, reason: why.as_str() }).get()
    }

    /// Whether this is the first refusal since there was room: worth a line in the log.
    pub(crate) fn is_news(&self, full: bool) -> bool {
        self.full.swap(full, Ordering::Relaxed) != full
    }
}

/// Counts one connection for as long as it lives.
pub(crate) struct Opened(Gauge);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.dec();
    }
}
