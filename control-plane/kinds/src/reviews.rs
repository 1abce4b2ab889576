//! Kinds that are answered and not kept: token and access reviews, bindings.
//!
//! Their rules are here; the answers come from the server's authenticator and
//! authorizer.

use serde_json::{Value, json};
use triarch_api::status::ErrorList;
use triarch_registry::{Kind, Scope, Verb};

use crate::field::{self, Path};
use crate::meta;
use crate::value::{get, is_set, list, opt, set, str_at, str_of};

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
        attributes(errs, get(v, "spec"));
        subject(errs, get(v, "spec"));
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
        if let Some(resource) = opt(spec, "resourceAttributes")
            && str_of(resource, "namespace") != namespace
        {
            let asked = str_of(resource, "namespace");
            field::invalid(errs, "spec.resourceAttributes.namespace", asked, "must match metadata.namespace");
        }
        if let Some(paths) = opt(spec, "nonResourceAttributes") {
            field::invalid(errs, "spec.nonResourceAttributes", paths.clone(), "disallowed on this kind of request");
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
    validate: |_, v, errs| attributes(errs, get(v, "spec")),
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
            field::invalid(errs, p.child("nonResourceAttributes"), get(spec, "nonResourceAttributes").clone(), detail);
        }
        (false, false) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            field::invalid(errs, p.child("resourceAttributes"), Value::Null, detail);
        }
        _ => {}
    }
}

fn subject(errs: &mut ErrorList, spec: &Value) {
    if str_of(spec, "user").is_empty() && list(spec, "groups").is_empty() {
        field::invalid(errs, "spec.user", "", "at least one of user or group must be specified");
    }
}
