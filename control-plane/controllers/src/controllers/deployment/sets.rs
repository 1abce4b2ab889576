//! A Deployment's ReplicaSets, with the sizes that this pass gives them.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::*;

/// A set and the size that it shall have.
#[derive(Clone)]
pub(super) struct Sized {
    pub rs: std::sync::Arc<ReplicaSet>,
    pub size: i32,
}

pub(super) struct Sets {
    pub new: Option<Sized>,
    /// In order of creation.
    pub old: Vec<Sized>,
}

impl Sized {
    fn from(rs: &std::sync::Arc<ReplicaSet>) -> Sized {
        Sized { rs: rs.clone(), size: spec_size(rs) }
    }

    pub fn available(&self) -> i32 {
        self.rs.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
    }

    pub fn revision(&self) -> i64 {
        annotation(&self.rs.metadata, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
    }

    pub fn desired(&self) -> Option<i32> {
        annotation(&self.rs.metadata, DESIRED)?.parse().ok()
    }

    fn order(&self) -> (i64, String) {
        (created(&self.rs.metadata), self.rs.metadata.name.clone().unwrap_or_default())
    }
}

fn spec_size(rs: &ReplicaSet) -> i32 {
    rs.spec.replicas.unwrap_or(1)
}

impl Sets {
    /// The sets that the Deployment owns; orphans that it selects are adopted.
    pub fn of(world: &World, d: &Deployment, plan: &mut Plan) -> Sets {
        let me = uid(&d.metadata);
        let spec = &d.spec;
        let namespace = orphans(d.metadata.namespace.as_deref().unwrap_or_default());
        let get = |n| world.replica_sets.get(n);
        let matches = |rs: &ReplicaSet| selector::matches(&spec.selector, rs.metadata.labels.as_ref());
        let mut all = Vec::new();
        for rs in world.replica_sets_by_controller.get(me).filter_map(get) {
            if matches(rs) {
                all.push(Sized::from(rs));
            } else if !deleting(&d.metadata) {
                let owners = rs.metadata.owner_references.iter().flatten().filter(|r| r.uid != me).cloned().collect();
                plan.push(owners_patch(rs, owners));
            }
        }
        if !deleting(&d.metadata) {
            let candidates = world.replica_sets_by_controller.get(&namespace).filter_map(get);
            for rs in candidates.filter(|rs| !deleting(&rs.metadata) && matches(rs)) {
                let mut owners = rs.metadata.owner_references.clone().unwrap_or_default();
                owners.push(controller_ref(d));
                plan.push(owners_patch(rs, owners));
                all.push(Sized::from(rs));
            }
        }
        all.sort_by_key(Sized::order);
        let at = all.iter().position(|s| s.rs.spec.template.as_ref().is_some_and(|t| same_template(t, &spec.template)));
        let new = at.map(|i| all.remove(i));
        Sets { new, old: all }
    }

    pub fn all(&self) -> impl Iterator<Item = &Sized> {
        self.old.iter().chain(&self.new)
    }

    pub fn total(&self) -> i32 {
        self.all().map(|s| s.size).sum()
    }

    pub fn total_old(&self) -> i32 {
        self.old.iter().map(|s| s.size).sum()
    }

    pub fn max_old_revision(&self) -> i64 {
        self.old.iter().map(Sized::revision).max().unwrap_or(0)
    }

    pub fn changed(&self) -> bool {
        self.all().any(|s| s.size != spec_size(&s.rs))
    }

    /// Whether the Deployment's size changed since its sets were last sized.
    pub fn scaling_event(&self, d: &Deployment) -> bool {
        self.all().filter(|s| s.size > 0).any(|s| s.desired().is_some_and(|n| n != replicas(d)))
    }

    /// Writes the sizes that differ, each with its Event, and the annotations
    /// that proportional scaling needs on sets that are in use.
    pub fn emit(&self, d: &Deployment, plan: &mut Plan) {
        let (desired, max) = (replicas(d).to_string(), (replicas(d) + max_surge(d)).to_string());
        for s in self.all() {
            let before = spec_size(&s.rs);
            let stale =
                annotation(&s.rs.metadata, DESIRED) != Some(&desired) || annotation(&s.rs.metadata, MAX) != Some(&max);
            if s.size == before && !(stale && s.size > 0) {
                continue;
            }
            let mut patch = json!({"metadata": {"annotations": {DESIRED: desired, MAX: max},
                "resourceVersion": s.rs.metadata.resource_version}});
            if s.size != before {
                patch["spec"] = json!({"replicas": s.size});
            }
            let name = name_of(&s.rs.metadata);
            let direction = if s.size > before { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {} from {before} to {}", name.name, s.size);
            let mut write =
                Write::from(Op::Patch { resource: resources::REPLICA_SETS, name, subresource: None, patch });
            if s.size != before {
                write = write.ok(note(d, COMPONENT, "Normal", "ScalingReplicaSet", message));
            }
            plan.push(write);
        }
    }
}

fn owners_patch(rs: &ReplicaSet, owners: Vec<OwnerReference>) -> Op {
    let owners = if owners.is_empty() { serde_json::Value::Null } else { to_value(&owners) };
    let m = &rs.metadata;
    let patch = json!({"metadata": {"ownerReferences": owners, "uid": m.uid, "resourceVersion": m.resource_version}});
    Op::Patch { resource: resources::REPLICA_SETS, name: name_of(m), subresource: None, patch }
}

/// Equal but for the hash label that this controller adds.
pub(super) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let strip = |t: &PodTemplateSpec| {
        let mut m = t.metadata.clone().unwrap_or_default();
        if let Some(l) = &mut m.labels {
            l.remove(HASH);
        }
        m.labels = m.labels.filter(|l| !l.is_empty());
        m
    };
    a.spec == b.spec && strip(a) == strip(b)
}
