//! One task for each probe of each running container.
//!
//! Results go into the pod's [`Results`] and wake its worker; a failed
//! liveness or startup probe condemns the container and lets the worker kill it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use triarch_env::{Scope, Wall};

use super::{HttpRequest, Kind, Outcome, Results, Tracker, Turn};
use crate::model::{Container, Pod, Probe};
use crate::ports::{NodeContext, Note};
use crate::runtime::{ContainerInfo, Observed};

/// Longest output of a probe that is shown in an event.
const MAX_OUTPUT: usize = 10 * 1024;

/// What the probes of a pod have found, shared with the pod's worker.
#[derive(Debug, Default)]
pub struct Verdict {
    pub results: Results,
    /// Containers to kill, by id, with the message for the event.
    pub condemned: BTreeMap<String, String>,
}

/// The running probe tasks of one pod.
#[derive(Debug)]
pub struct ProbeTasks {
    scope: Scope,
    tasks: BTreeMap<(String, Kind), Scope>,
    pub verdict: Arc<Mutex<Verdict>>,
    wake: Arc<Notify>,
}

impl Drop for ProbeTasks {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

impl ProbeTasks {
    pub fn new(wake: Arc<Notify>) -> ProbeTasks {
        ProbeTasks { scope: Scope::new(), tasks: BTreeMap::new(), verdict: Arc::default(), wake }
    }

    /// Starts tasks for containers that now run, ends those of others.
    pub fn reconcile(&mut self, ctx: &NodeContext, pod: &Arc<Pod>, seen: &Observed) {
        let running: BTreeMap<&str, &ContainerInfo> = seen.running().map(|c| (c.id.as_str(), c)).collect();
        self.tasks.retain(|(id, _), scope| {
            let keep = running.contains_key(id.as_str());
            if !keep {
                scope.cancel();
            }
            keep
        });
        {
            let mut verdict = self.verdict.lock();
            verdict.results.retain(|id| running.contains_key(id));
            verdict.condemned.retain(|id, _| running.contains_key(id.as_str()));
        }
        for (c, init) in pod.all_containers() {
            if init && !c.is_sidecar(init) {
                continue;
            }
            let Some(info) = seen.container(&c.name).filter(|s| running.contains_key(s.id.as_str())) else { continue };
            let kinds = [
                (Kind::Startup, &c.startup_probe),
                (Kind::Liveness, &c.liveness_probe),
                (Kind::Readiness, &c.readiness_probe),
            ];
            for (kind, probe) in kinds {
                let Some(probe) = probe else { continue };
                let key = (info.id.clone(), kind);
                if self.tasks.contains_key(&key) {
                    continue;
                }
                let scope = self.scope.child();
                self.tasks.insert(key, scope.clone());
                let task = Task {
                    ctx: ctx.clone(),
                    pod: pod.clone(),
                    container: c.clone(),
                    id: info.id.clone(),
                    started: info.started,
                    ip: match pod.spec.host_network {
                        true => ctx.config.ips.first().cloned().unwrap_or_default(),
                        false => seen.sandbox().and_then(|s| s.ips.first().cloned()).unwrap_or_default(),
                    },
                    kind,
                    probe: probe.clone(),
                    verdict: self.verdict.clone(),
                    wake: self.wake.clone(),
                };
                ctx.env.spawn_in(&scope, "probe", task.run());
            }
        }
    }
}

struct Task {
    ctx: NodeContext,
    pod: Arc<Pod>,
    container: Container,
    id: String,
    started: Wall,
    ip: String,
    kind: Kind,
    probe: Probe,
    verdict: Arc<Mutex<Verdict>>,
    wake: Arc<Notify>,
}

impl Task {
    async fn run(self) {
        let env = &self.ctx.env;
        let mut tracker = Tracker::new(self.probe.successes(), self.probe.failures());
        // Probes of many containers that came up together do not march in step.
        let period = self.probe.period();
        let first = Duration::from_secs(u64::from(self.probe.initial_delay_seconds));
        let age = Duration::from_micros(u64::try_from(env.wall().micros - self.started.micros).unwrap_or(0));
        let spread = Duration::from_millis(env.random_below(u64::try_from(period.as_millis()).unwrap_or(1000) / 4));
        let early = self.kind != Kind::Liveness;
        env.sleep(first.saturating_sub(age) + if early { Duration::ZERO } else { spread }).await;
        loop {
            let waits = self.kind != Kind::Startup
                && self.container.startup_probe.is_some()
                && !self.verdict.lock().results.started(&self.id);
            if waits {
                env.sleep(Duration::from_millis(500).min(period)).await;
                continue;
            }
            let outcome = self.once().await;
            if let Outcome::Failure(text) | Outcome::Unknown(text) = &outcome {
                let what = if matches!(outcome, Outcome::Failure(_)) { "failed" } else { "errored" };
                let message = format!("{} probe {what}: {text}", self.kind.name());
                self.note("Unhealthy", message);
            }
            match tracker.observe(&outcome) {
                Some(turn) if self.apply(turn) => return,
                _ => {}
            }
            env.sleep(period).await;
        }
    }

    /// Takes a result in; says whether this probe's work is done.
    fn apply(&self, turn: Turn) -> bool {
        let mut verdict = self.verdict.lock();
        let name = &self.container.name;
        let (changed, done) = match (self.kind, turn) {
            (Kind::Startup, Turn::Passed) => {
                verdict.results.set_started(&self.id);
                (true, true)
            }
            (Kind::Readiness, turn) => {
                let ready = turn == Turn::Passed;
                let changed = verdict.results.ready(&self.id) != ready;
                verdict.results.set_ready(&self.id, ready);
                (changed, false)
            }
            (Kind::Liveness, Turn::Passed) => (false, false),
            (kind, Turn::Failed) => {
                let which = if kind == Kind::Startup { "startup" } else { "liveness" };
                let message = format!("Container {name} failed {which} probe, will be restarted");
                verdict.condemned.insert(self.id.clone(), message);
                (true, true)
            }
        };
        drop(verdict);
        if changed {
            self.wake.notify_one();
        }
        done
    }

    fn note(&self, reason: &'static str, message: String) {
        let field_path = self.pod.field_path(&self.container.name);
        self.ctx.reporter.event(&self.pod, Note { warning: true, reason, message, field_path });
    }

    async fn once(&self) -> Outcome {
        let (probe, limit) = (&self.probe, self.probe.timeout());
        let (c, dialer) = (&self.container, &self.ctx.dialer);
        let host = |named: &str| if named.is_empty() { self.ip.clone() } else { named.to_owned() };
        if let Some(exec) = &probe.exec {
            return match self.ctx.runtime.exec(&self.id, &exec.command, limit).await {
                Ok(r) if r.exit_code == 0 => Outcome::Success,
                Ok(r) => Outcome::Failure(clip(&r.output)),
                Err(e) if e.to_string().contains("DeadlineExceeded") => {
                    Outcome::Failure(format!("command timed out: {e}"))
                }
                Err(e) => Outcome::Unknown(e.to_string()),
            };
        }
        if let Some(http) = &probe.http_get {
            return match resolve_http(c, http, &self.ip) {
                Some(request) => dialer.http(&request, limit).await,
                None => Outcome::Unknown(format!("couldn't find port: {:?}", http.port)),
            };
        }
        if let Some(tcp) = &probe.tcp_socket {
            return match c.port(&tcp.port) {
                Some(port) => dialer.tcp(&host(&tcp.host), port, limit).await,
                None => Outcome::Unknown(format!("couldn't find port: {:?}", tcp.port)),
            };
        }
        if let Some(grpc) = &probe.grpc {
            let service = grpc.service.as_deref().unwrap_or_default();
            return dialer.grpc(&self.ip, grpc.port, service, limit).await;
        }
        Outcome::Unknown("missing probe handler".into())
    }
}

/// An httpGet action with its port resolved; `ip` is the pod's.
pub fn resolve_http(c: &Container, http: &crate::model::HttpGet, ip: &str) -> Option<HttpRequest> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for h in http.http_headers.iter().take(64) {
        headers.insert(h.name.to_lowercase(), h.value.clone());
    }
    let path = if http.path.starts_with('/') { http.path.clone() } else { format!("/{}", http.path) };
    Some(HttpRequest {
        scheme: if http.scheme.eq_ignore_ascii_case("https") { "https" } else { "http" }.to_owned(),
        host: if http.host.is_empty() { ip.to_owned() } else { http.host.clone() },
        port: c.port(&http.port)?,
        path,
        headers,
    })
}

fn clip(output: &[u8]) -> String {
    let end = output.len().min(MAX_OUTPUT);
    String::from_utf8_lossy(&output[..end]).into_owned()
}
