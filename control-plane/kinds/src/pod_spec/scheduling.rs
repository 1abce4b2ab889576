//! What steers scheduling apart from affinity: tolerations, gates, topology
//! spread, resource claims.

use std::collections::BTreeSet;

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;

use crate::field::{self, Path};
use crate::meta;
use crate::value::{entries, int_of, is_set, list, opt, opt_int, str_of};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// A taint's effect.
pub fn taint_effect(errs: &mut ErrorList, p: &Path, effect: &str) {
    field::one_of(errs, p, effect, &EFFECTS);
}

pub fn tolerations(errs: &mut ErrorList, p: &Path, spec: &Value) {
    for (i, t) in list(spec, "tolerations").iter().enumerate() {
        let p = p.index(i);
        let (key, operator, value, effect) =
            (str_of(t, "key"), str_of(t, "operator"), str_of(t, "value"), str_of(t, "effect"));
        if !key.is_empty() {
            meta::label_key(errs, &p.child("key"), key);
        }
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            field::invalid(errs, p.child("operator"), operator, detail);
        }
        if is_set(t, "tolerationSeconds") && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            field::invalid(errs, p.child("effect"), effect, detail);
        }
        match operator {
            "Equal" | "" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    field::invalid(errs, p.child("operator"), value, messages.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    field::invalid(errs, p.child("operator"), value, "value must be empty when `operator` is 'Exists'");
                }
            }
            other => field::not_supported(errs, p.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            taint_effect(errs, &p.child("effect"), effect);
        }
    }
}

pub fn readiness_gates(errs: &mut ErrorList, p: &Path, spec: &Value) {
    for (i, gate) in list(spec, "readinessGates").iter().enumerate() {
        meta::label_key(errs, &p.index(i).child("conditionType"), str_of(gate, "conditionType"));
    }
}

pub fn scheduling_gates(errs: &mut ErrorList, p: &Path, spec: &Value) {
    let mut seen = BTreeSet::new();
    for (i, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let name = str_of(gate, "name");
        meta::label_key(errs, &p.index(i), name);
        if !seen.insert(name) {
            field::duplicate(errs, p.index(i), name);
        }
    }
}

pub fn topology_spread(errs: &mut ErrorList, p: &Path, spec: &Value) {
    let constraints = list(spec, "topologySpreadConstraints");
    for (i, c) in constraints.iter().enumerate() {
        let p = p.index(i);
        let (skew, key, action) = (int_of(c, "maxSkew"), str_of(c, "topologyKey"), str_of(c, "whenUnsatisfiable"));
        if skew <= 0 {
            field::invalid(errs, p.child("maxSkew"), skew, "must be greater than zero");
        }
        if key.is_empty() {
            field::required(errs, p.child("topologyKey"), "can not be empty");
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action) {
            field::not_supported(errs, p.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        let twin = |o: &Value| str_of(o, "topologyKey") == key && str_of(o, "whenUnsatisfiable") == action;
        if constraints[i + 1..].iter().any(twin) {
            field::duplicate(errs, p.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
        }
        if let Some(domains) = opt_int(c, "minDomains") {
            if domains <= 0 {
                field::invalid(errs, p.child("minDomains"), domains, "must be greater than zero");
            }
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                field::invalid(errs, p.child("minDomains"), domains, detail);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(v) = opt(c, policy).and_then(Value::as_str)
                && !["Honor", "Ignore"].contains(&v)
            {
                field::not_supported(errs, p.child(policy), v, &["Honor", "Ignore"]);
            }
        }
        match_label_keys(errs, &p.child("matchLabelKeys"), c);
        meta::label_selector(errs, &p.child("labelSelector"), opt(c, "labelSelector"));
    }
}

fn match_label_keys(errs: &mut ErrorList, p: &Path, c: &Value) {
    let keys = list(c, "matchLabelKeys");
    if keys.is_empty() {
        return;
    }
    let mut known = BTreeSet::new();
    match opt(c, "labelSelector") {
        Some(selector) => {
            known.extend(entries(selector, "matchLabels").into_iter().map(|(k, _)| k));
            known.extend(list(selector, "matchExpressions").iter().map(|e| str_of(e, "key")));
        }
        None => field::forbidden(errs, p, "must not be specified when labelSelector is not set"),
    }
    for (i, key) in keys.iter().enumerate() {
        let key = key.as_str().unwrap_or("");
        meta::label_key(errs, &p.index(i), key);
        if known.contains(key) {
            field::invalid(errs, p.index(i), key, "exists in both matchLabelKeys and labelSelector");
        }
    }
}

pub fn resource_claims(errs: &mut ErrorList, p: &Path, spec: &Value) {
    let mut seen = BTreeSet::new();
    for (i, claim) in list(spec, "resourceClaims").iter().enumerate() {
        let (p, name) = (p.index(i), str_of(claim, "name"));
        if name.is_empty() {
            field::required(errs, p.child("name"), "");
        } else if !seen.insert(name) {
            field::duplicate(errs, p.child("name"), name);
        } else {
            meta::dns1123_label(errs, &p.child("name"), name);
        }
        let (direct, template) = (is_set(claim, "resourceClaimName"), is_set(claim, "resourceClaimTemplateName"));
        if direct && template {
            let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
            field::invalid(errs, &p, claim.clone(), detail);
        }
        if !direct && !template {
            let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
            field::invalid(errs, &p, claim.clone(), detail);
        }
        for key in ["resourceClaimName", "resourceClaimTemplateName"] {
            if is_set(claim, key) {
                meta::dns1123_subdomain(errs, &p.child(key), str_of(claim, key));
            }
        }
    }
}
