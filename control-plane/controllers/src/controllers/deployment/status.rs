//! The Deployment's status: counts and the conditions Available, Progressing
//! and ReplicaFailure.

use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use triarch_env::Wall;

use super::*;

/// Progressing conditions that a pass decided on beside the counts.
#[derive(Default)]
pub(super) struct Notices(Vec<(&'static str, &'static str, String)>);

impl Notices {
    pub fn progressing(&mut self, status: &'static str, reason: &'static str, message: String) {
        self.0.push((status, reason, message));
    }

    pub fn apply(self, s: &mut DeploymentStatus, now: Wall) {
        for (status, reason, message) in self.0 {
            set(s, condition("Progressing", status, reason, message, now));
        }
    }
}

/// A pause stops the progress clock; resuming starts it.
pub(super) fn paused(d: &Deployment, told: &mut Notices) {
    if deadline(d).is_none() {
        return;
    }
    let reason = d.status.as_ref().and_then(|s| get(s, "Progressing")).and_then(|c| c.reason.as_deref());
    if reason == Some("ProgressDeadlineExceeded") {
        return;
    }
    let is = d.spec.paused == Some(true);
    let was = reason == Some("DeploymentPaused");
    if is && !was {
        told.progressing("Unknown", "DeploymentPaused", "Deployment is paused".into());
    } else if !is && was {
        told.progressing("Unknown", "DeploymentResumed", "Deployment is resumed".into());
    }
}

/// Counts and availability.
pub(super) fn calculate(cx: &Context<'_>, d: &Deployment, sets: &Sets) -> DeploymentStatus {
    let positive = |n: i32| (n > 0).then_some(n);
    let actual = |s: &super::sets::Sized| s.rs.status.as_ref().map_or(0, |st| st.replicas);
    let available: i32 = sets.all().map(super::sets::Sized::available).sum();
    let before = d.status.clone().unwrap_or_default();
    let terminating: Option<i32> =
        sets.all().map(|s| s.rs.status.as_ref().and_then(|st| st.terminating_replicas)).sum();
    let mut s = DeploymentStatus {
        observed_generation: d.metadata.generation,
        replicas: positive(sets.all().map(actual).sum()),
        updated_replicas: positive(sets.new.as_ref().map_or(0, actual)),
        ready_replicas: positive(sets.all().filter_map(|s| s.rs.status.as_ref()?.ready_replicas).sum()),
        available_replicas: positive(available),
        unavailable_replicas: positive(sets.total() - available),
        terminating_replicas: terminating,
        collision_count: before.collision_count,
        conditions: before.conditions,
    };
    let availability = if available >= replicas(d) - max_unavailable(d) {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut s, condition("Available", availability.0, availability.1, availability.2.into(), cx.now));
    s
}

/// Counts, and how the rollout goes; also when to look again for the deadline.
pub(super) fn rollout(cx: &Context<'_>, d: &Deployment, sets: &Sets) -> (DeploymentStatus, Option<Duration>) {
    let mut s = calculate(cx, d, sets);
    let limit = deadline(d);
    if limit.is_none() {
        remove(&mut s, "Progressing");
    }
    let current = d.status.as_ref().and_then(|s| get(s, "Progressing")).cloned();
    let done = s.replicas == s.updated_replicas
        && current.as_ref().and_then(|c| c.reason.as_deref()) == Some("NewReplicaSetAvailable");
    if limit.is_some() && !done {
        let who = match &sets.new {
            Some(new) => format!("ReplicaSet \"{}\"", new.rs.metadata.name.as_deref().unwrap_or_default()),
            None => format!("Deployment \"{}\"", d.metadata.name.as_deref().unwrap_or_default()),
        };
        if is_complete(d, &s) {
            let message = format!("{who} has successfully progressed.");
            set(&mut s, condition("Progressing", "True", "NewReplicaSetAvailable", message, cx.now));
        } else if progressed(d, &s) {
            let mut c = condition("Progressing", "True", "ReplicaSetUpdated", format!("{who} is progressing."), cx.now);
            if let Some(before) = current.as_ref().filter(|c| c.status.as_deref() == Some("True")) {
                c.last_transition_time = before.last_transition_time.clone();
            }
            // Progress is told anew each time, so that its update time moves.
            remove(&mut s, "Progressing");
            set(&mut s, c);
        } else if timed_out(d, &s, cx.now) {
            let message = format!("{who} has timed out progressing.");
            set(&mut s, condition("Progressing", "False", "ProgressDeadlineExceeded", message, cx.now));
        }
    }
    let failure = sets.new.iter().chain(&sets.old).find_map(|set| {
        set.rs
            .status
            .as_ref()?
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_.as_deref() == Some("ReplicaFailure"))
            .cloned()
    });
    match failure {
        Some(f) => {
            let c = condition("ReplicaFailure", "True", "", f.message.unwrap_or_default(), cx.now);
            set(&mut s, DeploymentCondition { reason: f.reason, status: f.status, ..c });
        }
        None => remove(&mut s, "ReplicaFailure"),
    }
    let again = again(d, &s, cx.now);
    (s, again)
}

/// Whether the rollout is over, by the status as it would be now.
pub(super) fn complete(d: &Deployment, sets: &Sets) -> bool {
    let status = |s: &super::sets::Sized| s.rs.status.clone().unwrap_or_default();
    let all: i32 = sets.all().map(|s| status(s).replicas).sum();
    let updated = sets.new.as_ref().map_or(0, |s| status(s).replicas);
    let available: i32 = sets.all().map(super::sets::Sized::available).sum();
    all == replicas(d) && updated == replicas(d) && available == replicas(d)
}

/// Writes the status when it differs.
pub(super) fn write(d: &Deployment, s: DeploymentStatus, plan: &mut Plan) {
    if d.status.as_ref() == Some(&s) {
        return;
    }
    let mut object = d.clone();
    object.status = Some(s);
    plan.push(Op::UpdateSub { resource: resources::DEPLOYMENTS, subresource: "status", object: to_value(&object) });
}

fn is_complete(d: &Deployment, s: &DeploymentStatus) -> bool {
    let n = Some(replicas(d));
    let of = |v: Option<i32>| Some(v.unwrap_or(0));
    of(s.updated_replicas) == n && of(s.replicas) == n && of(s.available_replicas) == n
}

/// Whether anything moved forward since the status was last written.
fn progressed(d: &Deployment, s: &DeploymentStatus) -> bool {
    let before = d.status.clone().unwrap_or_default();
    let n = |v: Option<i32>| v.unwrap_or(0);
    let old = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(s.updated_replicas) > n(before.updated_replicas)
        || old(s) < old(&before)
        || n(s.ready_replicas) > n(before.ready_replicas)
        || n(s.available_replicas) > n(before.available_replicas)
}

fn timed_out(d: &Deployment, s: &DeploymentStatus, now: Wall) -> bool {
    let (Some(limit), Some(c)) = (deadline(d), get(s, "Progressing")) else { return false };
    match c.reason.as_deref() {
        Some("NewReplicaSetAvailable") => false,
        Some("ProgressDeadlineExceeded") => true,
        _ => c.last_update_time.as_ref().is_some_and(|t| secs(t) + (limit.as_secs() as i64) < now.secs()),
    }
}

/// When the deadline has to be looked at, a second late so that it has passed.
fn again(d: &Deployment, s: &DeploymentStatus, now: Wall) -> Option<Duration> {
    let (limit, c) = (deadline(d)?, get(s, "Progressing")?);
    if is_complete(d, s) || c.reason.as_deref() == Some("ProgressDeadlineExceeded") {
        return None;
    }
    let at = c.last_update_time.as_ref().map(secs)? + limit.as_secs() as i64;
    Some(Duration::from_secs(u64::try_from(at - now.secs()).unwrap_or(0) + 1))
}

fn condition(kind: &str, status: &str, reason: &str, message: String, now: Wall) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(kind.into()),
        status: Some(status.into()),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    }
}

fn get<'a>(s: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    s.conditions.iter().flatten().find(|c| c.type_.as_deref() == Some(kind))
}

/// Sets a condition; one with the same status and reason stays as it is.
fn set(s: &mut DeploymentStatus, mut c: DeploymentCondition) {
    if let Some(before) = get(s, c.type_.as_deref().unwrap_or_default()) {
        if before.status == c.status && before.reason == c.reason {
            return;
        }
        if before.status == c.status {
            c.last_transition_time = before.last_transition_time.clone();
        }
    }
    let list = s.conditions.get_or_insert_default();
    list.retain(|x| x.type_ != c.type_);
    list.push(c);
}

fn remove(s: &mut DeploymentStatus, kind: &str) {
    if let Some(list) = &mut s.conditions {
        list.retain(|c| c.type_.as_deref() != Some(kind));
    }
}
