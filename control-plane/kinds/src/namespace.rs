//! Namespace, its `finalize` and `status`.

use serde_json::{Value, json};
use triarch_api::names;
use triarch_api::status::ErrorList;
use triarch_registry::{
    DeleteRule, Kind, RuleContext, Scope, SelectableField, StatusRule, Subresource, SubresourceHandler, Verb,
};

use crate::field::{self, Path};
use crate::meta;
use crate::print::{AGE, NAME, text};
use crate::value::{at, child, copy, default_str, is_set, list_at, object, set, str_at};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub static KIND: Kind = Kind {
    kind: "Namespace",
    list_kind: "NamespaceList",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    scope: Scope::Cluster,
    verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch],
    schema: "core/v1.Namespace",
    resource: "namespaces",
    subresources: &[
        Subresource {
            name: "finalize",
            verbs: &[Verb::Update],
            handler: SubresourceHandler::View { merge: finalize },
            response: ("", "v1", "Namespace"),
            schema: "core/v1.Namespace",
        },
        Subresource {
            name: "status",
            verbs: &[Verb::Get, Verb::Patch, Verb::Update],
            handler: SubresourceHandler::Status,
            response: ("", "v1", "Namespace"),
            schema: "core/v1.Namespace",
        },
    ],
    columns: &[NAME, text("Status", "The status of the namespace", |v, _| str_at(v, &["status", "phase"]).into()), AGE],
    selectable: &[SelectableField { path: "status.phase", get: |v| str_at(v, &["status", "phase"]).to_owned() }],
    delete: DeleteRule::Finalized,
    validate_name: meta::label_name,
    defaults,
    prepare_create: |_, v| {
        set(v, "status", json!({"phase": "Active"}));
        let spec = child(v, "spec");
        let mut finalizers = spec.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
        if !finalizers.iter().any(|f| f == "kubernetes") {
            finalizers.push("kubernetes".into());
        }
        set(spec, "finalizers", finalizers);
        defaults(v);
    },
    prepare_update: |_, new, old| {
        copy(old, new, "status");
        let finalizers = at(old, &["spec", "finalizers"]).clone();
        set(child(new, "spec"), "finalizers", finalizers);
    },
    validate: |_, v, errs| {
        for name in list_at(v, &["spec", "finalizers"]) {
            finalizer(errs, &Path::new("spec").child("finalizers"), name.as_str().unwrap_or(""));
        }
    },
    validate_update: |ctx, new, _, errs| {
        if ctx.subresource == Some("finalize") {
            for (i, name) in list_at(new, &["spec", "finalizers"]).iter().enumerate() {
                finalizer(errs, &Path::new("spec").child("finalizers").index(i), name.as_str().unwrap_or(""));
            }
        }
    },
    status: Some(StatusRule { validate: validate_status, ..StatusRule::BASE }),
    ..Kind::BASE
};

/// The name is also a label, so that selectors can name namespaces.
fn defaults(v: &mut Value) {
    let name = str_at(v, &["metadata", "name"]).to_owned();
    if !name.is_empty() {
        object(child(child(v, "metadata"), "labels")).insert(NAME_LABEL.to_owned(), name.into());
    }
    default_str(child(v, "status"), "phase", "Active");
}

/// What `finalize` may change: the finalizers, and metadata.
fn finalize(new: &Value, old: &Value) -> Value {
    let mut out = new.clone();
    copy(old, &mut out, "status");
    out
}

fn finalizer(errs: &mut ErrorList, p: &Path, name: &str) {
    field::invalid_each(errs, p, name, names::qualified_name(name));
    if !name.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&name) {
        field::invalid(errs, p, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

fn validate_status(_: &RuleContext<'_>, new: &Value, _: &Value, errs: &mut ErrorList) {
    let phase = str_at(new, &["status", "phase"]);
    let deleting = is_set(at(new, &["metadata"]), "deletionTimestamp");
    let p = "status.Phase";
    if !deleting && phase != "Active" {
        field::invalid(errs, p, phase, "may only be 'Active' if `deletionTimestamp` is empty");
    }
    if deleting && phase != "Terminating" {
        field::invalid(errs, p, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
    }
}
