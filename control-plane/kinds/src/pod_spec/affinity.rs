//! Node affinity, pod affinity and pod anti-affinity.

use std::collections::BTreeSet;

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;

use crate::field::{self, Path};
use crate::meta;
use crate::value::{entries, int_of, list, opt, str_of};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub fn validate(errs: &mut ErrorList, p: &Path, affinity: Option<&Value>) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = opt(affinity, "nodeAffinity") {
        let p = p.child("nodeAffinity");
        if let Some(required) = opt(node, REQUIRED) {
            node_affinity_required(errs, &p.child(REQUIRED), required);
        }
        for (i, term) in list(node, PREFERRED).iter().enumerate() {
            let p = p.child(PREFERRED).index(i);
            weight(errs, &p, term);
            if let Some(preference) = opt(term, "preference") {
                node_term(errs, &p.child("preference"), preference, true);
            }
        }
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = opt(affinity, key) else { continue };
        let p = p.child(key);
        for (i, term) in list(pods, REQUIRED).iter().enumerate() {
            pod_term(errs, &p.child(REQUIRED).index(i), term);
        }
        for (i, term) in list(pods, PREFERRED).iter().enumerate() {
            let p = p.child(PREFERRED).index(i);
            weight(errs, &p, term);
            if let Some(term) = opt(term, "podAffinityTerm") {
                pod_term(errs, &p.child("podAffinityTerm"), term);
            }
        }
    }
}

fn weight(errs: &mut ErrorList, p: &Path, term: &Value) {
    let weight = int_of(term, "weight");
    if !(1..=100).contains(&weight) {
        field::invalid(errs, p.child("weight"), weight, "must be in the range 1-100");
    }
}

/// A `NodeSelector`.
pub fn node_affinity_required(errs: &mut ErrorList, p: &Path, selector: &Value) {
    let (p, terms) = (p.child("nodeSelectorTerms"), list(selector, "nodeSelectorTerms"));
    if terms.is_empty() {
        field::required(errs, &p, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(errs, &p.index(i), term, false);
    }
}

fn node_term(errs: &mut ErrorList, p: &Path, term: &Value, any_value: bool) {
    for (i, e) in list(term, "matchExpressions").iter().enumerate() {
        node_requirement(errs, &p.child("matchExpressions").index(i), e, any_value);
    }
    for (i, e) in list(term, "matchFields").iter().enumerate() {
        node_field_requirement(errs, &p.child("matchFields").index(i), e);
    }
}

fn node_requirement(errs: &mut ErrorList, p: &Path, e: &Value, any_value: bool) {
    let values = list(e, "values");
    match str_of(e, "operator") {
        "In" | "NotIn" => {
            if values.is_empty() {
                field::required(errs, p.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                field::forbidden(errs, p.child("values"), detail);
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                field::required(errs, p.child("values"), detail);
            }
        }
        other => field::invalid(errs, p.child("operator"), other, "not a valid selector operator"),
    }
    meta::label_key(errs, &p.child("key"), str_of(e, "key"));
    if !any_value {
        for (i, v) in values.iter().enumerate() {
            let v = v.as_str().unwrap_or("");
            field::invalid_each(errs, &p.child("values").index(i), v, names::label_value(v));
        }
    }
}

fn node_field_requirement(errs: &mut ErrorList, p: &Path, e: &Value) {
    let values = list(e, "values");
    match str_of(e, "operator") {
        "In" | "NotIn" => {
            if values.len() != 1 {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                field::required(errs, p.child("values"), detail);
            }
        }
        other => field::invalid(errs, p.child("operator"), other, "not a valid selector operator"),
    }
    match str_of(e, "key") {
        "metadata.name" => {
            for (i, v) in values.iter().enumerate() {
                meta::dns1123_subdomain(errs, &p.child("values").index(i), v.as_str().unwrap_or(""));
            }
        }
        other => field::invalid(errs, p.child("key"), other, "not a valid field selector key"),
    }
}

fn pod_term(errs: &mut ErrorList, p: &Path, term: &Value) {
    let selector = opt(term, "labelSelector");
    meta::label_selector(errs, &p.child("labelSelector"), selector);
    meta::label_selector(errs, &p.child("namespaceSelector"), opt(term, "namespaceSelector"));
    for name in list(term, "namespaces") {
        let name = name.as_str().unwrap_or("");
        field::invalid_each(errs, &p.child("namespace"), name, names::dns1123_label(name));
    }
    label_keys(errs, p, term, selector);
    let key = str_of(term, "topologyKey");
    if key.is_empty() {
        field::required(errs, p.child("topologyKey"), "can not be empty");
    }
    meta::label_key(errs, &p.child("topologyKey"), key);
}

/// `matchLabelKeys` and `mismatchLabelKeys` of a pod affinity term.
fn label_keys(errs: &mut ErrorList, p: &Path, term: &Value, selector: Option<&Value>) {
    for which in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = list(term, which);
        if keys.is_empty() {
            continue;
        }
        let p = p.child(which);
        if selector.is_none() {
            field::forbidden(errs, p, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            meta::label_key(errs, &p.index(i), key.as_str().unwrap_or(""));
        }
    }
    let matching = list(term, "matchLabelKeys");
    if let Some(selector) = selector {
        let mut known: BTreeSet<&str> = entries(selector, "matchLabels").into_iter().map(|(k, _)| k).collect();
        for e in list(selector, "matchExpressions") {
            let key = str_of(e, "key");
            if let Some(i) = matching.iter().position(|k| k == key)
                && known.contains(key)
            {
                field::invalid(errs, p.index(i), key, "exists in both matchLabelKeys and labelSelector");
            }
            known.insert(key);
        }
    }
    for (i, key) in matching.iter().enumerate() {
        if list(term, "mismatchLabelKeys").contains(key) {
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            field::invalid(errs, p.child("matchLabelKeys").index(i), key.clone(), detail);
        }
    }
}
