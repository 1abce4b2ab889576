//! Pod and its subresources.
//!
//! ```text
//!   update ── what may change in a spec, ephemeral containers, resize
//!   status ── what may change in a status
//!   binding, eviction ── actions        columns ── kubectl get pods
//! ```

pub mod binding;
mod columns;
mod eviction;
mod status;
mod update;

use serde_json::{Value, json};
use triarch_api::status::ErrorList;
use triarch_registry::{
    DeleteRule, GenerationRule, Kind, RuleContext, SelectableField, StatusRule, Subresource, SubresourceHandler, Verb,
};

use crate::field::{self, Path};
use crate::value::{at, child, copy, flag, get, is_set, list, list_at, set, str_at, str_of};
use crate::{meta, pod_spec};

const CONNECT: &[Verb] = &[Verb::Create, Verb::Get];
const VIEW: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

pub static KIND: Kind = Kind {
    kind: "Pod",
    list_kind: "PodList",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    schema: "core/v1.Pod",
    resource: "pods",
    subresources: &[
        connect("attach", CONNECT, "PodAttachOptions", "core/v1.PodAttachOptions"),
        Subresource {
            name: "binding",
            verbs: &[Verb::Create],
            handler: SubresourceHandler::Action(binding::bind),
            response: ("", "v1", "Binding"),
            schema: "core/v1.Binding",
        },
        Subresource {
            name: "ephemeralcontainers",
            verbs: VIEW,
            handler: SubresourceHandler::View { merge: update::with_ephemeral_containers },
            response: ("", "v1", "Pod"),
            schema: "core/v1.Pod",
        },
        Subresource {
            name: "eviction",
            verbs: &[Verb::Create],
            handler: SubresourceHandler::Action(eviction::evict),
            response: ("policy", "v1", "Eviction"),
            schema: "policy/v1.Eviction",
        },
        connect("exec", CONNECT, "PodExecOptions", "core/v1.PodExecOptions"),
        connect("log", &[Verb::Get], "Pod", "core/v1.Pod"),
        connect("portforward", CONNECT, "PodPortForwardOptions", "core/v1.PodPortForwardOptions"),
        connect(
            "proxy",
            &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
            "PodProxyOptions",
            "core/v1.PodProxyOptions",
        ),
        Subresource {
            name: "resize",
            verbs: VIEW,
            handler: SubresourceHandler::View { merge: update::with_resources },
            response: ("", "v1", "Pod"),
            schema: "core/v1.Pod",
        },
        Subresource {
            name: "status",
            verbs: VIEW,
            handler: SubresourceHandler::Status,
            response: ("", "v1", "Pod"),
            schema: "core/v1.Pod",
        },
    ],
    columns: columns::COLUMNS,
    row_conditions: columns::conditions,
    selectable: SELECTABLE,
    generation: GenerationRule::Spec,
    delete: DeleteRule::Graceful,
    validate_name: meta::subdomain_name,
    defaults: |v| {
        let spec = child(v, "spec");
        pod_spec::default_template(spec);
        pod_spec::default_pod(spec);
    },
    prepare_create,
    prepare_update: |_, new, old| {
        copy(old, new, "status");
        // Only their own subresource changes them.
        copy(get(old, "spec"), child(new, "spec"), "ephemeralContainers");
    },
    validate,
    validate_update: |ctx, new, old, errs| match ctx.subresource {
        Some("ephemeralcontainers") => {
            validate(ctx, new, errs);
            update::ephemeral_containers(new, old, errs);
        }
        Some("resize") => {
            validate(ctx, new, errs);
            update::resize(new, old, errs);
        }
        _ => update::spec(new, old, errs),
    },
    status: Some(StatusRule {
        // Old agents damaged owner references through this door.
        stored_metadata: &["ownerReferences"],
        prepare: status::prepare,
        validate: status::validate,
    }),
    warnings,
    ..Kind::BASE
};

const fn connect(name: &'static str, verbs: &'static [Verb], kind: &'static str, schema: &'static str) -> Subresource {
    Subresource { name, verbs, handler: SubresourceHandler::Connect, response: ("", "v1", kind), schema }
}

const SELECTABLE: &[SelectableField] = &[
    SelectableField { path: "spec.nodeName", get: |v| str_at(v, &["spec", "nodeName"]).to_owned() },
    SelectableField { path: "spec.restartPolicy", get: |v| str_at(v, &["spec", "restartPolicy"]).to_owned() },
    SelectableField { path: "spec.schedulerName", get: |v| str_at(v, &["spec", "schedulerName"]).to_owned() },
    SelectableField { path: "spec.serviceAccountName", get: |v| str_at(v, &["spec", "serviceAccountName"]).to_owned() },
    SelectableField { path: "spec.hostNetwork", get: |v| flag(get(v, "spec"), "hostNetwork").to_string() },
    SelectableField { path: "status.phase", get: |v| str_at(v, &["status", "phase"]).to_owned() },
    SelectableField { path: "status.podIP", get: |v| str_at(v, &["status", "podIP"]).to_owned() },
    SelectableField {
        path: "status.nominatedNodeName",
        get: |v| str_at(v, &["status", "nominatedNodeName"]).to_owned(),
    },
];

/// The user's status is dropped: a pod starts Pending, with its QoS class.
fn prepare_create(_: &RuleContext<'_>, v: &mut Value) {
    let spec = get(v, "spec");
    let gated = !list(spec, "schedulingGates").is_empty();
    let mut status = json!({"phase": "Pending", "qosClass": pod_spec::resources::qos_class(spec)});
    if gated {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    set(v, "status", status);
}

/// The rules of a pod on create and update.
fn validate(_: &RuleContext<'_>, v: &Value, errs: &mut ErrorList) {
    let (p, spec) = (Path::new("spec"), get(v, "spec"));
    // A pod that is being created has no resourceVersion yet.
    let creating = str_at(v, &["metadata", "resourceVersion"]).is_empty();
    pod_spec::validate(errs, &p, spec, true, str_at(v, &["metadata", "name"]));
    if str_of(spec, "serviceAccountName").is_empty() {
        for (i, volume) in list(spec, "volumes").iter().enumerate() {
            for (j, source) in list(get(volume, "projected"), "sources").iter().enumerate() {
                if is_set(source, "serviceAccountToken") {
                    let p = p.child("volumes").index(i).child("projected").child("sources").index(j);
                    let detail = "must not be specified when serviceAccountName is not set";
                    field::forbidden(errs, p.child("serviceAccountToken"), detail);
                }
            }
        }
    }
    pod_spec::only_in_pods(errs, &p, spec);
    if creating {
        if !list(spec, "ephemeralContainers").is_empty() {
            field::forbidden(errs, p.child("ephemeralContainers"), "cannot be set on create");
        }
        if !str_of(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
            let detail = "cannot be set until all schedulingGates have been cleared";
            field::forbidden(errs, p.child("nodeName"), detail);
        }
    }
}

/// What is allowed but surprising. On update only when the spec changed.
fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    if old.is_some_and(|old| get(old, "spec") == get(new, "spec")) {
        return Vec::new();
    }
    let mut out = Vec::new();
    let p = Path::new("spec");
    for (p, c) in pod_spec::each_container(get(new, "spec"), &p) {
        let env = list(c, "env");
        for (i, var) in env.iter().enumerate() {
            let name = str_of(var, "name");
            if env[..i].iter().any(|earlier| str_of(earlier, "name") == name) {
                let at = p.child("env").index(i);
                out.push(format!("{at}: hides previous definition of {name:?}, which may be dropped when using apply"));
            }
        }
    }
    for (i, volume) in list_at(new, &["spec", "volumes"]).iter().enumerate() {
        if is_set(volume, "gitRepo") {
            let at = p.child("volumes").index(i).child("gitRepo");
            out.push(format!("{at}: deprecated in v1.11, and disabled by default in v1.33+"));
        }
    }
    if at(new, &["spec", "terminationGracePeriodSeconds"]).as_i64().is_some_and(|s| s < 0) {
        out.push(
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
                .to_owned(),
        );
    }
    out
}
