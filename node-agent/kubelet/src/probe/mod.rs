//! Probes: what a container says about itself.
//!
//! `Tracker` is the pure half (thresholds); `worker` runs one task for each
//! probe of each running container and tells the pod's worker when a result
//! turns. Probes are made from the agent's own process, which lives in the
//! node's network namespace: a dial to a pod address from anywhere else could
//! be answered by a stranger.

mod tracker;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

pub use tracker::{Tracker, Turn};
pub use worker::{ProbeTasks, Verdict, resolve_http as resolve};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// One probe's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure(String),
    /// The probe itself could not be made: counts for nothing.
    Unknown(String),
}

/// Results that count now, by container id. A new container has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    started: BTreeSet<String>,
    ready: BTreeSet<String>,
}

impl Results {
    pub fn started(&self, id: &str) -> bool {
        self.started.contains(id)
    }

    pub fn ready(&self, id: &str) -> bool {
        self.ready.contains(id)
    }

    pub fn set_started(&mut self, id: &str) {
        self.started.insert(id.to_owned());
    }

    pub fn set_ready(&mut self, id: &str, ready: bool) {
        match ready {
            true => self.ready.insert(id.to_owned()),
            false => self.ready.remove(id),
        };
    }

    /// Forgets containers that no longer run.
    pub fn retain(&mut self, live: impl Fn(&str) -> bool) {
        self.started.retain(|id| live(id));
        self.ready.retain(|id| live(id));
    }
}

/// A request of a probe or a hook, with names already resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    pub scheme: String,
    pub host: String,
    pub port: u16,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

/// Dials made inside the node; the hollow agent's always succeed.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    async fn http(&self, request: &HttpRequest, limit: Duration) -> Outcome;
    async fn tcp(&self, host: &str, port: u16, limit: Duration) -> Outcome;
    async fn grpc(&self, host: &str, port: u16, service: &str, limit: Duration) -> Outcome;
}

/// For simulated nodes: everything answers.
#[derive(Debug, Default)]
pub struct HollowDialer;

#[async_trait]
impl Dialer for HollowDialer {
    async fn http(&self, _request: &HttpRequest, _limit: Duration) -> Outcome {
        Outcome::Success
    }
    async fn tcp(&self, _host: &str, _port: u16, _limit: Duration) -> Outcome {
        Outcome::Success
    }
    async fn grpc(&self, _host: &str, _port: u16, _service: &str, _limit: Duration) -> Outcome {
        Outcome::Success
    }
}

/// `host:port`, with brackets round an IPv6 address.
pub fn host_port(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}
