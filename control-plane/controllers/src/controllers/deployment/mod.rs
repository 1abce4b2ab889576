//! Deployments: rollouts as changes of the sizes of ReplicaSets.
//!
//! ```text
//!  paused or only scaled ─► scale.rs    ─┐
//!  Recreate              ─► recreate.rs ─┼─► sizes ─► patches of ReplicaSets ─► status.rs
//!  RollingUpdate         ─► rolling.rs  ─┘
//! ```
//! A pass makes one kind of step (create the new set, or note its revision, or
//! resize) and the status last; the next pass sees what came of it.

mod new_set;
mod recreate;
mod rolling;
mod scale;
mod sets;
mod status;

#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use crate::world::{Change, orphans};
use crate::*;
use sets::Sets;

pub(crate) const COMPONENT: &str = "deployment-controller";
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";

pub struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn keys(&self, world: &World, change: &Change, out: &mut Vec<Key>) {
        let namespace = &change.name.namespace;
        let key = |name: &str| Key::new(resources::DEPLOYMENTS, Name::new(namespace, name));
        match change.resource {
            resources::DEPLOYMENTS => out.push(Key::new(resources::DEPLOYMENTS, change.name.clone())),
            resources::REPLICA_SETS => {
                for m in [&change.old, &change.new].into_iter().flatten().filter_map(Any::metadata) {
                    match controller_of(m) {
                        Some(r) if r.kind == "Deployment" => out.push(key(&r.name)),
                        Some(_) => {}
                        None => out.extend(
                            world
                                .deployments
                                .in_namespace(namespace)
                                .filter(|(_, d)| selector::matches(&d.spec.selector, m.labels.as_ref()))
                                .map(|(n, _)| Key::new(resources::DEPLOYMENTS, n.clone())),
                        ),
                    }
                }
            }
            // A Recreate rollout waits for the last old pod to go.
            resources::PODS if change.new.is_none() => {
                let Some(owner) = change.old.as_ref().and_then(Any::metadata).and_then(controller_of) else { return };
                let Some(rs) = world.replica_sets.get(&Name::new(namespace, &owner.name)) else { return };
                if let Some(d) = controller_of(&rs.metadata).filter(|r| r.kind == "Deployment") {
                    let deployment = world.deployments.get(&Name::new(namespace, &d.name));
                    if deployment.is_some_and(|d| !is_rolling(d)) {
                        out.push(key(&d.name));
                    }
                }
            }
            _ => {}
        }
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let Some(d) = cx.world.deployments.get(&key.name) else { return Plan::nothing() };
        let mut plan = Plan::default();
        let spec = &d.spec;
        if selector::is_empty(&spec.selector) {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            plan.note(note(&**d, COMPONENT, "Warning", "SelectingAll", message));
            return plan;
        }
        let mut sets = Sets::of(cx.world, d, &mut plan);
        if deleting(&d.metadata) {
            let status = status::calculate(cx, d, &sets);
            status::write(d, status, &mut plan);
            return plan;
        }
        // The new set's revision and annotations come first, alone in their pass.
        if let Some(patch) = new_set::sync_revision(d, &sets) {
            plan.push(patch);
            return plan;
        }
        if let Some(patch) = new_set::sync_deployment_revision(d, &sets) {
            plan.push(patch);
            return plan;
        }
        let mut conditions = status::Notices::default();
        status::paused(d, &mut conditions);

        let paused = spec.paused == Some(true);
        if paused || sets.scaling_event(d) {
            scale::proportional(d, &mut sets);
            if paused {
                cleanup(d, &sets, &mut plan);
            }
            sets.emit(d, &mut plan);
            let mut new = status::calculate(cx, d, &sets);
            conditions.apply(&mut new, cx.now);
            status::write(d, new, &mut plan);
            return plan;
        }

        let create = if is_rolling(d) { sets.new.is_none() } else { recreate::ready_for_new(cx, d, &mut sets) };
        if create {
            let created = new_set::create(cx, d, &sets, &mut conditions);
            // The status tells of a failure or a collision, so it is written before the next try;
            // otherwise after the set is there.
            let mut new = status::calculate(cx, d, &sets);
            if let Some(count) = created.collision_count {
                new.collision_count = Some(count);
            }
            conditions.apply(&mut new, cx.now);
            let mut after = std::mem::take(&mut plan.steps);
            status::write(d, new, &mut plan);
            after.extend(created.steps);
            if cx.failure.is_some() {
                plan.steps.extend(after);
            } else {
                after.append(&mut plan.steps);
                plan.steps = after;
            }
            return plan;
        }
        let scaled = if is_rolling(d) { rolling::step(d, &mut sets) } else { sets.changed() };
        if !scaled && status::complete(d, &sets) {
            cleanup(d, &sets, &mut plan);
        }
        sets.emit(d, &mut plan);
        let (mut new, again) = status::rollout(cx, d, &sets);
        conditions.apply(&mut new, cx.now);
        status::write(d, new, &mut plan);
        if let Some(delay) = again {
            plan.after(key, delay);
        }
        plan
    }
}

/// Deletes the oldest empty sets beyond `revisionHistoryLimit`.
fn cleanup(d: &Deployment, sets: &Sets, plan: &mut Plan) {
    let Some(limit) = d.spec.revision_history_limit.filter(|l| *l != i32::MAX) else { return };
    let mut old: Vec<_> = sets.old.iter().filter(|s| !deleting(&s.rs.metadata)).collect();
    let Some(excess) = old.len().checked_sub(usize::try_from(limit).unwrap_or(0)).filter(|n| *n > 0) else { return };
    old.sort_by_key(|s| (s.revision(), created(&s.rs.metadata)));
    for s in old.into_iter().take(excess) {
        let status = s.rs.status.clone().unwrap_or_default();
        if status.replicas != 0 || s.size != 0 || s.rs.metadata.generation > status.observed_generation {
            continue;
        }
        let options = DeleteOptions { uid: s.rs.metadata.uid.clone(), ..DeleteOptions::default() };
        plan.push(Op::Delete { resource: resources::REPLICA_SETS, name: name_of(&s.rs.metadata), options });
    }
}

fn replicas(d: &Deployment) -> i32 {
    d.spec.replicas.unwrap_or(1)
}

fn is_rolling(d: &Deployment) -> bool {
    let strategy = d.spec.strategy.as_ref().and_then(|s| s.type_.as_deref());
    strategy.unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// `(maxSurge, maxUnavailable)` as numbers of pods: surge rounds up,
/// unavailable down, and both zero would never progress, so then one pod may be missing.
fn fences(d: &Deployment) -> (i32, i32) {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    let n = replicas(d);
    let rolling = d.spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let scaled = |v: Option<&IntOrString>, up: bool| -> i32 {
        match v {
            Some(IntOrString::Int(i)) => *i,
            Some(IntOrString::String(s)) => {
                let percent: i64 = s.trim_end_matches('%').parse().unwrap_or(0);
                let product = percent.saturating_mul(i64::from(n));
                let whole = if up { (product + 99) / 100 } else { product / 100 };
                i32::try_from(whole).unwrap_or(i32::MAX)
            }
            None => 0,
        }
    };
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), true);
    let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

fn max_surge(d: &Deployment) -> i32 {
    if is_rolling(d) { fences(d).0 } else { 0 }
}

fn max_unavailable(d: &Deployment) -> i32 {
    if !is_rolling(d) || replicas(d) == 0 { 0 } else { fences(d).1.min(replicas(d)) }
}

fn deadline(d: &Deployment) -> Option<Duration> {
    let s = d.spec.progress_deadline_seconds.filter(|s| *s != i32::MAX)?;
    Some(Duration::from_secs(u64::try_from(s).unwrap_or(0)))
}
