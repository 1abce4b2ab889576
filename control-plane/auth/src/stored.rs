//! Reading stored objects as JSON values.

use serde_json::Value;
use triarch_mvcc::{Key, Mvcc, Object};

/// The object's value; `Null` when the bytes are not an API object's.
pub(crate) fn value(object: &Object) -> Value {
    let mut text = Vec::with_capacity(object.bytes.len() + 1);
    text.push(b'{');
    text.extend_from_slice(&object.served(0));
    serde_json::from_slice(&text).unwrap_or(Value::Null)
}

pub(crate) fn get(store: &Mvcc, resource: &str, namespace: &str, name: &str) -> Option<Value> {
    store.get(&Key::new(resource, namespace, name)).map(|s| value(&s.object))
}

/// A string at a JSON pointer; empty when absent.
pub(crate) fn text<'a>(v: &'a Value, pointer: &str) -> &'a str {
    v.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The strings of an array field; none when absent.
pub(crate) fn strings(v: &Value, field: &str) -> Vec<String> {
    let items = v.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
