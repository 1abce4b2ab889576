//! Reading and shaping JSON objects as the rules need them.
//!
//! Absent, `null` and of the wrong type are one case here ("not set"): bodies
//! have passed the schema's decoder before any rule sees them, so a wrong type
//! cannot arrive, and `null` means absent in Kubernetes.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// The field, or null.
pub fn get<'a>(v: &'a Value, key: &str) -> &'a Value {
    v.get(key).unwrap_or(&NULL)
}

/// The field at a path of names, or null.
pub fn at<'a>(v: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(v, |v, key| get(v, key))
}

/// The field when it is there and not null.
pub fn opt<'a>(v: &'a Value, key: &str) -> Option<&'a Value> {
    v.get(key).filter(|x| !x.is_null())
}

/// Whether a pointer-like field is set (an empty object or list counts).
pub fn is_set(v: &Value, key: &str) -> bool {
    opt(v, key).is_some()
}

/// The string, or the empty string.
pub fn str_of<'a>(v: &'a Value, key: &str) -> &'a str {
    get(v, key).as_str().unwrap_or("")
}

/// The string at a path, or the empty string.
pub fn str_at<'a>(v: &'a Value, path: &[&str]) -> &'a str {
    at(v, path).as_str().unwrap_or("")
}

/// The integer, or 0.
pub fn int_of(v: &Value, key: &str) -> i64 {
    get(v, key).as_i64().unwrap_or(0)
}

/// The integer when set.
pub fn opt_int(v: &Value, key: &str) -> Option<i64> {
    get(v, key).as_i64()
}

/// The boolean, or false.
pub fn flag(v: &Value, key: &str) -> bool {
    get(v, key).as_bool().unwrap_or(false)
}

/// The list, or an empty one.
pub fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
    get(v, key).as_array().map_or(&[], Vec::as_slice)
}

/// The list at a path, or an empty one.
pub fn list_at<'a>(v: &'a Value, path: &[&str]) -> &'a [Value] {
    at(v, path).as_array().map_or(&[], Vec::as_slice)
}

/// The map's entries, in key order (so that errors come in one order).
pub fn entries<'a>(v: &'a Value, key: &str) -> Vec<(&'a str, &'a Value)> {
    let mut all: Vec<_> = get(v, key).as_object().into_iter().flatten().map(|(k, v)| (k.as_str(), v)).collect();
    all.sort_unstable_by_key(|(k, _)| *k);
    all
}

/// The object at `key`, made when it is not there.
pub fn child<'a>(v: &'a mut Value, key: &str) -> &'a mut Value {
    let map = object(v);
    let slot = map.entry(key).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot
}

/// The object at `key` when it is set.
pub fn child_if_set<'a>(v: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    v.get_mut(key).filter(|x| x.is_object())
}

/// The list's elements for change.
pub fn each_mut<'a>(v: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    v.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The value as a map; anything else becomes an empty one.
pub fn object(v: &mut Value) -> &mut Map<String, Value> {
    if !v.is_object() {
        *v = Value::Object(Map::new());
    }
    v.as_object_mut().expect("made an object just above")
}

pub fn set(v: &mut Value, key: &str, to: impl Into<Value>) {
    object(v).insert(key.to_owned(), to.into());
}

/// Sets `key` to `from`'s field, or removes it when `from` has none.
pub fn copy(from: &Value, to: &mut Value, key: &str) {
    match opt(from, key) {
        Some(x) => set(to, key, x.clone()),
        None => remove(to, key),
    }
}

pub fn remove(v: &mut Value, key: &str) {
    if let Some(map) = v.as_object_mut() {
        map.remove(key);
    }
}

/// Defaults a pointer-like field: only when it is not set.
pub fn default(v: &mut Value, key: &str, to: impl Into<Value>) {
    if !is_set(v, key) {
        set(v, key, to);
    }
}

/// Defaults a plain string: also when it is empty.
pub fn default_str(v: &mut Value, key: &str, to: &str) {
    if str_of(v, key).is_empty() {
        set(v, key, to);
    }
}

/// Defaults a plain integer: also when it is 0.
pub fn default_int(v: &mut Value, key: &str, to: i64) {
    if int_of(v, key) == 0 {
        set(v, key, to);
    }
}

/// Equality that does not tell absent, null, empty map and empty list apart,
/// as upstream's semantic equality does not.
pub fn same(a: &Value, b: &Value) -> bool {
    fn empty(v: &Value) -> bool {
        match v {
            Value::Null => true,
            Value::Array(a) => a.is_empty(),
            Value::Object(m) => m.values().all(Value::is_null),
            _ => false,
        }
    }
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&NULL)))
                && y.iter().all(|(k, v)| x.contains_key(k) || empty(v))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        _ => a == b || (empty(a) && empty(b)),
    }
}

/// Labels or annotations of an object's metadata.
pub fn metadata_map<'a>(v: &'a Value, which: &str, key: &str) -> Option<&'a str> {
    at(v, &["metadata", which]).get(key).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_null_and_empty_are_the_same_to_semantic_equality() {
        assert!(same(&json!({"a": [], "b": null}), &json!({})));
        assert!(same(&json!({"a": {"x": 1}}), &json!({"a": {"x": 1, "y": {}}})));
        assert!(!same(&json!({"a": 1}), &json!({})));
        assert!(!same(&json!([1]), &json!([1, 2])));
    }

    #[test]
    fn defaults_do_not_overwrite() {
        let mut v = json!({"a": "x", "b": 0});
        default_str(&mut v, "a", "y");
        default_int(&mut v, "b", 3);
        default(&mut v, "c", true);
        assert_eq!(v, json!({"a": "x", "b": 3, "c": true}));
    }
}
