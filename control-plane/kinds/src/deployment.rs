//! Deployment, its `status` and `scale`.

use serde_json::{Value, json};
use triarch_api::names;
use triarch_api::status::ErrorList;
use triarch_registry::{GenerationRule, Kind, RuleContext, StatusRule, Subresource, SubresourceHandler, Verb};

use crate::describe;
use crate::field::{self, Path};
use crate::print::{AGE, CONTAINERS, IMAGES, NAME, text, wide};
use crate::value::{at, child, copy, default, default_str, get, int_of, opt, opt_int, same, set, str_at, str_of};
use crate::{meta, template};

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    list_kind: "DeploymentList",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    schema: "apps/v1.Deployment",
    resource: "deployments.apps",
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
            response: ("apps", "v1", "Deployment"),
            schema: "apps/v1.Deployment",
        },
    ],
    columns: &[
        NAME,
        text("Ready", "Number of the pod with ready state", |v, _| {
            format!("{}/{}", status(v, "readyReplicas"), int_of(get(v, "spec"), "replicas")).into()
        }),
        text("Up-to-date", describe::DEPLOYMENT_UPDATED, |v, _| status(v, "updatedReplicas").into()),
        text("Available", describe::DEPLOYMENT_AVAILABLE, |v, _| status(v, "availableReplicas").into()),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector", describe::DEPLOYMENT_SELECTOR, |v, _| {
            template::selector_text(at(v, &["spec", "selector"])).into()
        }),
    ],
    generation: GenerationRule::Spec,
    validate_name: meta::subdomain_name,
    defaults,
    prepare_create: |_, v| set(v, "status", json!({})),
    prepare_update: |_, new, old| {
        copy(old, new, "status");
        // Annotations reach the ReplicaSets, so they too make a new generation.
        if !same(at(new, &["metadata", "annotations"]), at(old, &["metadata", "annotations"])) {
            let next = int_of(get(old, "metadata"), "generation") + 1;
            set(child(new, "metadata"), "generation", next);
        }
    },
    validate: |_, v, errs| validate(errs, get(v, "spec")),
    validate_update: |_, new, old, errs| {
        field::immutable(errs, "spec.selector", at(new, &["spec", "selector"]), at(old, &["spec", "selector"]));
    },
    status: Some(StatusRule { stored_metadata: &["labels"], validate: validate_status, ..StatusRule::BASE }),
    warnings: |new, old| if old.is_none() { name_warning(new) } else { Vec::new() },
    ..Kind::BASE
};

fn status(v: &Value, key: &str) -> i64 {
    int_of(get(v, "status"), key)
}

/// Names of pod owners become parts of host names.
pub fn name_warning(v: &Value) -> Vec<String> {
    let messages = names::dns1123_label(str_at(v, &["metadata", "name"]));
    if messages.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; \
         a DNS label is recommended: [{}]",
        messages.join(" ")
    )]
}

fn defaults(v: &mut Value) {
    let spec = child(v, "spec");
    default(spec, "replicas", 1);
    let strategy = child(spec, "strategy");
    default_str(strategy, "type", "RollingUpdate");
    if str_of(strategy, "type") == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        default(rolling, "maxUnavailable", "25%");
        default(rolling, "maxSurge", "25%");
    }
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    template::defaults(spec);
}

fn validate(errs: &mut ErrorList, spec: &Value) {
    let p = Path::new("spec");
    field::non_negative(errs, p.child("replicas"), int_of(spec, "replicas"));
    if let Some(selector) = template::selector(errs, &p.child("selector"), spec) {
        template::validate_for_replicas(errs, &p.child("template"), get(spec, "template"), &selector);
    }
    strategy(errs, &p.child("strategy"), get(spec, "strategy"));
    let min_ready = int_of(spec, "minReadySeconds");
    field::non_negative(errs, p.child("minReadySeconds"), min_ready);
    if let Some(limit) = opt_int(spec, "revisionHistoryLimit") {
        field::non_negative(errs, p.child("revisionHistoryLimit"), limit);
    }
    if let Some(deadline) = opt_int(spec, "progressDeadlineSeconds") {
        let p = p.child("progressDeadlineSeconds");
        field::non_negative(errs, &p, deadline);
        if deadline <= min_ready {
            field::invalid(errs, &p, deadline, "must be greater than minReadySeconds");
        }
    }
}

fn strategy(errs: &mut ErrorList, p: &Path, strategy: &Value) {
    let rolling = opt(strategy, "rollingUpdate");
    match (str_of(strategy, "type"), rolling) {
        ("Recreate", Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            field::forbidden(errs, p.child("rollingUpdate"), detail);
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            field::required(errs, p.child("rollingUpdate"), "this should be defaulted and never be nil");
        }
        ("RollingUpdate", Some(rolling)) => rolling_update(errs, &p.child("rollingUpdate"), rolling),
        (other, _) => field::not_supported(errs, p.child("type"), other, &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(errs: &mut ErrorList, p: &Path, rolling: &Value) {
    let (unavailable, surge) = (get(rolling, "maxUnavailable"), get(rolling, "maxSurge"));
    int_or_percent(errs, &p.child("maxUnavailable"), unavailable);
    int_or_percent(errs, &p.child("maxSurge"), surge);
    if amount(unavailable) == 0 && amount(surge) == 0 {
        let detail = "may not be 0 when `maxSurge` is 0";
        field::invalid(errs, p.child("maxUnavailable"), unavailable.clone(), detail);
    }
    if unavailable.is_string() && amount(unavailable) > 100 {
        field::invalid(errs, p.child("maxUnavailable"), unavailable.clone(), "must not be greater than 100%");
    }
}

fn int_or_percent(errs: &mut ErrorList, p: &Path, value: &Value) {
    match value {
        Value::String(text) => field::invalid_each(errs, p, text, names::percent(text)),
        other => field::non_negative(errs, p, other.as_i64().unwrap_or(0)),
    }
}

/// The number, of a percentage too.
fn amount(value: &Value) -> i64 {
    match value {
        Value::String(text) => text.strip_suffix('%').and_then(|n| n.parse().ok()).unwrap_or(0),
        other => other.as_i64().unwrap_or(0),
    }
}

fn validate_status(_: &RuleContext<'_>, new: &Value, old: &Value, errs: &mut ErrorList) {
    let (p, s) = (Path::new("status"), get(new, "status"));
    for key in [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ] {
        field::non_negative(errs, p.child(key), int_of(s, key));
    }
    let (total, ready) = (int_of(s, "replicas"), int_of(s, "readyReplicas"));
    for key in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
        if int_of(s, key) > total {
            field::invalid(errs, p.child(key), int_of(s, key), "cannot be greater than status.replicas");
        }
    }
    if int_of(s, "availableReplicas") > ready {
        let n = int_of(s, "availableReplicas");
        field::invalid(errs, p.child("availableReplicas"), n, "cannot be greater than readyReplicas");
    }
    if int_of(s, "collisionCount") < status(old, "collisionCount") {
        field::invalid(errs, p.child("collisionCount"), int_of(s, "collisionCount"), "cannot be decremented");
    }
}
