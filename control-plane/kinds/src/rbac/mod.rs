//! RBAC's four kinds, and what they share: policy rules, subjects, role references.

pub mod cluster_role;
pub mod cluster_role_binding;
pub mod role;
pub mod role_binding;

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::{ErrorList, FieldError};
use triarch_env::Wall;

use crate::field::{self, Path};
use crate::go_form;
use crate::meta;
use crate::value::{default_str, each_mut, get, list, same, str_of};

pub const GROUP: &str = "rbac.authorization.k8s.io";

/// A rule of a Role (`namespaced`) or a ClusterRole.
fn policy_rules(errs: &mut ErrorList, v: &Value, namespaced: bool) {
    for (i, rule) in list(v, "rules").iter().enumerate() {
        let p = Path::new("rules").index(i);
        let has = |key: &str| !list(rule, key).is_empty();
        if !has("verbs") {
            field::required(errs, p.child("verbs"), "verbs must contain at least one value");
        }
        if has("nonResourceURLs") {
            let urls = get(rule, "nonResourceURLs").clone();
            if namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                field::invalid(errs, p.child("nonResourceURLs"), urls.clone(), detail);
            }
            if has("apiGroups") || has("resources") || has("resourceNames") {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                field::invalid(errs, p.child("nonResourceURLs"), urls, detail);
            }
            continue;
        }
        if !has("apiGroups") {
            field::required(errs, p.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if !has("resources") {
            field::required(errs, p.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

/// Groups of references that were left out.
fn binding_defaults(v: &mut Value) {
    if let Some(role) = crate::value::child_if_set(v, "roleRef") {
        default_str(role, "apiGroup", GROUP);
    }
    for subject in each_mut(v, "subjects") {
        if ["User", "Group"].contains(&str_of(subject, "kind")) {
            default_str(subject, "apiGroup", GROUP);
        }
    }
}

fn binding(errs: &mut ErrorList, v: &Value, kinds: &[&str], namespaced: bool) {
    let (p, role) = (Path::new("roleRef"), get(v, "roleRef"));
    let (group, kind, name) = (str_of(role, "apiGroup"), str_of(role, "kind"), str_of(role, "name"));
    if group != GROUP {
        field::not_supported(errs, p.child("apiGroup"), group, &[GROUP]);
    }
    if !kinds.contains(&kind) {
        field::not_supported(errs, p.child("kind"), kind, kinds);
    }
    if name.is_empty() {
        field::required(errs, p.child("name"), "");
    } else {
        field::invalid_each(errs, &p.child("name"), name, names::path_segment(name));
    }
    for (i, s) in list(v, "subjects").iter().enumerate() {
        subject(errs, &Path::new("subjects").index(i), s, namespaced);
    }
}

fn subject(errs: &mut ErrorList, p: &Path, s: &Value, namespaced: bool) {
    let (kind, name, group) = (str_of(s, "kind"), str_of(s, "name"), str_of(s, "apiGroup"));
    if name.is_empty() {
        field::required(errs, p.child("name"), "");
    }
    match kind {
        "ServiceAccount" => {
            if !name.is_empty() {
                meta::dns1123_subdomain(errs, &p.child("name"), name);
            }
            if !group.is_empty() {
                field::not_supported(errs, p.child("apiGroup"), group, &[""]);
            }
            if !namespaced && str_of(s, "namespace").is_empty() {
                field::required(errs, p.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                field::not_supported(errs, p.child("apiGroup"), group, &[GROUP]);
            }
        }
        other => field::not_supported(errs, p.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

fn keeps_role(errs: &mut ErrorList, new: &Value, old: &Value) {
    if !same(get(new, "roleRef"), get(old, "roleRef")) {
        let shown = go_form::compact("rbac/v1.RoleRef", get(new, "roleRef"));
        errs.push(FieldError::invalid("roleRef", Value::Null, "cannot change roleRef").showing(shown));
    }
}

fn role_cell(v: &Value, _: Wall) -> Value {
    let role = get(v, "roleRef");
    format!("{}/{}", str_of(role, "kind"), str_of(role, "name")).into()
}

/// The names of the subjects of a kind, as `-o wide` shows them.
fn subjects(v: &Value, kind: &str) -> Value {
    let of_kind = list(v, "subjects").iter().filter(|s| str_of(s, "kind") == kind);
    let names: Vec<String> = of_kind
        .map(|s| match kind {
            "ServiceAccount" => format!("{}/{}", str_of(s, "namespace"), str_of(s, "name")),
            _ => str_of(s, "name").to_owned(),
        })
        .collect();
    names.join(", ").into()
}
