//! Kinds that are answered and not kept: token and access reviews, bindings.
//!
//! Their rules are here; the answers come from the server's authenticator and
//! authorizer.

use serde_json::{Value, json};
use triarch_api::status::{ErrorList, Status};
use triarch_registry::{Kind, Scope, Verb};

use crate::field::{self, Path};
use crate::meta;
use crate::value::{entries, get, is_set, list, opt, set, str_at, str_of};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const CREATE: &[Verb] = &[Verb::Create];

/// What all of them have in common.
const REVIEW: Kind = Kind {
    scope: Scope::Cluster,
    verbs: CREATE,
    stored: false,
    prepare_create: |_, v| set(v, "status", json!({})),
    ..Kind::BASE
};

pub static TOKEN_REVIEW: Kind = Kind {
    group: AUTHENTICATION,
    kind: "TokenReview",
    list_kind: "TokenReviewList",
    plural: "tokenreviews",
    singular: "tokenreview",
    schema: "authentication/v1.TokenReview",
    resource: "tokenreviews.authentication.k8s.io",
    refuse: |_, v| match str_at(v, &["spec", "token"]) {
        "" => Err(Status::bad_request("token is required for TokenReview in authentication")),
        _ => Ok(()),
    },
    ..REVIEW
};

pub static SELF_SUBJECT_REVIEW: Kind = Kind {
    group: AUTHENTICATION,
    kind: "SelfSubjectReview",
    list_kind: "SelfSubjectReviewList",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    schema: "authentication/v1.SelfSubjectReview",
    resource: "selfsubjectreviews.authentication.k8s.io",
    ..REVIEW
};

pub static SUBJECT_ACCESS_REVIEW: Kind = Kind {
    group: AUTHORIZATION,
    kind: "SubjectAccessReview",
    list_kind: "SubjectAccessReviewList",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    schema: "authorization/v1.SubjectAccessReview",
    resource: "subjectaccessreviews.authorization.k8s.io",
    validate: |_, v, errs| {
        let spec = get(v, "spec");
        attributes(errs, spec);
        subject(errs, spec);
        selectors(errs, spec);
        bare(errs, v, &[], "must be empty");
    },
    ..REVIEW
};

pub static LOCAL_SUBJECT_ACCESS_REVIEW: Kind = Kind {
    group: AUTHORIZATION,
    kind: "LocalSubjectAccessReview",
    list_kind: "LocalSubjectAccessReviewList",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    scope: Scope::Namespaced,
    schema: "authorization/v1.LocalSubjectAccessReview",
    resource: "localsubjectaccessreviews.authorization.k8s.io",
    validate: |_, v, errs| {
        let (spec, namespace) = (get(v, "spec"), str_at(v, &["metadata", "namespace"]));
        attributes(errs, spec);
        subject(errs, spec);
        selectors(errs, spec);
        bare(errs, v, &["namespace"], "must be empty except for namespace");
        if let Some(resource) = opt(spec, "resourceAttributes")
            && str_of(resource, "namespace") != namespace
        {
            let asked = str_of(resource, "namespace");
            field::invalid(errs, "spec.resourceAttributes.namespace", asked, "must match metadata.namespace");
        }
        if is_set(spec, "nonResourceAttributes") {
            field::invalid(errs, "spec.nonResourceAttributes", paths(spec), "disallowed on this kind of request");
        }
    },
    ..REVIEW
};

pub static SELF_SUBJECT_ACCESS_REVIEW: Kind = Kind {
    group: AUTHORIZATION,
    kind: "SelfSubjectAccessReview",
    list_kind: "SelfSubjectAccessReviewList",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    schema: "authorization/v1.SelfSubjectAccessReview",
    resource: "selfsubjectaccessreviews.authorization.k8s.io",
    validate: |_, v, errs| {
        attributes(errs, get(v, "spec"));
        selectors(errs, get(v, "spec"));
        bare(errs, v, &[], "must be empty");
    },
    ..REVIEW
};

pub static SELF_SUBJECT_RULES_REVIEW: Kind = Kind {
    group: AUTHORIZATION,
    kind: "SelfSubjectRulesReview",
    list_kind: "SelfSubjectRulesReviewList",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    schema: "authorization/v1.SelfSubjectRulesReview",
    resource: "selfsubjectrulesreviews.authorization.k8s.io",
    refuse: |_, v| match str_at(v, &["spec", "namespace"]) {
        "" => Err(Status::bad_request("no namespace on request")),
        _ => Ok(()),
    },
    ..REVIEW
};

/// A Binding posted to its own path instead of the pod's; the name is the pod's.
pub static BINDING: Kind = Kind {
    kind: "Binding",
    list_kind: "BindingList",
    plural: "bindings",
    singular: "binding",
    scope: Scope::Namespaced,
    schema: "core/v1.Binding",
    resource: "bindings",
    prepare_create: |_, _| {},
    validate_name: meta::subdomain_name,
    validate: |_, v, errs| crate::pod::binding::validate(v, errs),
    ..REVIEW
};

/// Exactly one of a resource and a path.
fn attributes(errs: &mut ErrorList, spec: &Value) {
    let p = Path::new("spec");
    match (is_set(spec, "resourceAttributes"), is_set(spec, "nonResourceAttributes")) {
        (true, true) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            field::invalid(errs, p.child("nonResourceAttributes"), paths(spec), detail);
        }
        (false, false) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            field::invalid(errs, p.child("resourceAttributes"), Value::Null, detail);
        }
        _ => {}
    }
}

/// The path attributes as messages show them: under their Go names.
fn paths(spec: &Value) -> Value {
    let of = |key: &str| str_at(spec, &["nonResourceAttributes", key]).to_owned();
    json!({"Path": of("path"), "Verb": of("verb")})
}

/// A review is not an object with a name.
fn bare(errs: &mut ErrorList, v: &Value, but: &[&str], detail: &str) {
    let metadata = get(v, "metadata");
    let given = |(key, value): (&str, &Value)| !but.contains(&key) && key != "managedFields" && !value.is_null();
    if entries(v, "metadata").into_iter().any(given) {
        field::invalid(errs, "metadata", metadata.clone(), detail);
    }
}

/// Field and label selectors that the request in question would carry.
fn selectors(errs: &mut ErrorList, spec: &Value) {
    let Some(resource) = opt(spec, "resourceAttributes") else { return };
    // Upstream's root is one element with a dot in it.
    let p = Path::new("spec.resourceAttributes");
    for (key, labels) in [("fieldSelector", false), ("labelSelector", true)] {
        let Some(selector) = opt(resource, key) else { continue };
        let p = p.child(key);
        let (raw, requirements) = (str_of(selector, "rawSelector"), list(selector, "requirements"));
        if !raw.is_empty() && !requirements.is_empty() {
            field::invalid(errs, p.child("rawSelector"), raw, "may not specified at the same time as requirements");
        }
        if raw.is_empty() && requirements.is_empty() {
            let detail = format!("when {p} is specified, requirements or rawSelector is required");
            field::required(errs, p.child("requirements"), &detail);
        }
        for (i, r) in requirements.iter().enumerate() {
            requirement(errs, &p.child("requirements").index(i), r, labels);
        }
    }
}

/// Operators that this server does not know are let through: newer servers ask older ones.
fn requirement(errs: &mut ErrorList, p: &Path, r: &Value, label: bool) {
    let values = list(r, "values");
    match str_of(r, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            field::required(errs, p.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            field::forbidden(errs, p.child("values"), detail);
        }
        _ => {}
    }
    if label {
        meta::label_key(errs, &p.child("key"), str_of(r, "key"));
        for (j, v) in values.iter().enumerate() {
            let v = v.as_str().unwrap_or("");
            field::invalid_each(errs, &p.child("values").index(j), v, triarch_api::names::label_value(v));
        }
    } else if str_of(r, "key").is_empty() {
        field::required(errs, p.child("key"), "must be specified");
    }
}

fn subject(errs: &mut ErrorList, spec: &Value) {
    if str_of(spec, "user").is_empty() && list(spec, "groups").is_empty() {
        field::invalid(errs, "spec.user", "", "at least one of user or group must be specified");
    }
}
