//! PodStatus from what is wanted, seen and remembered: a pure function.
//!
//! Invariant: a terminal phase, once reported, is never left; a condition's
//! transition time changes only with its status.

use triarch_env::Wall;

use super::actions;
use super::memory::Memory;
use super::qos;
use crate::model::*;
use crate::runtime::{ContainerInfo, Observed, Phase};

/// What the node contributes to every pod's status.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    pub ips: Vec<String>,
    /// `containerd`, the scheme of container ids.
    pub runtime: String,
}

/// The pod's status now. `previous` is the last one known (from this agent or
/// from the API); `stopped` says that the pod will run nothing any more.
pub fn generate(
    pod: &Pod,
    seen: &Observed,
    memory: &Memory,
    node: &NodeFacts,
    previous: &PodStatus,
    stopped: bool,
    now: Wall,
) -> PodStatus {
    let init = statuses(pod, seen, memory, node, previous, true);
    let apps = statuses(pod, seen, memory, node, previous, false);
    let mut phase = match &memory.failed {
        Some(_) => "Failed",
        None => phase(pod, &init, &apps, stopped),
    };
    if previous.is_terminal() {
        phase = if previous.phase == "Failed" { "Failed" } else { "Succeeded" };
    }
    let (reason, message) = match &memory.failed {
        Some((reason, message)) => (reason.clone(), message.clone()),
        None if previous.is_terminal() => (previous.reason.clone(), previous.message.clone()),
        None => Default::default(),
    };
    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        phase: phase.to_owned(),
        reason,
        message,
        nominated_node_name: String::new(),
        start_time: memory.start_time.clone().or_else(|| previous.start_time.clone()),
        init_container_statuses: init,
        container_statuses: apps,
        qos_class: qos::class(pod).name().to_owned(),
        ..Default::default()
    };
    addresses(pod, seen, memory, node, &mut status);
    status.conditions = conditions(pod, seen, memory, &status, previous, now);
    status
}

fn addresses(pod: &Pod, seen: &Observed, memory: &Memory, node: &NodeFacts, status: &mut PodStatus) {
    let list = |ips: &[String]| ips.iter().map(|ip| Ip { ip: ip.clone() }).collect::<Vec<_>>();
    status.host_ips = list(&node.ips);
    status.host_ip = node.ips.first().cloned().unwrap_or_default();
    let live = seen.sandbox().filter(|s| s.ready).map(|s| s.ips.as_slice()).unwrap_or_default();
    let ips: &[String] = match pod.spec.host_network {
        true if seen.sandbox().is_some() || !memory.ips.is_empty() => &node.ips,
        true => &[],
        false if live.is_empty() => &memory.ips,
        false => live,
    };
    status.pod_ips = list(ips);
    status.pod_ip = ips.first().cloned().unwrap_or_default();
}

fn time(at: Wall) -> Option<String> {
    (at.micros > 0).then(|| at.rfc3339())
}

fn terminated(c: &ContainerInfo, scheme: &str) -> Terminated {
    let reason = match (c.phase, c.reason.as_str(), c.exit_code) {
        (Phase::Unknown, _, _) => "ContainerStatusUnknown",
        (_, "", 0) => "Completed",
        (_, "", _) => "Error",
        (_, other, _) => other,
    };
    Terminated {
        exit_code: if c.phase == Phase::Unknown { 137 } else { c.exit_code },
        reason: reason.to_owned(),
        message: c.message.clone(),
        started_at: time(c.started),
        finished_at: time(c.finished),
        container_id: format!("{scheme}://{}", c.id),
    }
}

fn statuses(
    pod: &Pod,
    seen: &Observed,
    memory: &Memory,
    node: &NodeFacts,
    previous: &PodStatus,
    init: bool,
) -> Vec<ContainerStatus> {
    let spec = if init { &pod.spec.init_containers } else { &pod.spec.containers };
    let before = if init { &previous.init_container_statuses } else { &previous.container_statuses };
    let statuses = spec.iter().map(|c| {
        let old = before.iter().find(|s| s.name == c.name);
        container_status(pod, c, init, seen, memory, node, old)
    });
    statuses.collect()
}

fn container_status(
    pod: &Pod,
    c: &Container,
    init: bool,
    seen: &Observed,
    memory: &Memory,
    node: &NodeFacts,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let mut of_name = seen.containers.iter().filter(|s| s.name == c.name);
    let current = of_name.next();
    let last_ended = of_name.find(|s| s.phase == Phase::Exited);
    let scheme = &node.runtime;
    let mut out = ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone(),
        started: Some(false),
        volume_mounts: mounts(c),
        ..Default::default()
    };
    let Some(s) = current else {
        // Nothing runs; what ended before (and was removed) is kept as it was.
        if let Some(old) = old.filter(|o| o.state.terminated.is_some()) {
            return ContainerStatus { ready: old.ready && init, started: Some(false), ..old.clone() };
        }
        let default = if pod.spec.init_containers.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        out.state = match memory.waiting.get(&c.name) {
            Some(w) => ContainerState::waiting(&w.reason, w.message.clone()),
            None => ContainerState::waiting(default, ""),
        };
        if let Some(old) = old {
            out.restart_count = old.restart_count;
            out.last_state = old.last_state.clone();
        }
        return out;
    };
    out.restart_count = i32::try_from(s.restart_count).unwrap_or(i32::MAX);
    if !s.image.is_empty() {
        out.image = s.image.clone();
    }
    out.image_id = s.image_id.clone();
    out.container_id = format!("{scheme}://{}", s.id);
    if let Some(last) = last_ended {
        out.last_state.terminated = Some(terminated(last, scheme));
    } else if let Some(old) = old.filter(|o| o.restart_count == out.restart_count) {
        out.last_state = old.last_state.clone();
    } else if let Some(end) =
        old.and_then(|o| o.state.terminated.clone()).filter(|t| t.container_id != out.container_id)
    {
        out.last_state.terminated = Some(end);
    }
    match s.phase {
        Phase::Running => {
            out.state.running = Some(Running { started_at: time(s.started) });
            let started = actions::is_started(c, s, memory);
            out.started = Some(started);
            let probed = c.readiness_probe.is_none() || memory.probes.ready(&s.id);
            out.ready = started && probed && (!init || c.is_sidecar(init));
            let requests = &c.resources.requests;
            let resources = StatusResources { limits: c.resources.limits.clone(), requests: requests.clone() };
            out.allocated_resources = requests.clone();
            out.resources = Some(resources);
        }
        Phase::Exited | Phase::Unknown => {
            let end = terminated(s, scheme);
            match memory.waiting.get(&c.name) {
                Some(w) => {
                    out.state = ContainerState::waiting(&w.reason, w.message.clone());
                    out.last_state.terminated = Some(end);
                }
                None => {
                    out.ready = init && !c.is_sidecar(init) && end.exit_code == 0;
                    out.state.terminated = Some(end);
                }
            }
        }
        Phase::Created => {
            out.state = match memory.waiting.get(&c.name) {
                Some(w) => ContainerState::waiting(&w.reason, w.message.clone()),
                None => ContainerState::waiting("ContainerCreating", ""),
            };
        }
    }
    out
}

fn mounts(c: &Container) -> Vec<VolumeMountStatus> {
    let status = |m: &VolumeMount| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only,
        recursive_read_only: m.read_only.then(|| "Disabled".to_owned()),
    };
    c.volume_mounts.iter().map(status).collect()
}

/// The phase that the containers' states add up to.
fn phase(pod: &Pod, init: &[ContainerStatus], apps: &[ContainerStatus], stopped: bool) -> &'static str {
    let policy = pod.spec.restart_policy;
    let initialised = apps.iter().any(|s| s.state.waiting.is_none() || s.last_state.terminated.is_some());
    let mut pending_init = 0;
    for (c, s) in pod.spec.init_containers.iter().zip(init) {
        let end = s.state.terminated.as_ref().or(s.last_state.terminated.as_ref());
        if c.is_sidecar(true) {
            if !initialised && s.started != Some(true) {
                pending_init += 1;
            }
        } else {
            match &s.state.terminated {
                Some(t) if t.exit_code == 0 => {}
                Some(t) if !c.restarts(policy, t.exit_code) && policy == RestartPolicy::Never => return "Failed",
                _ if stopped && end.is_some() => return "Failed",
                _ => pending_init += 1,
            }
        }
    }
    let (mut running, mut waiting, mut ended, mut succeeded, mut again) = (0, 0, 0, 0, false);
    for (c, s) in pod.spec.containers.iter().zip(apps) {
        if s.state.running.is_some() {
            running += 1;
        } else if let Some(t) = s.state.terminated.as_ref().or(s.last_state.terminated.as_ref()) {
            ended += 1;
            succeeded += usize::from(t.exit_code == 0);
            again |= c.restarts(policy, t.exit_code);
        } else {
            waiting += 1;
        }
    }
    if stopped && running == 0 {
        return if ended == apps.len() && ended == succeeded && waiting == 0 { "Succeeded" } else { "Failed" };
    }
    match () {
        () if pending_init > 0 && !initialised => "Pending",
        () if waiting > 0 => "Pending",
        () if running > 0 || again => "Running",
        () if ended == succeeded => "Succeeded",
        () => "Failed",
    }
}

fn conditions(
    pod: &Pod,
    seen: &Observed,
    memory: &Memory,
    status: &PodStatus,
    previous: &PodStatus,
    now: Wall,
) -> Vec<PodCondition> {
    let generation = pod.metadata.generation;
    let mut out = Vec::with_capacity(5 + previous.conditions.len());
    let mut put = |kind: &str, value: bool, reason: &str, message: String| {
        let text = if value { "True" } else { "False" };
        let before = previous.condition(kind).filter(|c| c.status == text);
        let since = before.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(|| now.rfc3339());
        out.push(PodCondition {
            kind: kind.to_owned(),
            observed_generation: generation,
            status: text.to_owned(),
            last_probe_time: None,
            last_transition_time: Some(since),
            reason: reason.to_owned(),
            message,
        });
    };
    let sandbox = seen.sandbox().is_some_and(|s| s.ready && (pod.spec.host_network || !s.ips.is_empty()));
    put("PodReadyToStartContainers", sandbox && memory.volumes_ready, "", String::new());
    let (ok, reason, message) = initialised(pod, status);
    put("Initialized", ok, reason, message);
    let (containers, reason, message) = containers_ready(pod, status);
    let gates = gates(pod, previous);
    if !containers || gates.is_empty() {
        put("Ready", containers, reason, message.clone());
    } else {
        put("Ready", false, "ReadinessGatesNotReady", gates.join(", "));
    }
    put("ContainersReady", containers, reason, message);
    match previous.condition("PodScheduled").or(pod.status.condition("PodScheduled")) {
        Some(c) => out.push(PodCondition { observed_generation: generation, ..c.clone() }),
        None => put("PodScheduled", true, "", String::new()),
    }
    const OWN: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    for other in previous.conditions.iter().filter(|c| !OWN.contains(&c.kind.as_str())) {
        out.push(other.clone());
    }
    out
}

fn initialised(pod: &Pod, status: &PodStatus) -> (bool, &'static str, String) {
    if status.phase == "Succeeded" {
        return (true, "PodCompleted", String::new());
    }
    let incomplete: Vec<&str> = (pod.spec.init_containers.iter().zip(&status.init_container_statuses))
        .filter(|(c, s)| if c.is_sidecar(true) { s.started != Some(true) } else { !s.ready })
        .map(|(c, _)| c.name.as_str())
        .collect();
    if incomplete.is_empty() || status.container_statuses.iter().any(|s| s.state.running.is_some()) {
        return (true, "", String::new());
    }
    (false, "ContainersNotInitialized", format!("containers with incomplete status: [{}]", incomplete.join(" ")))
}

fn containers_ready(pod: &Pod, status: &PodStatus) -> (bool, &'static str, String) {
    match status.phase.as_str() {
        "Succeeded" => return (false, "PodCompleted", String::new()),
        "Failed" => return (false, "PodFailed", String::new()),
        _ => {}
    }
    let sidecars = (pod.spec.init_containers.iter().zip(&status.init_container_statuses))
        .filter(|(c, _)| c.is_sidecar(true))
        .map(|(_, s)| s);
    let unready: Vec<&str> =
        sidecars.chain(&status.container_statuses).filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    if unready.is_empty() {
        return (true, "", String::new());
    }
    (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
}

/// Why each readiness gate that is not met is not.
fn gates(pod: &Pod, previous: &PodStatus) -> Vec<String> {
    let unmet = pod.spec.readiness_gates.iter().filter_map(|gate| {
        let kind = &gate.condition_type;
        let found = pod.status.condition(kind).or(previous.condition(kind));
        match found.map(|c| c.status.as_str()) {
            Some("True") => None,
            Some(other) => Some(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {other}")),
            None => Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
        }
    });
    unmet.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Sandbox;

    fn pod(spec: &str) -> Pod {
        let meta = r#"{"name":"p","namespace":"d","uid":"u","generation":3}"#;
        serde_json::from_str(&format!(r#"{{"metadata":{meta},"spec":{spec}}}"#)).expect("a pod")
    }

    fn seen(containers: &[(&str, Phase, i32)]) -> Observed {
        let sandbox = Sandbox { id: "s".into(), ready: true, ips: vec!["10.0.0.1".into()], ..Default::default() };
        let containers = containers.iter().map(|(name, phase, code)| ContainerInfo {
            id: format!("id-{name}"),
            sandbox: "s".into(),
            name: (*name).into(),
            phase: *phase,
            exit_code: *code,
            started: Wall::from_secs(10),
            finished: Wall::from_secs(20),
            ..Default::default()
        });
        Observed { sandboxes: vec![sandbox], containers: containers.collect(), ..Default::default() }
    }

    fn status(pod: &Pod, seen: &Observed, memory: &Memory, previous: &PodStatus) -> PodStatus {
        let node = NodeFacts { ips: vec!["192.0.2.1".into()], runtime: "containerd".into() };
        generate(pod, seen, memory, &node, previous, false, Wall::from_secs(100))
    }

    fn condition(status: &PodStatus, kind: &str) -> (String, String, String) {
        let c = status.condition(kind).expect("present");
        (c.status.clone(), c.reason.clone(), c.message.clone())
    }

    const TWO: &str = r#"{"containers":[{"name":"a"},{"name":"b"}]}"#;

    #[test]
    fn a_pod_being_made_is_pending_and_says_which_containers_are_not_ready() {
        let s = status(&pod(TWO), &Observed::default(), &Memory::default(), &PodStatus::default());
        assert_eq!(s.phase, "Pending");
        assert_eq!(s.container_statuses[0].state.waiting.as_ref().expect("waits").reason, "ContainerCreating");
        let expected = ("False".into(), "ContainersNotReady".into(), "containers with unready status: [a b]".into());
        assert_eq!(condition(&s, "Ready"), expected);
        assert_eq!(condition(&s, "Initialized").0, "True");
        assert_eq!(s.observed_generation, 3);
        assert!(s.conditions.iter().all(|c| c.observed_generation == 3));
    }

    #[test]
    fn a_running_pod_is_ready_and_keeps_its_transition_times() {
        let up = seen(&[("a", Phase::Running, 0), ("b", Phase::Running, 0)]);
        let memory = Memory { volumes_ready: true, ..Default::default() };
        let first = status(&pod(TWO), &up, &memory, &PodStatus::default());
        assert_eq!((first.phase.as_str(), first.pod_ip.as_str()), ("Running", "10.0.0.1"));
        assert_eq!(condition(&first, "Ready").0, "True");
        let node = NodeFacts { ips: vec!["192.0.2.1".into()], runtime: "containerd".into() };
        let later = generate(&pod(TWO), &up, &memory, &node, &first, false, Wall::from_secs(500));
        assert_eq!(later, first, "nothing changed, so nothing is written");
    }

    #[test]
    fn a_crash_loop_shows_the_wait_and_the_last_end() {
        let mut memory = Memory::default();
        let wait = Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 10s".into() };
        memory.waiting.insert("b".into(), wait);
        let s = status(
            &pod(TWO),
            &seen(&[("a", Phase::Running, 0), ("b", Phase::Exited, 2)]),
            &memory,
            &PodStatus::default(),
        );
        assert_eq!(s.phase, "Running");
        let b = &s.container_statuses[1];
        assert_eq!(b.state.waiting.as_ref().expect("waits").reason, "CrashLoopBackOff");
        let end = b.last_state.terminated.as_ref().expect("ended");
        assert_eq!((end.exit_code, end.reason.as_str()), (2, "Error"));
    }

    #[test]
    fn ended_pods_succeed_or_fail_and_stay_so() {
        let never = pod(r#"{"restartPolicy":"Never","containers":[{"name":"a"},{"name":"b"}]}"#);
        let good = seen(&[("a", Phase::Exited, 0), ("b", Phase::Exited, 0)]);
        let s = status(&never, &good, &Memory::default(), &PodStatus::default());
        assert_eq!(s.phase, "Succeeded");
        assert_eq!(condition(&s, "Ready").1, "PodCompleted");
        let bad = seen(&[("a", Phase::Exited, 0), ("b", Phase::Exited, 1)]);
        assert_eq!(status(&never, &bad, &Memory::default(), &PodStatus::default()).phase, "Failed");
        let again = status(&never, &seen(&[("a", Phase::Running, 0)]), &Memory::default(), &s);
        assert_eq!(again.phase, "Succeeded", "a terminal phase is never left");
    }

    #[test]
    fn a_gate_that_is_not_met_keeps_the_pod_unready() {
        let gated = pod(r#"{"readinessGates":[{"conditionType":"x/y"}],"containers":[{"name":"a"}]}"#);
        let s = status(&gated, &seen(&[("a", Phase::Running, 0)]), &Memory::default(), &PodStatus::default());
        assert_eq!(condition(&s, "ContainersReady").0, "True");
        let text = "corresponding condition of pod readiness gate \"x/y\" does not exist.";
        assert_eq!(condition(&s, "Ready"), ("False".into(), "ReadinessGatesNotReady".into(), text.into()));
    }

    #[test]
    fn init_containers_hold_the_pod_in_pending() {
        let p = pod(r#"{"initContainers":[{"name":"i"}],"containers":[{"name":"a"}]}"#);
        let s = status(&p, &seen(&[("i", Phase::Running, 0)]), &Memory::default(), &PodStatus::default());
        assert_eq!(s.phase, "Pending");
        assert_eq!(s.container_statuses[0].state.waiting.as_ref().expect("waits").reason, "PodInitializing");
        assert_eq!(condition(&s, "Initialized").2, "containers with incomplete status: [i]");
        let done = status(&p, &seen(&[("i", Phase::Exited, 0), ("a", Phase::Running, 0)]), &Memory::default(), &s);
        assert!(done.init_container_statuses[0].ready);
        assert_eq!((done.phase.as_str(), condition(&done, "Initialized").0.as_str()), ("Running", "True"));
    }
}
