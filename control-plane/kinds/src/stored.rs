//! Reading other objects, as rules may: this replica's memory, one object at a
//! time.

use serde_json::Value;
use triarch_mvcc::{Key, Mvcc, Object};

/// The object's value without kind and apiVersion; `None` when it is not there.
pub fn get(store: &Mvcc, resource: &str, namespace: &str, name: &str) -> Option<Value> {
    if [resource, namespace, name].iter().any(|p| p.contains('\0')) {
        return None;
    }
    let stored = store.get(&Key::new(resource, namespace, name))?;
    parse(&stored.object)
}

/// A stored object's bytes as a value.
pub fn parse(object: &Object) -> Option<Value> {
    let mut text = Vec::with_capacity(object.bytes.len() + 1);
    text.push(b'{');
    text.extend_from_slice(&object.bytes);
    if let Some(slot) = object.slot {
        // The slot is blank until a revision is written into it.
        let at = 1 + slot as usize;
        text[at] = b'"';
        text[at + 1] = b'"';
    }
    serde_json::from_slice(&text).ok()
}

/// System state: plain bytes as text.
pub fn system(store: &Mvcc, key: &Key) -> Option<String> {
    let stored = store.get(key)?;
    String::from_utf8(stored.object.bytes.to_vec()).ok()
}
