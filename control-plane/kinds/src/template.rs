//! Pod templates: defaults and rules shared by every kind that makes pods.

use serde_json::Value;
use triarch_api::selector::LabelSelector;
use triarch_api::status::ErrorList;

use crate::field::{self, Path};
use crate::value::{at, child, get, is_set, list, opt, str_of};
use crate::{meta, pod_spec};

/// Defaults of `spec.template`.
pub fn defaults(spec: &mut Value) {
    pod_spec::default_template(child(child(spec, "template"), "spec"));
}

/// The rules of a template at `p`.
pub fn validate(errs: &mut ErrorList, p: &Path, template: &Value) {
    meta::template_metadata(errs, p, template);
    let spec = get(template, "spec");
    pod_spec::validate(errs, &p.child("spec"), spec, false, "");
    if !list(spec, "ephemeralContainers").is_empty() {
        let p = p.child("spec").child("ephemeralContainers");
        field::forbidden(errs, p, "ephemeral containers not allowed in pod template");
    }
}

/// A template that a Deployment or a ReplicaSet keeps running, against its selector.
pub fn validate_for_replicas(errs: &mut ErrorList, p: &Path, template: &Value, selector: &LabelSelector) {
    let labels = at(template, &["metadata", "labels"]);
    if !selector.is_everything() && !selector.matches(|key| labels.get(key).and_then(Value::as_str)) {
        let detail = "`selector` does not match template `labels`";
        field::invalid(errs, p.child("metadata").child("labels"), labels.clone(), detail);
    }
    validate(errs, p, template);
    let spec = get(template, "spec");
    let policy = str_of(spec, "restartPolicy");
    if policy != "Always" {
        field::not_supported(errs, p.child("spec").child("restartPolicy"), policy, &["Always"]);
    }
    if is_set(spec, "activeDeadlineSeconds") {
        let p = p.child("spec").child("activeDeadlineSeconds");
        field::forbidden(errs, p, "activeDeadlineSeconds in ReplicaSet is not Supported");
    }
}

/// `spec.selector` of a kind that owns pods: set, valid and not empty. Gives
/// the selector when the template can be compared with it.
pub fn selector(errs: &mut ErrorList, p: &Path, spec: &Value) -> Option<LabelSelector> {
    let Some(selector) = opt(spec, "selector") else {
        field::required(errs, p, "");
        return None;
    };
    meta::label_selector(errs, p, Some(selector));
    if meta::selector_is_empty(selector) {
        // ReplicaSets say "deployment" too.
        field::invalid(errs, p, selector.clone(), "empty selector is invalid for deployment");
    }
    match LabelSelector::from_json(selector) {
        Ok(parsed) => Some(parsed),
        Err(_) => {
            field::invalid(errs, p, selector.clone(), "invalid label selector");
            None
        }
    }
}

/// A selector as text, for Scale and columns.
pub fn selector_text(selector: &Value) -> String {
    match LabelSelector::from_json(selector) {
        Ok(s) => s.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}
