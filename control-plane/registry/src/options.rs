//! Options of the verbs, parsed from a query or a body elsewhere.

use serde_json::{Value, json};
use triarch_api::status::{ErrorList, FieldError, Status};

use crate::Kind;

/// What a verb is about.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub kind: &'static Kind,
    pub subresource: Option<&'a str>,
    /// Empty: cluster-scoped, or all namespaces.
    pub namespace: &'a str,
    /// Empty: the collection.
    pub name: &'a str,
}

impl<'a> Target<'a> {
    pub fn object(kind: &'static Kind, namespace: &'a str, name: &'a str) -> Target<'a> {
        Target { kind, subresource: None, namespace, name }
    }

    pub fn collection(kind: &'static Kind, namespace: &'a str) -> Target<'a> {
        Target { kind, subresource: None, namespace, name: "" }
    }

    pub fn with_subresource(self, subresource: &'a str) -> Target<'a> {
        Target { subresource: Some(subresource), ..self }
    }
}

/// `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// Options of create, update and patch.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
}

/// How a list or a watch names its revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RevisionMatch {
    #[default]
    Unset,
    Exact,
    NotOlderThan,
}

/// Options of list, watch and deletecollection.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub resource_version: String,
    pub resource_version_match: RevisionMatch,
    /// 0: no limit.
    pub limit: usize,
    pub continue_token: String,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout_seconds: Option<u64>,
}

/// metav1.DeleteOptions.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub propagation_policy: Option<String>,
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads a decoded body.
    pub fn from_value(v: &Value) -> DeleteOptions {
        let text = |p: &str| v.pointer(p).and_then(Value::as_str).map(str::to_owned);
        DeleteOptions {
            grace_period_seconds: v.get("gracePeriodSeconds").and_then(Value::as_i64),
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            orphan_dependents: v.get("orphanDependents").and_then(Value::as_bool),
            propagation_policy: text("/propagationPolicy"),
            dry_run: v.get("dryRun").and_then(Value::as_array).is_some_and(|a| !a.is_empty()),
        }
    }

    pub fn to_value(&self) -> Value {
        let mut v = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(s) = self.grace_period_seconds {
            v["gracePeriodSeconds"] = s.into();
        }
        if self.uid.is_some() || self.resource_version.is_some() {
            let mut p = json!({});
            if let Some(uid) = &self.uid {
                p["uid"] = uid.clone().into();
            }
            if let Some(rv) = &self.resource_version {
                p["resourceVersion"] = rv.clone().into();
            }
            v["preconditions"] = p;
        }
        if let Some(o) = self.orphan_dependents {
            v["orphanDependents"] = o.into();
        }
        if let Some(p) = &self.propagation_policy {
            v["propagationPolicy"] = p.clone().into();
        }
        if self.dry_run {
            v["dryRun"] = json!(["All"]);
        }
        v
    }
}

/// A `resourceVersion` as sent: absent, or a number.
pub fn parse_revision(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let mut errors = ErrorList::new();
        errors.push(FieldError::invalid(
            "resourceVersion",
            text,
            format!("strconv.ParseUint: parsing \"{text}\": invalid syntax"),
        ));
        Status::invalid(("meta.k8s.io", "ListOptions"), "", &errors)
    })
}
