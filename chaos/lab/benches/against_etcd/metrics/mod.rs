//! What is measured: one file each, one line in the list each.

mod create;
mod loaded;
mod puts;
mod ranges;
pub mod serial;
mod watch_delivery;
mod watch_events;
mod watchers_idle;

use futures::future::BoxFuture;

use crate::round::Round;

/// Room for a million keys of 1 KiB with their history.
pub const ETCD_QUOTA: &str = "--quota-backend-bytes=8589934592";

/// One of them. It adds its figures to the round.
pub struct Metric {
    pub name: &'static str,
    /// Part of `--quick`.
    pub quick: bool,
    /// Loads a million keys: measured once a system.
    pub loads: bool,
    /// The figure that tells what one of it costs the servers; empty: none does.
    pub cpu: &'static str,
    pub measure: for<'a> fn(&'a mut Round) -> BoxFuture<'a, anyhow::Result<()>>,
}

/// In the order in which they are measured on one cluster.
pub const METRICS: &[Metric] = &[
    Metric { name: "puts", quick: true, loads: false, cpu: "put_cpu_us", measure: |r| Box::pin(puts::measure(r)) },
    Metric { name: "serial", quick: true, loads: false, cpu: "", measure: |r| Box::pin(serial::measure(r)) },
    Metric {
        name: "create",
        quick: false,
        loads: false,
        cpu: "create_cpu_us",
        measure: |r| Box::pin(create::measure(r)),
    },
    Metric {
        name: "ranges",
        quick: false,
        loads: false,
        cpu: "range_cpu_us",
        measure: |r| Box::pin(ranges::measure(r)),
    },
    Metric {
        name: "watch_events",
        quick: true,
        loads: false,
        cpu: "watch_event_cpu_us",
        measure: |r| Box::pin(watch_events::measure(r)),
    },
    Metric {
        name: "watch_delivery",
        quick: false,
        loads: false,
        cpu: "watch_delivery_cpu_us",
        measure: |r| Box::pin(watch_delivery::apart(r)),
    },
    Metric {
        name: "shared_watch_delivery",
        quick: false,
        loads: false,
        cpu: "shared_watch_delivery_cpu_us",
        measure: |r| Box::pin(watch_delivery::shared(r)),
    },
    Metric {
        name: "watchers_idle",
        quick: false,
        loads: false,
        cpu: "",
        measure: |r| Box::pin(watchers_idle::measure(r)),
    },
    Metric { name: "loaded", quick: false, loads: true, cpu: "", measure: |r| Box::pin(loaded::measure(r)) },
];

/// Clients and bytes of the values of concurrent writes.
const SHAPES: [(usize, usize); 4] = [(64, 256), (64, 1024), (256, 256), (256, 1024)];
