//! What has to be done for a pod now: a pure function of what is wanted, what
//! the runtime has and what the agent remembers.
//!
//! Invariant: for a pod at rest the plan is empty, and carrying a plan out
//! never makes a container that the pod's restart policy forbids.

use std::time::Duration;

use triarch_env::Wall;

use super::memory::Memory;
use crate::backoff;
use crate::model::{Container, Pod, RestartPolicy};
use crate::runtime::{ContainerInfo, Observed, Phase};

/// What to do, in this order: kill, sandbox, start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Containers to stop.
    pub kill: Vec<Kill>,
    /// Stop every container and the sandbox first: it is gone or no longer fits.
    pub kill_pod: bool,
    /// Make a sandbox, with this attempt number.
    pub sandbox: Option<u32>,
    /// Containers to start, in order.
    pub start: Vec<Start>,
    /// Containers that wait for their back-off, with the delay in force.
    pub backing_off: Vec<(String, Duration)>,
    /// Look again after this time at the latest.
    pub wake: Option<Duration>,
    /// The pod's containers have all ended for good: stop sidecars and sandbox.
    pub finished: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub name: String,
    pub init: bool,
    /// How often it was started before.
    pub restart_count: u32,
    /// When its last run ended.
    pub last_end: Option<Wall>,
}

/// What to do for `pod` when the runtime has `seen`.
pub fn compute(pod: &Pod, seen: &Observed, memory: &Memory, now: Wall) -> Plan {
    let mut plan = Plan::default();
    let started_before = !seen.containers.is_empty();
    let fit = seen.sandbox().filter(|s| s.ready && (pod.spec.host_network || !s.ips.is_empty()));
    let Some(sandbox) = fit else {
        if started_before && everything_ended(pod, seen) {
            plan.finished = true;
            return plan;
        }
        plan.kill_pod = !seen.sandboxes.is_empty() || seen.running().next().is_some();
        plan.sandbox = Some(seen.sandbox().map_or(0, |s| s.attempt + 1));
        let fresh = Observed { containers: Vec::new(), ..seen.clone() };
        start_next(pod, seen, &fresh, memory, now, &mut plan);
        return plan;
    };
    let mut inside = seen.clone();
    inside.containers.retain(|c| c.sandbox == sandbox.id);
    if started_before && everything_ended(pod, seen) {
        plan.finished = true;
        return plan;
    }
    start_next(pod, seen, &inside, memory, now, &mut plan);
    plan
}

/// Every app container has ended and none is started again, or an init
/// container has failed for good.
pub fn everything_ended(pod: &Pod, seen: &Observed) -> bool {
    if init_failed(pod, seen) {
        return true;
    }
    pod.spec.containers.iter().all(|c| match seen.container(&c.name) {
        Some(s) => s.phase == Phase::Exited && !c.restarts(pod.spec.restart_policy, s.exit_code),
        None => false,
    })
}

/// A regular init container failed and the policy is not to run it again.
pub fn init_failed(pod: &Pod, seen: &Observed) -> bool {
    pod.spec.init_containers.iter().filter(|c| !c.is_sidecar(true)).any(|c| {
        seen.container(&c.name).is_some_and(|s| {
            s.phase == Phase::Exited && s.exit_code != 0 && !restarts_init(c, pod.spec.restart_policy, s.exit_code)
        })
    })
}

/// A failed init container runs again unless the policy is Never.
fn restarts_init(c: &Container, policy: RestartPolicy, exit_code: i32) -> bool {
    c.restarts(if policy == RestartPolicy::Always { RestartPolicy::OnFailure } else { policy }, exit_code)
}

/// Finds the containers to start or stop; `all` counts earlier sandboxes too,
/// `inside` is the sandbox in force.
fn start_next(pod: &Pod, all: &Observed, inside: &Observed, memory: &Memory, now: Wall, plan: &mut Plan) {
    let initialised = pod.spec.containers.iter().any(|c| inside.container(&c.name).is_some());
    for c in &pod.spec.init_containers {
        let state = inside.container(&c.name);
        if c.is_sidecar(true) {
            match state {
                Some(s) if s.phase == Phase::Running => {
                    if let Some(why) = memory.condemned.get(&s.id) {
                        plan.kill.push(kill(c, s, why));
                    } else if !initialised && !is_started(c, s, memory) {
                        return;
                    }
                }
                other => {
                    try_start(c, true, other, all, memory, now, plan);
                    if !initialised {
                        return;
                    }
                }
            }
            continue;
        }
        if initialised {
            continue;
        }
        match state {
            Some(s) if s.phase == Phase::Exited && s.exit_code == 0 => continue,
            Some(s) if s.phase == Phase::Running => return,
            Some(s) if s.phase == Phase::Exited && !restarts_init(c, pod.spec.restart_policy, s.exit_code) => return,
            other => {
                try_start(c, true, other, all, memory, now, plan);
                return;
            }
        }
    }
    for c in &pod.spec.containers {
        match inside.container(&c.name) {
            Some(s) if s.phase == Phase::Running => {
                if let Some(why) = memory.condemned.get(&s.id) {
                    plan.kill.push(kill(c, s, why));
                }
            }
            Some(s) if s.phase == Phase::Exited && !c.restarts(pod.spec.restart_policy, s.exit_code) => {}
            other => {
                // A container that ended for good in an earlier sandbox stays ended.
                let earlier = all.container(&c.name);
                let done = other.is_none()
                    && earlier
                        .is_some_and(|s| s.phase == Phase::Exited && !c.restarts(pod.spec.restart_policy, s.exit_code));
                if !done {
                    try_start(c, false, other, all, memory, now, plan);
                }
            }
        }
    }
}

fn kill(c: &Container, s: &ContainerInfo, why: &str) -> Kill {
    Kill { id: s.id.clone(), name: c.name.clone(), message: why.to_owned() }
}

/// Whether a running container's startup probe has passed (or it has none).
pub fn is_started(c: &Container, s: &ContainerInfo, memory: &Memory) -> bool {
    c.startup_probe.is_none() || memory.probes.started(&s.id)
}

/// Plans the start of a container, or its wait.
fn try_start(
    c: &Container,
    init: bool,
    state: Option<&ContainerInfo>,
    all: &Observed,
    memory: &Memory,
    now: Wall,
    plan: &mut Plan,
) {
    let last = state.or_else(|| all.container(&c.name));
    let last_end = last.filter(|s| s.phase == Phase::Exited).map(|s| s.finished);
    if let Some(end) = last_end
        && let Some((delay, left)) = memory.restarts.waiting(&c.name, end, now)
    {
        plan.backing_off.push((c.name.clone(), delay));
        plan.sooner(left);
        return;
    }
    if let Some((when, _)) = memory.pull_errors.get(&c.image)
        && let Some((_, left)) = memory.pulls.waiting(&c.image, *when, now)
    {
        // The worker still asks the image service, which shows why it waits.
        plan.sooner(left);
    }
    let restart_count = last.map_or(0, |s| s.restart_count + 1);
    plan.start.push(Start { name: c.name.clone(), init, restart_count, last_end });
}

impl Plan {
    pub fn sooner(&mut self, d: Duration) {
        self.wake = Some(self.wake.map_or(d, |w| w.min(d)));
    }

    /// Nothing to do.
    pub fn is_idle(&self) -> bool {
        self.kill.is_empty() && !self.kill_pod && self.sandbox.is_none() && self.start.is_empty() && !self.finished
    }
}

/// `back-off 10s restarting failed container=web pod=web_default(uid)`.
pub fn back_off_message(pod: &Pod, container: &str, delay: Duration) -> String {
    format!("back-off {} restarting failed container={container} pod={}", backoff::text(delay), pod.full_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Sandbox;

    fn pod(spec: &str) -> Pod {
        serde_json::from_str(&format!(r#"{{"metadata":{{"name":"p","namespace":"d","uid":"u"}},"spec":{spec}}}"#))
            .expect("a pod")
    }

    fn seen(containers: &[(&str, Phase, i32)]) -> Observed {
        let sandbox = Sandbox { id: "s".into(), ready: true, ips: vec!["10.0.0.1".into()], ..Default::default() };
        let containers = containers.iter().map(|(name, phase, code)| ContainerInfo {
            id: format!("id-{name}"),
            sandbox: "s".into(),
            name: (*name).into(),
            phase: *phase,
            exit_code: *code,
            finished: Wall::from_secs(100),
            ..Default::default()
        });
        Observed { sandboxes: vec![sandbox], containers: containers.collect(), ..Default::default() }
    }

    fn plan(pod: &Pod, seen: &Observed) -> Plan {
        compute(pod, seen, &Memory::default(), Wall::from_secs(100))
    }

    fn starts(plan: &Plan) -> Vec<&str> {
        plan.start.iter().map(|s| s.name.as_str()).collect()
    }

    const TWO: &str = r#"{"containers":[{"name":"a"},{"name":"b"}]}"#;

    #[test]
    fn a_new_pod_gets_a_sandbox_and_all_its_containers() {
        let p = plan(&pod(TWO), &Observed::default());
        assert_eq!((p.sandbox, p.kill_pod), (Some(0), false));
        assert_eq!(starts(&p), ["a", "b"]);
    }

    #[test]
    fn a_pod_at_rest_needs_nothing() {
        let p = plan(&pod(TWO), &seen(&[("a", Phase::Running, 0), ("b", Phase::Running, 0)]));
        assert!(p.is_idle(), "{p:?}");
    }

    #[test]
    fn a_failed_container_restarts_at_once_and_then_backs_off() {
        let (pod, seen) = (pod(TWO), seen(&[("a", Phase::Running, 0), ("b", Phase::Exited, 1)]));
        let mut memory = Memory::default();
        let now = Wall::from_secs(100);
        let first = compute(&pod, &seen, &memory, now);
        assert_eq!(starts(&first), ["b"]);
        assert_eq!(first.start[0].restart_count, 1);
        memory.restarts.next("b", now, now);
        let second = compute(&pod, &seen, &memory, now);
        assert!(second.start.is_empty());
        assert_eq!(second.backing_off, [("b".to_owned(), Duration::from_secs(10))]);
        assert_eq!(second.wake, Some(Duration::from_secs(10)));
        assert_eq!(
            back_off_message(&pod, "b", second.backing_off[0].1),
            "back-off 10s restarting failed container=b pod=p_d(u)"
        );
    }

    #[test]
    fn policies_decide_what_runs_again() {
        let never = pod(r#"{"restartPolicy":"Never","containers":[{"name":"a"},{"name":"b"}]}"#);
        let half = plan(&never, &seen(&[("a", Phase::Exited, 1), ("b", Phase::Running, 0)]));
        assert!(half.is_idle());
        assert!(plan(&never, &seen(&[("a", Phase::Exited, 1), ("b", Phase::Exited, 0)])).finished);
        let on_failure = pod(r#"{"restartPolicy":"OnFailure","containers":[{"name":"a"},{"name":"b"}]}"#);
        let p = plan(&on_failure, &seen(&[("a", Phase::Exited, 0), ("b", Phase::Exited, 3)]));
        assert_eq!(starts(&p), ["b"]);
        assert!(plan(&on_failure, &seen(&[("a", Phase::Exited, 0), ("b", Phase::Exited, 0)])).finished);
    }

    #[test]
    fn a_containers_own_rules_override_the_pods_policy() {
        let rules = r#"{"restartPolicy":"Never","containers":[{"name":"a","restartPolicyRules":
            [{"action":"Restart","exitCodes":{"operator":"In","values":[42]}}]}]}"#;
        assert_eq!(starts(&plan(&pod(rules), &seen(&[("a", Phase::Exited, 42)]))), ["a"]);
        assert!(plan(&pod(rules), &seen(&[("a", Phase::Exited, 1)])).finished);
    }

    const INIT: &str = r#"{"initContainers":[{"name":"i"},{"name":"side","restartPolicy":"Always"},{"name":"j"}],
        "containers":[{"name":"a"}]}"#;

    #[test]
    fn init_containers_run_one_after_another_and_sidecars_stay() {
        let pod = pod(INIT);
        assert_eq!(starts(&plan(&pod, &Observed::default())), ["i"]);
        assert!(plan(&pod, &seen(&[("i", Phase::Running, 0)])).is_idle());
        assert_eq!(starts(&plan(&pod, &seen(&[("i", Phase::Exited, 0)]))), ["side"]);
        let up = [("i", Phase::Exited, 0), ("side", Phase::Running, 0)];
        assert_eq!(starts(&plan(&pod, &seen(&up))), ["j"]);
        let done = [up[0], up[1], ("j", Phase::Exited, 0)];
        assert_eq!(starts(&plan(&pod, &seen(&done))), ["a"]);
        let all = [up[0], ("side", Phase::Exited, 1), ("j", Phase::Exited, 0), ("a", Phase::Running, 0)];
        assert_eq!(starts(&plan(&pod, &seen(&all))), ["side"], "a sidecar that ends is started again");
    }

    #[test]
    fn a_failed_init_container_runs_again_unless_never() {
        let failed = seen(&[("i", Phase::Exited, 1)]);
        assert_eq!(starts(&plan(&pod(INIT), &failed)), ["i"]);
        let mut never = pod(INIT);
        never.spec.restart_policy = RestartPolicy::Never;
        let p = plan(&never, &failed);
        assert!(p.finished && p.start.is_empty());
    }

    #[test]
    fn a_lost_sandbox_is_replaced_and_its_containers_started_in_the_new_one() {
        let mut gone = seen(&[("a", Phase::Exited, 137), ("b", Phase::Running, 0)]);
        gone.sandboxes[0].ready = false;
        let p = plan(&pod(TWO), &gone);
        assert!(p.kill_pod);
        assert_eq!(p.sandbox, Some(1));
        assert_eq!(starts(&p), ["a", "b"]);
        assert_eq!(p.start[1].restart_count, 1);
    }

    #[test]
    fn a_finished_pod_gets_no_new_sandbox() {
        let mut gone = seen(&[("a", Phase::Exited, 0)]);
        gone.sandboxes[0].ready = false;
        let never = pod(r#"{"restartPolicy":"Never","containers":[{"name":"a"}]}"#);
        let p = plan(&never, &gone);
        assert!(p.finished && p.sandbox.is_none());
    }

    #[test]
    fn a_condemned_container_is_killed() {
        let mut memory = Memory::default();
        memory.condemned.insert("id-a".into(), "Container a failed liveness probe, will be restarted".into());
        let both = seen(&[("a", Phase::Running, 0), ("b", Phase::Running, 0)]);
        let p = compute(&pod(TWO), &both, &memory, Wall::from_secs(0));
        assert_eq!(p.kill.len(), 1);
        assert_eq!(p.kill[0].name, "a");
    }

    proptest::proptest! {
        #[test]
        fn no_plan_starts_what_the_policy_forbids(codes in proptest::collection::vec((0u8..4, 0i32..3), 2), policy in 0u8..3) {
            let mut p = pod(TWO);
            p.spec.restart_policy = [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never][policy as usize];
            let phases = [Phase::Created, Phase::Running, Phase::Exited, Phase::Unknown];
            let states: Vec<_> = ["a", "b"].into_iter().zip(&codes).map(|(n, (ph, code))| (n, phases[*ph as usize], *code)).collect();
            let seen = seen(&states);
            let plan = plan(&p, &seen);
            for s in &plan.start {
                let c = seen.container(&s.name).expect("all exist");
                proptest::prop_assert!(c.phase != Phase::Running);
                if c.phase == Phase::Exited {
                    proptest::prop_assert!(p.container(&s.name).expect("named").restarts(p.spec.restart_policy, c.exit_code));
                }
            }
            proptest::prop_assert!(plan.kill.is_empty() && plan.sandbox.is_none());
        }
    }
}
