//! Rules about metadata that the kinds state themselves: label and annotation
//! maps inside specs, label selectors, object names.
//!
//! The object's own metadata is checked by the registry.

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;

use crate::field::{self, Path};
use crate::value::{entries, list, opt, str_of};

const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Object names that are DNS subdomains (most kinds).
pub fn subdomain_name(name: &str, prefix: bool) -> Vec<String> {
    names::dns1123_subdomain(&masked(name, prefix))
}

/// Object names that are DNS labels (Namespace).
pub fn label_name(name: &str, prefix: bool) -> Vec<String> {
    names::dns1123_label(&masked(name, prefix))
}

/// Service names: RFC 1035 labels.
pub fn label1035_name(name: &str, prefix: bool) -> Vec<String> {
    names::dns1035_label(&masked(name, prefix))
}

/// Names of RBAC objects: anything that is one segment of a path.
pub fn path_segment_name(name: &str, _prefix: bool) -> Vec<String> {
    names::path_segment(name)
}

fn masked(name: &str, prefix: bool) -> String {
    if prefix { names::mask_trailing_dash(name) } else { name.to_owned() }
}

pub fn dns1123_label(errs: &mut ErrorList, p: &Path, value: &str) {
    field::invalid_each(errs, p, value, names::dns1123_label(value));
}

pub fn dns1123_subdomain(errs: &mut ErrorList, p: &Path, value: &str) {
    field::invalid_each(errs, p, value, names::dns1123_subdomain(value));
}

/// A label key.
pub fn label_key(errs: &mut ErrorList, p: &Path, key: &str) {
    field::invalid_each(errs, p, key, names::qualified_name(key));
}

pub fn labels(errs: &mut ErrorList, p: &Path, owner: &Value, key: &str) {
    for (k, v) in entries(owner, key) {
        label_key(errs, p, k);
        let v = v.as_str().unwrap_or("");
        field::invalid_each(errs, p, v, names::label_value(v));
    }
}

pub fn annotations(errs: &mut ErrorList, p: &Path, owner: &Value, key: &str) {
    let mut size = 0;
    for (k, v) in entries(owner, key) {
        // Keys may be upper-case for the sake of old clients.
        let lower = k.to_lowercase();
        field::invalid_each(errs, p, k, names::qualified_name(&lower));
        size += k.len() + v.as_str().unwrap_or("").len();
    }
    if size > ANNOTATIONS_MAX {
        field::too_long(errs, p, ANNOTATIONS_MAX);
    }
}

/// A `metav1.LabelSelector`.
pub fn label_selector(errs: &mut ErrorList, p: &Path, selector: Option<&Value>) {
    let Some(selector) = selector else { return };
    labels(errs, &p.child("matchLabels"), selector, "matchLabels");
    for (i, e) in list(selector, "matchExpressions").iter().enumerate() {
        let p = p.child("matchExpressions").index(i);
        let (operator, values) = (str_of(e, "operator"), list(e, "values"));
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                field::required(errs, p.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                field::forbidden(
                    errs,
                    p.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => field::invalid(errs, p.child("operator"), other, "not a valid selector operator"),
        }
        label_key(errs, &p.child("key"), str_of(e, "key"));
        for (j, v) in values.iter().enumerate() {
            let v = v.as_str().unwrap_or("");
            field::invalid_each(errs, &p.child("values").index(j), v, names::label_value(v));
        }
    }
}

/// Whether a selector selects everything: neither labels nor expressions.
pub fn selector_is_empty(selector: &Value) -> bool {
    entries(selector, "matchLabels").is_empty() && list(selector, "matchExpressions").is_empty()
}

/// Metadata of a pod template: its labels and annotations.
pub fn template_metadata(errs: &mut ErrorList, p: &Path, template: &Value) {
    let meta = opt(template, "metadata").unwrap_or(&Value::Null);
    labels(errs, &p.child("labels"), meta, "labels");
    annotations(errs, &p.child("annotations"), meta, "annotations");
}
