//! The task of one pod: look, decide, act, report, wait.
//!
//! A worker waits for nobody but the runtime: reports are handed over without
//! waiting, and a pod that is to stop interrupts whatever is being started.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use triarch_env::Wall;

use super::actions::{self, Kill, Plan, Start};
use super::memory::Memory;
use super::slot::Slot;
use super::status::{self, NodeFacts};
use super::{container, env, images, qos, stop};
use crate::model::{Pod, PodStatus, Waiting};
use crate::ports::{NodeContext, Note};
use crate::probe::ProbeTasks;
use crate::runtime::{Observed, Phase, SandboxSpec};

/// Plans carried out in a row before the worker waits.
const ROUNDS: usize = 16;
/// With nothing due, a pod is looked at again after this time.
const IDLE: Duration = Duration::from_secs(90);
/// After an error that only time or a new object mends.
const RETRY: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Dead runs of a container that are kept, for their logs and last state.
const KEEP_DEAD: usize = 1;

/// Runs until the pod is gone from the node and, unless it was removed from the
/// assignment, its end has been reported. A pod that is `rejected` fails at
/// once with this reason and message.
pub async fn run(ctx: NodeContext, slot: Arc<Slot>, rejected: Option<(String, String)>) {
    let (pod, _) = slot.get();
    let last = pod.status.clone();
    let mut worker = Worker {
        probes: ProbeTasks::new(slot.wake.clone()),
        facts: NodeFacts { ips: ctx.config.ips.clone(), runtime: ctx.config.runtime_name.clone() },
        ctx,
        slot: slot.clone(),
        memory: Memory {
            ips: last.pod_ips.iter().map(|ip| ip.ip.clone()).collect(),
            failed: rejected,
            ..Default::default()
        },
        retry: RETRY_FIRST,
        reported: false,
        last,
    };
    if let Some((_, message)) = &worker.memory.failed {
        worker.note(&pod, true, "NodePorts", message.clone(), "");
    }
    drop(pod);
    loop {
        let (pod, removed) = slot.get();
        if removed || pod.is_deleted() {
            break;
        }
        // Boxed: what a step needs is freed while the pod rests, and most of
        // a node's pods rest most of the time.
        let wait = match slot.stopping.clone().run(Box::pin(worker.sync(&pod))).await {
            Some(wait) => wait,
            None => continue,
        };
        let sleep = worker.ctx.env.sleep(wait);
        let woken = std::pin::pin!(slot.wake.notified());
        futures::future::select(woken, sleep).await;
    }
    Box::pin(worker.end()).await;
}

struct Worker {
    ctx: NodeContext,
    slot: Arc<Slot>,
    memory: Memory,
    last: PodStatus,
    probes: ProbeTasks,
    facts: NodeFacts,
    retry: Duration,
    reported: bool,
}

impl Worker {
    fn note(&self, pod: &Pod, warning: bool, reason: &'static str, message: String, container: &str) {
        let field_path = if container.is_empty() { String::new() } else { pod.field_path(container) };
        self.ctx.reporter.event(pod, Note { warning, reason, message, field_path });
    }

    fn backing_off(&mut self) -> Duration {
        let now = self.retry;
        self.retry = (self.retry * 2).min(RETRY_MAX);
        self.ctx.env.jitter(now, 10)
    }

    /// The runtime's view, with the messages that ended containers left.
    async fn observe(&mut self, pod: &Arc<Pod>) -> Result<Observed, crate::runtime::RuntimeError> {
        let mut seen = self.ctx.runtime.observe(&pod.metadata.uid).await?;
        for c in seen.containers.iter_mut().filter(|c| c.phase == Phase::Exited && c.message.is_empty()) {
            let from_log = c.exit_code != 0
                && pod.container(&c.name).is_some_and(|s| s.termination_message_policy == "FallbackToLogsOnError");
            c.message = self.ctx.host.termination_message(pod, &c.name, c.restart_count, from_log);
        }
        if let Some(s) = seen.sandbox().filter(|s| s.ready && !s.ips.is_empty()) {
            self.memory.ips.clone_from(&s.ips);
        }
        self.probes.reconcile(&self.ctx, pod, &seen);
        let verdict = self.probes.verdict.lock();
        self.memory.probes.clone_from(&verdict.results);
        self.memory.condemned.clone_from(&verdict.condemned);
        Ok(seen)
    }

    fn report(&mut self, pod: &Pod, seen: &Observed, stopped: bool, terminated: bool) {
        let now = self.ctx.env.wall();
        let status = status::generate(pod, seen, &self.memory, &self.facts, &self.last, stopped, now);
        if status != self.last || !self.reported || terminated {
            // Shown first: whoever hears of it may look at once.
            self.slot.show(&status, terminated);
            self.ctx.reporter.status(pod, &status, terminated);
            self.reported = true;
            self.last = status;
        }
    }

    /// Brings the pod as far as it goes now; says when to look again.
    async fn sync(&mut self, pod: &Arc<Pod>) -> Duration {
        if self.memory.start_time.is_none() {
            let known = self.last.start_time.clone();
            self.memory.start_time = Some(known.unwrap_or_else(|| self.ctx.env.wall().rfc3339()));
        }
        let mut wait = IDLE;
        for _ in 0..ROUNDS {
            let seen = match self.observe(pod).await {
                Ok(seen) => seen,
                Err(e) => {
                    tracing::warn!(pod = %pod.full_name(), error = %e, "cannot look at the pod");
                    return self.backing_off();
                }
            };
            if self.overdue(pod, &mut wait) || self.memory.failed.is_some() || self.last.is_terminal() {
                return self.finish(pod, seen).await;
            }
            let mounted = match self.ctx.host.set_up(pod).await {
                Ok(mounted) => mounted,
                Err(e) => {
                    let message = match &e.volume {
                        Some(volume) => format!("MountVolume.SetUp failed for volume \"{volume}\" : {}", e.message),
                        None => e.message.clone(),
                    };
                    self.note(pod, true, "FailedMount", message, "");
                    if seen.running().next().is_none() {
                        self.report(pod, &seen, false, false);
                        return self.backing_off();
                    }
                    // What runs goes on with what it has.
                    Default::default()
                }
            };
            self.memory.volumes_ready = true;
            if let Some(refresh) = mounted.refresh {
                wait = wait.min(refresh);
            }
            let plan = actions::compute(pod, &seen, &self.memory, self.ctx.env.wall());
            self.remember_waits(pod, &plan);
            self.report(pod, &seen, false, false);
            if plan.finished {
                return self.finish(pod, seen).await;
            }
            wait = plan.wake.map_or(wait, |w| wait.min(w + Duration::from_millis(20)));
            if plan.is_idle() {
                self.retry = RETRY_FIRST;
                self.prune(pod, &seen).await;
                return wait;
            }
            if let Err(delay) = self.act(pod, &seen, &plan, &mounted.paths).await {
                if let Ok(seen) = self.observe(pod).await {
                    self.report(pod, &seen, false, false);
                }
                return wait.min(delay);
            }
        }
        Duration::from_secs(1)
    }

    /// Whether the pod has outlived spec.activeDeadlineSeconds.
    fn overdue(&mut self, pod: &Pod, wait: &mut Duration) -> bool {
        let (Some(limit), Some(start)) = (pod.spec.active_deadline_seconds, &self.memory.start_time) else {
            return false;
        };
        let Ok(start) = start.parse::<jiff::Timestamp>() else { return false };
        let left = start.as_second().saturating_add(limit).saturating_sub(self.ctx.env.wall().secs());
        if left > 0 {
            *wait = (*wait).min(Duration::from_secs(left.unsigned_abs()));
            return false;
        }
        if self.memory.failed.is_none() {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            self.note(pod, false, "DeadlineExceeded", message.clone(), "");
            self.memory.failed = Some(("DeadlineExceeded".into(), message));
        }
        true
    }

    /// Stops what still runs of a pod whose phase is (or now becomes) final.
    async fn finish(&mut self, pod: &Arc<Pod>, seen: Observed) -> Duration {
        let busy = seen.running().next().is_some() || seen.sandboxes.iter().any(|s| s.ready);
        let seen = if busy {
            let grace = Duration::from_secs(pod.grace_seconds());
            if let Err(e) = stop::pod(&self.ctx, pod, &seen, grace).await {
                tracing::warn!(pod = %pod.full_name(), error = %e, "cannot stop the finished pod");
                return self.backing_off();
            }
            match self.observe(pod).await {
                Ok(after) => after,
                Err(_) => return self.backing_off(),
            }
        } else {
            seen
        };
        self.memory.waiting.clear();
        self.report(pod, &seen, true, false);
        IDLE * 40
    }

    fn remember_waits(&mut self, pod: &Pod, plan: &Plan) {
        let backing_off: BTreeMap<&str, Duration> = plan.backing_off.iter().map(|(n, d)| (n.as_str(), *d)).collect();
        self.memory.waiting.retain(|n, w| w.reason != "CrashLoopBackOff" || backing_off.contains_key(n.as_str()));
        for (name, delay) in &plan.backing_off {
            let message = actions::back_off_message(pod, name, *delay);
            let known = self.memory.waiting.get(name).is_some_and(|w| w.message == message);
            if !known {
                let text = format!("Back-off restarting failed container {name} in pod {}", pod.full_name());
                self.note(pod, true, "BackOff", text, name);
            }
            self.memory.waiting.insert(name.clone(), Waiting { reason: "CrashLoopBackOff".into(), message });
        }
    }

    /// Carries a plan out; an error says when to try again.
    async fn act(
        &mut self,
        pod: &Arc<Pod>,
        seen: &Observed,
        plan: &Plan,
        volumes: &BTreeMap<String, PathBuf>,
    ) -> Result<(), Duration> {
        if plan.kill_pod {
            if !seen.sandboxes.is_empty() {
                let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
                self.note(pod, false, "SandboxChanged", message, "");
            }
            let grace = Duration::from_secs(pod.grace_seconds());
            if stop::pod(&self.ctx, pod, seen, grace).await.is_err() {
                return Err(self.backing_off());
            }
        }
        for kill in &plan.kill {
            self.kill(pod, seen, kill).await?;
        }
        let (sandbox, ips, spec) = self.sandbox(pod, seen, plan).await?;
        let mut failed = None;
        for start in &plan.start {
            match self.start(pod, start, &sandbox, &ips, &spec, volumes).await {
                Ok(()) => drop(self.memory.waiting.remove(&start.name)),
                Err(w) => {
                    let image = pod.container(&start.name).map(|c| c.image.as_str()).unwrap_or_default();
                    let now = self.ctx.env.wall();
                    let pull = self.memory.pull_errors.get(image).map(|(when, _)| *when);
                    let left = pull.and_then(|when| self.memory.pulls.waiting(image, when, now)).map(|(_, left)| left);
                    let due = if w.reason == "ErrImagePull" { super::images::SHOWN } else { left.unwrap_or(RETRY) };
                    failed = Some(failed.map_or(due, |f: Duration| f.min(due)));
                    self.memory.waiting.insert(start.name.clone(), w);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn kill(&mut self, pod: &Arc<Pod>, seen: &Observed, kill: &Kill) -> Result<(), Duration> {
        let Some(info) = seen.containers.iter().find(|c| c.id == kill.id) else { return Ok(()) };
        let ip = seen.sandbox().and_then(|s| s.ips.first().cloned()).unwrap_or_default();
        let grace = Duration::from_secs(pod.grace_seconds());
        match stop::container(&self.ctx, pod, info, &ip, grace, Some(&kill.message)).await {
            Ok(()) => {
                self.probes.verdict.lock().condemned.remove(&kill.id);
                Ok(())
            }
            Err(_) => Err(self.backing_off()),
        }
    }

    /// The sandbox in force, made when the plan says so.
    async fn sandbox(
        &mut self,
        pod: &Arc<Pod>,
        seen: &Observed,
        plan: &Plan,
    ) -> Result<(String, Vec<String>, SandboxSpec), Duration> {
        let attempt = plan.sandbox.or(seen.sandbox().map(|s| s.attempt)).unwrap_or(0);
        let (logs, of_node) = (self.ctx.host.log_directory(pod), self.ctx.host.resolv_conf());
        let spec = container::sandbox(pod, attempt, &self.ctx.config, logs, of_node);
        if plan.sandbox.is_none()
            && let Some(s) = seen.sandbox()
        {
            return Ok((s.id.clone(), s.ips.clone(), spec));
        }
        let id = match self.ctx.runtime.run_sandbox(&spec).await {
            Ok(id) => id,
            Err(e) => {
                let message = format!("Failed to create pod sandbox: {e}");
                self.note(pod, true, "FailedCreatePodSandBox", message, "");
                return Err(self.backing_off());
            }
        };
        let after = self.observe(pod).await.map_err(|_| RETRY_FIRST)?;
        self.report(pod, &after, false, false);
        let ips = after.sandboxes.iter().find(|s| s.id == id).map(|s| s.ips.clone()).unwrap_or_default();
        Ok((id, ips, spec))
    }

    /// Starts one container, or says why it waits.
    async fn start(
        &mut self,
        pod: &Arc<Pod>,
        start: &Start,
        sandbox: &str,
        ips: &[String],
        of: &SandboxSpec,
        volumes: &BTreeMap<String, PathBuf>,
    ) -> Result<(), Waiting> {
        let Some(c) = pod.container(&start.name) else { return Ok(()) };
        let fail = |me: &Self, reason: &str, message: String| {
            me.note(pod, true, "Failed", format!("Error: {message}"), &c.name);
            Err(Waiting { reason: reason.to_owned(), message })
        };
        if let Some(end) = start.last_end {
            let now = self.ctx.env.wall();
            self.memory.restarts.next(&c.name, end, now);
        }
        let image = images::ensure(&self.ctx, pod, c, &mut self.memory).await?;
        let node = self.ctx.config.clone();
        let own = if pod.spec.host_network { node.ips.as_slice() } else { ips };
        let env = match env::build(pod, c, own, &node, &*self.ctx.objects) {
            Ok(env) => env,
            Err(e) => return fail(self, "CreateContainerConfigError", e.to_string()),
        };
        let host = self.ctx.host.clone();
        let made = || {
            let hosts = match pod.spec.host_network {
                true => None,
                false => host.hosts_file(pod, &container::hosts_file(pod, ips, &node))?,
            };
            let termination_log = host.termination_log(pod, &c.name, start.restart_count)?;
            let restart_count = start.restart_count;
            let inputs = container::Inputs {
                pod,
                container: c,
                restart_count,
                env,
                volumes,
                hosts,
                termination_log,
                image: &image,
                node: &node,
            };
            container::container(inputs, &|base, sub| host.sub_path(base, sub))
        };
        let spec = match made() {
            Ok(spec) => spec,
            Err(e) => return fail(self, "CreateContainerConfigError", e.to_string()),
        };
        let id = match self.ctx.runtime.create_container(sandbox, &spec, of).await {
            Ok(id) => id,
            Err(e) => return fail(self, "CreateContainerError", e.to_string()),
        };
        self.note(pod, false, "Created", "Container created".into(), &c.name);
        if let Err(e) = self.ctx.runtime.start_container(&id).await {
            return fail(self, "RunContainerError", e.to_string());
        }
        self.note(pod, false, "Started", "Container started".into(), &c.name);
        let hook = c.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        if let Some(handler) = hook {
            let ip = own.first().cloned().unwrap_or_default();
            if let Err(e) = stop::hook(&self.ctx, c, handler, &id, &ip, Duration::from_secs(3600)).await {
                tracing::debug!(container = %c.name, error = %e, "postStart");
                self.note(pod, true, "FailedPostStartHook", "PostStartHook failed".into(), &c.name);
                let grace = Duration::from_secs(pod.grace_seconds());
                let message = Some("FailedPostStartHook");
                let info = crate::runtime::ContainerInfo { id, name: c.name.clone(), ..Default::default() };
                let _ = stop::container(&self.ctx, pod, &info, &ip, grace, message).await;
                return Err(Waiting { reason: "PostStartHookError".into(), message: "PostStartHook failed".into() });
            }
        }
        Ok(())
    }

    /// Removes dead runs beyond what logs and the last state need, and
    /// sandboxes that nothing is left of.
    async fn prune(&mut self, pod: &Pod, seen: &Observed) {
        let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
        let mut held = std::collections::BTreeSet::new();
        for c in &seen.containers {
            let count = kept.entry(c.name.as_str()).or_default();
            *count += 1;
            let newest = *count == 1;
            if newest || *count <= KEEP_DEAD + 1 || c.phase != Phase::Exited {
                held.insert(c.sandbox.as_str());
                continue;
            }
            if self.ctx.runtime.remove_container(&c.id).await.is_ok() {
                self.ctx.host.remove_log(pod, &c.name, c.restart_count);
            }
        }
        for s in seen.sandboxes.iter().skip(1).filter(|s| !s.ready && !held.contains(s.id.as_str())) {
            let _ = self.ctx.runtime.remove_sandbox(&s.id).await;
        }
    }

    /// Stops the pod for good and cleans the node of it.
    async fn end(&mut self) {
        self.retry = RETRY_FIRST;
        loop {
            match self.try_end().await {
                Ok(()) => return,
                Err(text) => {
                    let (pod, _) = self.slot.get();
                    tracing::warn!(pod = %pod.full_name(), error = %text, "cannot end the pod yet");
                    let delay = self.backing_off();
                    self.ctx.env.sleep(delay).await;
                }
            }
        }
    }

    async fn try_end(&mut self) -> Result<(), String> {
        let (pod, removed) = self.slot.get();
        let text = |e: crate::runtime::RuntimeError| e.to_string();
        let seen = self.observe(&pod).await.map_err(text)?;
        self.memory.waiting.clear();
        if !removed && seen.running().next().is_some() {
            self.report(&pod, &seen, false, false);
        }
        self.stop_with_grace(&pod, &seen).await?;
        let seen = self.observe(&pod).await.map_err(text)?;
        let (_, removed) = self.slot.get();
        if !removed {
            self.report(&pod, &seen, true, false);
        }
        stop::remove(&self.ctx, &seen).await.map_err(text)?;
        let parent = qos::cgroup_parent(&self.ctx.config.cgroup_root, &pod);
        self.ctx.host.clean_up(&pod, &parent).await.map_err(|e| e.to_string())?;
        let (pod, removed) = self.slot.get();
        if !removed {
            self.report(&pod, &seen, true, true);
        }
        Ok(())
    }

    /// Stops everything; a later, shorter grace period takes effect at once.
    async fn stop_with_grace(&mut self, pod: &Arc<Pod>, seen: &Observed) -> Result<(), String> {
        let mut grace = pod.grace_seconds();
        loop {
            let ctx = self.ctx.clone();
            let stopping = std::pin::pin!(stop::pod(&ctx, pod, seen, Duration::from_secs(grace)));
            let shorter = std::pin::pin!(shorter_grace(&self.slot, grace));
            match futures::future::select(stopping, shorter).await {
                futures::future::Either::Left((done, _)) => return done.map_err(|e| e.to_string()),
                futures::future::Either::Right((less, _)) => grace = less,
            }
        }
    }
}

async fn shorter_grace(slot: &Slot, than: u64) -> u64 {
    loop {
        slot.wake.notified().await;
        let (pod, _) = slot.get();
        if pod.is_deleted() && pod.grace_seconds() < than {
            return pod.grace_seconds();
        }
    }
}

/// When a container of the pod last changed; used to tell a changed pod apart.
pub fn fingerprint(seen: &Observed) -> Vec<(String, Phase, Wall)> {
    let mut all: Vec<_> = seen.containers.iter().map(|c| (c.id.clone(), c.phase, c.finished)).collect();
    all.extend(
        seen.sandboxes
            .iter()
            .map(|s| (s.id.clone(), if s.ready { Phase::Running } else { Phase::Exited }, Wall::default())),
    );
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}
