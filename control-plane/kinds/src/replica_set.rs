//! ReplicaSet, its `status` and `scale`.

use serde_json::{Value, json};
use triarch_api::status::ErrorList;
use triarch_registry::{
    GenerationRule, Kind, RuleContext, SelectableField, StatusRule, Subresource, SubresourceHandler, Verb,
};

use crate::deployment::name_warning;
use crate::describe;
use crate::field::{self, Path};
use crate::print::{AGE, CONTAINERS, IMAGES, NAME, integer, or_none, wide};
use crate::value::{at, child, copy, default, get, int_of, set};
use crate::{meta, template};

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "ReplicaSet",
    list_kind: "ReplicaSetList",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    schema: "apps/v1.ReplicaSet",
    resource: "replicasets.apps",
    subresources: &[
        Subresource {
            name: "scale",
            verbs: &[Verb::Get, Verb::Patch, Verb::Update],
            handler: SubresourceHandler::Scale {
                spec_replicas: "spec.replicas",
                status_replicas: "status.replicas",
                selector: |v| template::selector_text(at(v, &["spec", "selector"])),
            },
            response: ("autoscaling", "v1", "Scale"),
            schema: "autoscaling/v1.Scale",
        },
        Subresource {
            name: "status",
            verbs: &[Verb::Get, Verb::Patch, Verb::Update],
            handler: SubresourceHandler::Status,
            response: ("apps", "v1", "ReplicaSet"),
            schema: "apps/v1.ReplicaSet",
        },
    ],
    columns: &[
        NAME,
        integer("Desired", describe::REPLICA_SET_DESIRED, |v, _| int_of(get(v, "spec"), "replicas").into()),
        integer("Current", describe::REPLICA_SET_CURRENT, |v, _| int_of(get(v, "status"), "replicas").into()),
        integer("Ready", describe::REPLICA_SET_READY, |v, _| int_of(get(v, "status"), "readyReplicas").into()),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector", describe::REPLICA_SET_SELECTOR, |v, _| {
            or_none(&template::selector_text(at(v, &["spec", "selector"])))
        }),
    ],
    selectable: &[SelectableField {
        path: "status.replicas",
        get: |v| int_of(get(v, "status"), "replicas").to_string(),
    }],
    generation: GenerationRule::Spec,
    validate_name: meta::subdomain_name,
    defaults: |v| {
        let spec = child(v, "spec");
        default(spec, "replicas", 1);
        template::defaults(spec);
    },
    prepare_create: |_, v| set(v, "status", json!({"replicas": 0})),
    prepare_update: |_, new, old| copy(old, new, "status"),
    validate: |_, v, errs| validate(errs, get(v, "spec")),
    validate_update: |_, new, old, errs| {
        field::immutable(errs, "spec.selector", at(new, &["spec", "selector"]), at(old, &["spec", "selector"]));
    },
    status: Some(StatusRule { validate: validate_status, ..StatusRule::BASE }),
    warnings: |new, old| if old.is_none() { name_warning(new) } else { Vec::new() },
    ..Kind::BASE
};

fn validate(errs: &mut ErrorList, spec: &Value) {
    let p = Path::new("spec");
    field::non_negative(errs, p.child("replicas"), int_of(spec, "replicas"));
    field::non_negative(errs, p.child("minReadySeconds"), int_of(spec, "minReadySeconds"));
    if let Some(selector) = template::selector(errs, &p.child("selector"), spec) {
        template::validate_for_replicas(errs, &p.child("template"), get(spec, "template"), &selector);
    }
}

fn validate_status(_: &RuleContext<'_>, new: &Value, _: &Value, errs: &mut ErrorList) {
    let (p, s) = (Path::new("status"), get(new, "status"));
    for key in [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ] {
        field::non_negative(errs, p.child(key), int_of(s, key));
    }
    let total = int_of(s, "replicas");
    for key in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        if int_of(s, key) > total {
            field::invalid(errs, p.child(key), int_of(s, key), "cannot be greater than status.replicas");
        }
    }
    let available = int_of(s, "availableReplicas");
    if available > int_of(s, "readyReplicas") {
        field::invalid(errs, p.child("availableReplicas"), available, "cannot be greater than readyReplicas");
    }
}
