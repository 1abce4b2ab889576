//! The ReplicaSet of the present template: its name, revision and annotations.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::sets::{Sized, same_template};
use super::status::Notices;
use super::*;

/// Characters of history that the annotation holds.
const HISTORY_MAX: usize = 2000;
/// Annotations of the Deployment that its sets do not get.
const OWN: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// The revision that the new set shall have: after all old ones.
fn revision(sets: &Sets) -> i64 {
    sets.max_old_revision() + 1
}

/// The patch that gives an existing new set its revision and the Deployment's
/// annotations and minReadySeconds.
pub(super) fn sync_revision(d: &Deployment, sets: &Sets) -> Option<Op> {
    let new = sets.new.as_ref()?;
    let m = &new.rs.metadata;
    let mut set = serde_json::Map::new();
    for (k, v) in inherited(d) {
        if annotation(m, &k) != Some(&v) {
            set.insert(k, v.into());
        }
    }
    let wanted = revision(sets);
    if new.revision() < wanted {
        set.insert(REVISION.into(), wanted.to_string().into());
        if let Some(before) = annotation(m, REVISION).filter(|r| !r.is_empty()) {
            set.insert(REVISION_HISTORY.into(), history(annotation(m, REVISION_HISTORY), before).into());
        }
    }
    let ready = |s: Option<i32>| s.unwrap_or(0);
    let min_ready = ready(d.spec.min_ready_seconds);
    let slower = ready(new.rs.spec.min_ready_seconds) != min_ready;
    if set.is_empty() && !slower {
        return None;
    }
    let mut patch = json!({"metadata": {"annotations": set, "resourceVersion": m.resource_version}});
    if slower {
        patch["spec"] = json!({"minReadySeconds": min_ready});
    }
    Some(Op::Patch { resource: resources::REPLICA_SETS, name: name_of(m), subresource: None, patch })
}

/// The patch that shows the new set's revision on the Deployment.
pub(super) fn sync_deployment_revision(d: &Deployment, sets: &Sets) -> Option<Op> {
    let of_set = annotation(&sets.new.as_ref()?.rs.metadata, REVISION)?;
    if annotation(&d.metadata, REVISION) == Some(of_set) {
        return None;
    }
    let patch =
        json!({"metadata": {"annotations": {REVISION: of_set}, "resourceVersion": d.metadata.resource_version}});
    Some(Op::Patch { resource: resources::DEPLOYMENTS, name: name_of(&d.metadata), subresource: None, patch })
}

fn inherited(d: &Deployment) -> BTreeMap<String, String> {
    let all = d.metadata.annotations.iter().flatten();
    all.filter(|(k, _)| !OWN.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Appends to the comma-separated history, dropping the oldest when it is too long.
fn history(old: Option<&str>, add: &str) -> String {
    let Some(old) = old.filter(|o| !o.is_empty()) else { return add.to_owned() };
    let mut parts: Vec<&str> = old.split(',').chain([add]).collect();
    while parts.iter().map(|p| p.len() + 1).sum::<usize>() > HISTORY_MAX && parts.len() > 1 {
        parts.remove(0);
    }
    parts.join(",")
}

/// What [`create`] wants done.
#[derive(Default)]
pub(super) struct Created {
    pub steps: Vec<Step>,
    pub collision_count: Option<i32>,
}

/// Creates the new set at the size that the strategy allows now.
pub(super) fn create(cx: &Context<'_>, d: &Deployment, sets: &Sets, told: &mut Notices) -> Created {
    let spec = &d.spec;
    let collisions = d.status.as_ref().and_then(|s| s.collision_count);
    let hash = hash(&spec.template, collisions);
    let name = format!("{}-{hash}", d.metadata.name.as_deref().unwrap_or_default());
    let namespace = d.metadata.namespace.clone().unwrap_or_default();

    if matches!(cx.failure, Some(WriteError::AlreadyExists(_)))
        && let Some(other) = cx.world.replica_sets.get(&Name::new(&namespace, &name))
    {
        let ours = controller_of(&other.metadata).is_some_and(|r| r.uid == uid(&d.metadata));
        let template = other.spec.template.as_ref();
        if !(ours && template.is_some_and(|t| same_template(t, &spec.template))) {
            // Another set has this hash: the next name counts the collision in.
            let next = collisions.unwrap_or(0).saturating_add(1);
            return Created { collision_count: Some(next), ..Created::default() };
        }
    }
    if let Some(WriteError::Other(error)) = cx.failure {
        let message = format!("Failed to create new replica set \"{name}\": {error}");
        if deadline(d).is_some() {
            told.progressing("False", "FailedCreate", message);
        }
    }

    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.into(), hash);
    let size = if is_rolling(d) { room(d, sets, 0) } else { replicas(d) };
    let mut annotations = inherited(d);
    let number = revision(sets).to_string();
    annotations.insert(REVISION.into(), number.clone());
    annotations.insert(DESIRED.into(), replicas(d).to_string());
    annotations.insert(MAX.into(), (replicas(d) + max_surge(d)).to_string());
    let rs = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(d)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    };
    let failed = format!("Failed to create new replica set \"{name}\": {{error}}");
    let mut write = Write::from(Op::Create { resource: resources::REPLICA_SETS, object: to_value(&rs) }).err(note(
        d,
        COMPONENT,
        "Warning",
        "FailedCreate",
        failed,
    ));
    if size > 0 {
        let message = format!("Scaled up replica set {name} from 0 to {size}");
        write = write.ok(note(d, COMPONENT, "Normal", "ScalingReplicaSet", message));
    }
    if deadline(d).is_some() && cx.failure.is_none() {
        told.progressing("True", "NewReplicaSetCreated", format!("Created new replica set \"{name}\""));
    }
    Created { steps: vec![Step::Sequence(vec![write])], collision_count: None }
}

/// The size that the new set may have now: its own and what is left under
/// `replicas + maxSurge`.
pub(super) fn room(d: &Deployment, sets: &Sets, own: i32) -> i32 {
    let max = replicas(d) + max_surge(d);
    let current = sets.total();
    if current >= max {
        return own;
    }
    own + (max - current).min(replicas(d) - own)
}

/// A stable name for a template: FNV-1a over its JSON and the collision count,
/// in the alphabet of generated names.
fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut bytes = serde_json::to_vec(template).unwrap_or_default();
    if let Some(n) = collisions {
        bytes.extend_from_slice(&n.to_le_bytes());
    }
    let sum = bytes.iter().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    sum.to_string().bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

impl Sized {
    pub fn is_full(&self, d: &Deployment) -> bool {
        self.size == replicas(d) && self.desired() == Some(replicas(d)) && self.available() == replicas(d)
    }
}
