//! Reading and writing ObjectMeta on values.
//!
//! Readers never fail: what is absent or of another type reads as empty. The
//! decoder has already refused wrong types where a client sent them.

use serde_json::{Map, Value};

/// A dotted path: `get(v, "spec.template.metadata")`. Keys with dots: use `at`.
pub fn get<'a>(v: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(v, |v, key| v.get(key)).filter(|v| !v.is_null())
}

/// A path of keys.
pub fn at<'a>(v: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(v, |v, key| v.get(*key)).filter(|v| !v.is_null())
}

pub fn get_str<'a>(v: &'a Value, path: &str) -> Option<&'a str> {
    get(v, path).and_then(Value::as_str)
}
/// The string, or "" when there is none.
pub fn str_or_empty<'a>(v: &'a Value, path: &str) -> &'a str {
    get_str(v, path).unwrap_or("")
}
pub fn get_i64(v: &Value, path: &str) -> Option<i64> {
    get(v, path).and_then(Value::as_i64)
}
pub fn get_bool(v: &Value, path: &str) -> Option<bool> {
    get(v, path).and_then(Value::as_bool)
}
/// The array's items, or none.
pub fn get_array<'a>(v: &'a Value, path: &str) -> &'a [Value] {
    get(v, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
pub fn get_object<'a>(v: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
    get(v, path).and_then(Value::as_object)
}

/// Sets the value at a dotted path, making objects on the way.
pub fn set(v: &mut Value, path: &str, value: impl Into<Value>) {
    let mut keys = path.split('.').peekable();
    let mut here = v;
    while let Some(key) = keys.next() {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        let map = here.as_object_mut().expect("made an object just above");
        if keys.peek().is_none() {
            map.insert(key.to_string(), value.into());
            return;
        }
        here = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    }
}

/// Removes the value at a dotted path and returns it.
pub fn remove(v: &mut Value, path: &str) -> Option<Value> {
    let (parent, key) = match path.rsplit_once('.') {
        Some((p, k)) => (p.split('.').try_fold(v, |v, key| v.get_mut(key))?, k),
        None => (v, path),
    };
    parent.as_object_mut()?.remove(key)
}

pub fn api_version(v: &Value) -> &str {
    str_or_empty(v, "apiVersion")
}
pub fn kind(v: &Value) -> &str {
    str_or_empty(v, "kind")
}
/// `apps/v1` to ("apps", "v1"); `v1` to ("", "v1").
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}
pub fn name(v: &Value) -> &str {
    str_or_empty(v, "metadata.name")
}
pub fn generate_name(v: &Value) -> &str {
    str_or_empty(v, "metadata.generateName")
}
pub fn namespace(v: &Value) -> &str {
    str_or_empty(v, "metadata.namespace")
}
pub fn uid(v: &Value) -> &str {
    str_or_empty(v, "metadata.uid")
}
pub fn resource_version(v: &Value) -> &str {
    str_or_empty(v, "metadata.resourceVersion")
}
pub fn generation(v: &Value) -> i64 {
    get_i64(v, "metadata.generation").unwrap_or(0)
}
pub fn labels(v: &Value) -> Option<&Map<String, Value>> {
    get_object(v, "metadata.labels")
}
pub fn label<'a>(v: &'a Value, key: &str) -> Option<&'a str> {
    labels(v)?.get(key)?.as_str()
}
pub fn annotations(v: &Value) -> Option<&Map<String, Value>> {
    get_object(v, "metadata.annotations")
}
pub fn annotation<'a>(v: &'a Value, key: &str) -> Option<&'a str> {
    annotations(v)?.get(key)?.as_str()
}
pub fn finalizers(v: &Value) -> impl Iterator<Item = &str> {
    get_array(v, "metadata.finalizers").iter().filter_map(Value::as_str)
}
pub fn has_finalizer(v: &Value, name: &str) -> bool {
    finalizers(v).any(|f| f == name)
}
pub fn deletion_timestamp(v: &Value) -> Option<&str> {
    get_str(v, "metadata.deletionTimestamp").filter(|s| !s.is_empty())
}
pub fn is_deleting(v: &Value) -> bool {
    deletion_timestamp(v).is_some()
}

/// One of `metadata.ownerReferences`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerRef<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

pub fn owner_refs(v: &Value) -> impl Iterator<Item = OwnerRef<'_>> {
    get_array(v, "metadata.ownerReferences").iter().map(|o| OwnerRef {
        api_version: str_or_empty(o, "apiVersion"),
        kind: str_or_empty(o, "kind"),
        name: str_or_empty(o, "name"),
        uid: str_or_empty(o, "uid"),
        controller: get_bool(o, "controller").unwrap_or(false),
        block_owner_deletion: get_bool(o, "blockOwnerDeletion").unwrap_or(false),
    })
}
pub fn controller_of(v: &Value) -> Option<OwnerRef<'_>> {
    owner_refs(v).find(|o| o.controller)
}
pub fn is_controlled_by(v: &Value, owner_uid: &str) -> bool {
    controller_of(v).is_some_and(|o| o.uid == owner_uid)
}

/// The status of the condition of that type: `True`, `False` or `Unknown`.
pub fn condition_status<'a>(v: &'a Value, kind: &str) -> Option<&'a str> {
    condition(v, kind).map(|c| str_or_empty(c, "status"))
}
pub fn condition<'a>(v: &'a Value, kind: &str) -> Option<&'a Value> {
    get_array(v, "status.conditions").iter().find(|c| str_or_empty(c, "type") == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_read_write_and_remove() {
        let mut v = json!({"metadata": {"name": "x", "labels": {"a": "b"}}});
        assert_eq!((name(&v), namespace(&v), label(&v, "a")), ("x", "", Some("b")));
        set(&mut v, "spec.a.b", 3);
        assert_eq!(get_i64(&v, "spec.a.b"), Some(3));
        assert_eq!(remove(&mut v, "spec.a.b"), Some(json!(3)));
        assert_eq!(get(&v, "spec.a"), Some(&json!({})));
        assert_eq!(remove(&mut v, "no.such"), None);
    }

    #[test]
    fn only_the_controller_controls() {
        let v = json!({"metadata": {"ownerReferences": [
            {"uid": "1", "kind": "A", "name": "a", "apiVersion": "v1"},
            {"uid": "2", "kind": "B", "name": "b", "apiVersion": "v1", "controller": true}]}});
        assert!(is_controlled_by(&v, "2") && !is_controlled_by(&v, "1"));
        assert_eq!(owner_refs(&v).count(), 2);
    }
}
