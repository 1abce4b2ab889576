//! ObjectMeta: what the server fills in, what nobody may change, and
//! upstream's validation texts. The same for every kind.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use triarch_api::meta;
use triarch_api::names;
use triarch_api::status::{ErrorList, FieldError, Path, Status};
use triarch_env::{Env, Wall};

use crate::{GenerationRule, Kind, err};

/// Total bytes of annotations, keys and values.
const MAX_ANNOTATIONS: usize = 256 * 1024;
/// Generated names fit in a DNS label.
const MAX_GENERATE_BASE: usize = 58;
const SUFFIX: usize = 5;
pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

fn metadata(value: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    let map = value.as_object_mut().expect("made an object above");
    let entry = map.entry("metadata").or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    entry.as_object_mut().expect("made an object above")
}

/// Puts the request's namespace into the object, or refuses another one.
pub fn place(kind: &Kind, namespace: &str, value: &mut Value) -> Result<(), Status> {
    let have = meta::namespace(value).to_owned();
    if !kind.namespaced() {
        // A namespace on a cluster-scoped object is refused by validation.
        return Ok(());
    }
    if have.is_empty() {
        metadata(value).insert("namespace".into(), namespace.into());
    } else if have != namespace {
        return Err(err::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Whether the object names itself as the URL does.
pub fn check_name(namespace: &str, name: &str, value: &Value) -> Result<(), Status> {
    match meta::name(value) {
        "" => {
            return Err(err::bad_request(format!(
                "the name of the object ({name} based on URL) was undeterminable: name must be provided"
            )));
        }
        have if have != name => {
            return Err(err::bad_request(format!(
                "the name of the object ({have}) does not match the name on the URL ({name})"
            )));
        }
        _ => {}
    }
    let have = meta::namespace(value);
    if !namespace.is_empty() && !have.is_empty() && have != namespace {
        return Err(err::bad_request(format!(
            "the namespace of the object ({have}) does not match the namespace on the request ({namespace})"
        )));
    }
    Ok(())
}

/// What the server decides on create.
pub fn fill(kind: &Kind, env: &Env, now: Wall, value: &mut Value) {
    let m = metadata(value);
    for field in [
        "selfLink",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "generation",
    ] {
        m.remove(field);
    }
    m.insert("uid".into(), env.uuid().into());
    m.insert("creationTimestamp".into(), now.rfc3339().into());
    if kind.generation != GenerationRule::None {
        m.insert("generation".into(), 1.into());
    }
    dedup_owners(m);
}

/// A name from `generateName` when there is no name; true when one was made.
pub fn generate_name(env: &Env, value: &mut Value) -> bool {
    let m = metadata(value);
    if m.get("name").and_then(Value::as_str).is_some_and(|n| !n.is_empty()) {
        return false;
    }
    let Some(base) = m.get("generateName").and_then(Value::as_str).filter(|b| !b.is_empty()) else { return false };
    let mut end = base.len().min(MAX_GENERATE_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let name = format!("{}{}", &base[..end], env.random_suffix(SUFFIX));
    m.insert("name".into(), name.into());
    true
}

/// On update: what the client left out or may not set is taken from `old`.
pub fn keep(kind: &Kind, value: &mut Value, old: &Value) {
    let had = |field: &str| old.pointer(&format!("/metadata/{field}")).cloned();
    let m = metadata(value);
    m.remove("selfLink");
    m.remove("managedFields");
    for field in ["generation", "creationTimestamp"] {
        match had(field) {
            Some(v) => m.insert(field.into(), v),
            None => m.remove(field),
        };
    }
    if let Some(v) = had("deletionTimestamp") {
        m.insert("deletionTimestamp".into(), v);
    }
    for field in ["uid", "deletionGracePeriodSeconds", "namespace"] {
        let missing = m.get(field).is_none_or(|v| v.is_null() || v.as_str() == Some(""));
        if let (true, Some(v)) = (missing && (field != "namespace" || kind.namespaced()), had(field)) {
            m.insert(field.into(), v);
        }
    }
    if let Some(v) = had("resourceVersion") {
        m.insert("resourceVersion".into(), v);
    }
    dedup_owners(m);
}

/// Owner references with the same uid: the last ones are dropped.
fn dedup_owners(m: &mut serde_json::Map<String, Value>) {
    if let Some(refs) = m.get_mut("ownerReferences").and_then(Value::as_array_mut) {
        let mut seen = BTreeSet::new();
        refs.retain(|r| seen.insert(r["uid"].as_str().unwrap_or_default().to_owned()));
    }
}

/// The generation after a change, by the kind's rule.
pub fn bump_generation(rule: GenerationRule, value: &mut Value, old: &Value) {
    let changed = match rule {
        GenerationRule::None => return,
        GenerationRule::Spec => value.get("spec") != old.get("spec"),
        GenerationRule::AllButMetadata => {
            let rest = |v: &Value| -> Vec<(String, Value)> {
                let skip = ["metadata", "status", "kind", "apiVersion"];
                let all = v.as_object().into_iter().flatten();
                all.filter(|(k, _)| !skip.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
            };
            rest(value) != rest(old)
        }
    };
    if changed {
        let next = meta::generation(old) + 1;
        metadata(value).insert("generation".into(), next.into());
    }
}

pub fn set_field(value: &mut Value, field: &str, to: impl Into<Value>) {
    metadata(value).insert(field.into(), to.into());
}

pub fn remove_field(value: &mut Value, field: &str) {
    metadata(value).remove(field);
}

/// Validation on create.
pub fn validate(kind: &Kind, value: &Value, errors: &mut ErrorList) {
    let path = Path::new("metadata");
    let generate = meta::generate_name(value);
    if !generate.is_empty() {
        errors.invalid_each(path.child("generateName"), generate, (kind.validate_name)(generate, true));
    }
    match meta::name(value) {
        "" => errors.push(FieldError::required(path.child("name"), "name or generateName is required")),
        name => {
            let mut messages = (kind.validate_name)(name, false);
            if messages.is_empty() {
                messages = names::path_segment(name);
            }
            errors.invalid_each(path.child("name"), name, messages);
        }
    }
    common(kind, value, &path, errors);
}

/// Validation on update, after [`keep`].
pub fn validate_update(kind: &Kind, value: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("metadata");
    common(kind, value, &path, errors);
    if meta::is_deleting(old) {
        let had: BTreeSet<&str> = meta::finalizers(old).collect();
        let extra: BTreeSet<&str> = meta::finalizers(value).filter(|f| !had.contains(f)).collect();
        if !extra.is_empty() {
            let list: Vec<String> = extra.iter().map(|f| format!("{f:?}")).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            errors.push(FieldError::forbidden(path.child("finalizers"), detail));
        }
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let at = format!("/metadata/{field}");
        let (new, old) = (value.pointer(&at), old.pointer(&at));
        if new != old {
            errors.push(FieldError::invalid(
                path.child(field),
                new.cloned().unwrap_or(Value::Null),
                "field is immutable",
            ));
        }
    }
}

fn common(kind: &Kind, value: &Value, path: &Path, errors: &mut ErrorList) {
    let namespace = meta::namespace(value);
    if !kind.namespaced() {
        if !namespace.is_empty() {
            errors.push(FieldError::forbidden(path.child("namespace"), "not allowed on this type"));
        }
    } else if namespace.is_empty() {
        errors.push(FieldError::required(path.child("namespace"), ""));
    } else {
        errors.invalid_each(path.child("namespace"), namespace, names::dns1123_label(namespace));
    }
    labels(value, &path.child("labels"), errors);
    annotations(value, &path.child("annotations"), errors);
    owners(value, &path.child("ownerReferences"), errors);
    finalizers(value, &path.child("finalizers"), errors);
}

fn labels(value: &Value, path: &Path, errors: &mut ErrorList) {
    for (key, v) in meta::labels(value).into_iter().flatten() {
        errors.invalid_each(path, key, names::qualified_name(key));
        let v = v.as_str().unwrap_or_default();
        errors.invalid_each(path, v, names::label_value(v));
    }
}

fn annotations(value: &Value, path: &Path, errors: &mut ErrorList) {
    let mut size = 0;
    for (key, v) in meta::annotations(value).into_iter().flatten() {
        errors.invalid_each(path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + v.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
}

fn owners(value: &Value, path: &Path, errors: &mut ErrorList) {
    let mut first: Option<String> = None;
    let all = value.pointer("/metadata/ownerReferences").cloned().unwrap_or(Value::Null);
    for owner in meta::owner_refs(value) {
        let (group, version) = meta::split_api_version(owner.api_version);
        if version.is_empty() {
            errors.push(FieldError::invalid(path.child("apiVersion"), owner.api_version, "version must not be empty"));
        }
        for (field, v) in [("kind", owner.kind), ("name", owner.name), ("uid", owner.uid)] {
            if v.is_empty() {
                errors.push(FieldError::invalid(path.child(field), v, "must not be empty"));
            }
        }
        if (group, version, owner.kind) == ("", "v1", "Event") {
            errors.push(FieldError::invalid(path, all.clone(), "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner.controller {
            let this = format!("{}/{}", owner.kind, owner.name);
            match &first {
                Some(other) => errors.push(FieldError::invalid(
                    path,
                    all.clone(),
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {other} and {this}"),
                )),
                None => first = Some(this),
            }
        }
    }
}

fn finalizers(value: &Value, path: &Path, errors: &mut ErrorList) {
    for f in meta::finalizers(value) {
        errors.invalid_each(path, f, names::qualified_name(f));
    }
    if meta::has_finalizer(value, ORPHAN) && meta::has_finalizer(value, FOREGROUND) {
        let all = value.pointer("/metadata/finalizers").cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(path, all, format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { kind: "ConfigMap", plural: "configmaps", resource: "configmaps", ..Kind::BASE };

    fn texts(v: Value) -> Vec<String> {
        let mut errors = ErrorList::new();
        validate(&KIND, &v, &mut errors);
        errors.iter().map(|e| format!("{}: {}", e.field, e.body())).collect()
    }

    #[test]
    fn metadata_errors_have_upstreams_texts() {
        assert_eq!(texts(json!({"metadata": {"name": "a", "namespace": "b"}})), Vec::<String>::new());
        assert_eq!(
            texts(json!({"metadata": {"namespace": "b"}})),
            ["metadata.name: Required value: name or generateName is required"]
        );
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true});
        let mut other = owner.clone();
        other["uid"] = "2".into();
        let got = texts(json!({"metadata": {"name": "a", "namespace": "b", "ownerReferences": [owner, other]}}));
        assert!(
            got[0].contains(
                "Only one reference can have Controller set to true. Found \"true\" in references for Pod/p and Pod/p"
            ),
            "{got:?}"
        );
        let got =
            texts(json!({"metadata": {"name": "a", "namespace": "b", "finalizers": ["orphan", "foregroundDeletion"]}}));
        assert!(got[0].ends_with("finalizer orphan and foregroundDeletion cannot be both set"), "{got:?}");
    }

    #[test]
    fn a_finalizer_cannot_be_added_while_deleting_and_identity_is_immutable() {
        let old = json!({"metadata": {"name": "a", "namespace": "b", "uid": "1", "deletionTimestamp": "2020-01-01T00:00:00Z"}});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["x/y"]);
        new["metadata"]["uid"] = "2".into();
        let mut errors = ErrorList::new();
        validate_update(&KIND, &new, &old, &mut errors);
        let got: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.field, e.body())).collect();
        assert_eq!(
            got,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x/y\"}",
                "metadata.uid: Invalid value: \"2\": field is immutable"
            ]
        );
    }
}
