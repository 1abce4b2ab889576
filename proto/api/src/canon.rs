//! The canonical form: one spelling for every object.
//!
//! [`value`] rewrites a value in place (quantities, times, base64, emit rules,
//! unknown fields dropped); [`to_json`] and [`stored`] write it in the table's
//! field order. Only canonical bytes are stored, so a write that changes nothing
//! is seen by comparing bytes. Invariant: `canon(canon(x)) == canon(x)`, and
//! writing a value equals writing its canonical form.

mod rules;
mod write;

use serde_json::{Map, Value};

use crate::keys::Keys;
use crate::schema::{Emit, Field, Kind, Raw, Type};
pub use rules::Scalar;
use rules::{Presence, presence, scalar, zero};
use write::Writer;

/// How deep a value may nest: decoders refuse deeper ones, so that no walker
/// needs a guard of its own against the stack.
pub const MAX_DEPTH: usize = 256;

/// Width of the resourceVersion slot, from its opening quote.
pub const SLOT_LEN: usize = 22;

/// A value that has no canonical form. `path` is as in field errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct CanonError {
    pub path: String,
    pub message: String,
}

impl CanonError {
    fn new(message: impl Into<String>) -> CanonError {
        CanonError { path: String::new(), message: message.into() }
    }
    fn under(mut self, name: &str) -> CanonError {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{dot}{}", self.path);
        self
    }
}

/// Stored bytes: from `"metadata"` to the final brace, with a slot of spaces for
/// the resourceVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    pub bytes: Vec<u8>,
    /// Offset of the slot.
    pub slot: u32,
    /// Offset just after the metadata object: `bytes[..metadata_end]` and a
    /// brace are the metadata-only form.
    pub metadata_end: u32,
}

/// Rewrites a value of that type to its canonical form.
pub fn value(ty: &Type, v: &mut Value) -> Result<(), CanonError> {
    walk_struct(ty, v, 0)
}

/// A custom resource: only its metadata has a schema here.
pub fn custom_value(v: &mut Value) -> Result<(), CanonError> {
    match v.get_mut("metadata") {
        Some(m) => walk_struct(crate::schema::object_meta(), m, 0).map_err(|e| e.under("metadata")),
        None => Ok(()),
    }
}

/// The bytes to store.
pub fn stored(ty: &Type, v: &Value) -> Result<Canonical, CanonError> {
    let mut w = Writer::with_slot();
    w.object_body(ty, v)?;
    w.finish()
}

/// The bytes to store of a custom resource: metadata first, the rest sorted.
pub fn custom_stored(v: &Value) -> Result<Canonical, CanonError> {
    let mut w = Writer::with_slot();
    w.custom_body(v)?;
    w.finish()
}

/// The object as JSON in the table's order. What cannot be made canonical is
/// written as it is.
pub fn to_json(ty: &Type, v: &Value) -> Vec<u8> {
    let mut w = Writer::lenient();
    // A lenient writer has no failures.
    let _ = w.structure(ty, v, 0);
    w.into_bytes()
}

/// Any JSON value, keys sorted, numbers and strings spelled as Go spells them.
pub fn any_to_json(v: &Value) -> Vec<u8> {
    let mut w = Writer::lenient();
    w.any(v);
    w.into_bytes()
}

/// Checks base64 as Go's decoder does.
pub(crate) fn check_base64(text: &str) -> Result<(), String> {
    rules::decode_base64(text).map(|_| ())
}

/// The bytes of a base64 text, as Go's decoder takes it.
pub fn base64_bytes(text: &str) -> Result<Vec<u8>, String> {
    rules::decode_base64(text)
}

/// `JSONSchemaProps`.
pub(crate) fn schema_type() -> &'static Type {
    rules::json_schema_props()
}

fn walk_struct(ty: &Type, v: &mut Value, depth: usize) -> Result<(), CanonError> {
    if depth > MAX_DEPTH {
        return Err(CanonError::new("exceeded max depth"));
    }
    if v.is_null() {
        *v = Value::Object(Map::new());
    }
    let Value::Object(map) = v else {
        return Err(CanonError::new(format!("expected object, got {}", rules::json_type(v))));
    };
    if map.keys().any(|k| ty.field(k).is_none()) {
        map.retain(|k, _| ty.field(k).is_some());
    }
    let keys = Keys::of(map);
    for f in ty.fields.iter().filter(|f| f.emit == Emit::Always || keys.may_have(f.name)) {
        walk_field(f, map, depth).map_err(|e| e.under(f.name))?;
    }
    Ok(())
}

fn walk_field(f: &Field, map: &mut Map<String, Value>, depth: usize) -> Result<(), CanonError> {
    if let Some(v) = map.get_mut(f.name).filter(|v| !v.is_null()) {
        walk(&f.kind, v, depth)?;
    }
    match presence(f, map.get(f.name)) {
        Presence::Skip => {
            map.remove(f.name);
        }
        Presence::Keep => {}
        Presence::Zero => {
            let mut zero = zero(f);
            if let (Kind::Struct(t), Value::Object(_)) = (&f.kind, &zero) {
                walk_struct(t, &mut zero, depth + 1)?;
            }
            map.insert(f.name.to_string(), zero);
        }
    }
    Ok(())
}

fn walk(kind: &Kind, v: &mut Value, depth: usize) -> Result<(), CanonError> {
    if depth > MAX_DEPTH {
        return Err(CanonError::new("exceeded max depth"));
    }
    match kind {
        Kind::Struct(ty) => walk_struct(ty, v, depth + 1),
        Kind::List(elem) => {
            let Value::Array(items) = v else {
                return Err(CanonError::new(format!("expected array, got {}", rules::json_type(v))));
            };
            for (i, item) in items.iter_mut().enumerate() {
                walk_elem(elem, item, depth + 1).map_err(|e| e.under(&format!("[{i}]")))?;
            }
            Ok(())
        }
        Kind::Items => walk(&Kind::List(&Kind::String), v, depth),
        Kind::Map(elem) => {
            let Value::Object(map) = v else {
                return Err(CanonError::new(format!("expected object, got {}", rules::json_type(v))));
            };
            for (key, item) in map.iter_mut() {
                walk_elem(elem, item, depth + 1).map_err(|e| e.under(&format!("[{key}]")))?;
            }
            Ok(())
        }
        Kind::Raw(Raw::Json) => Ok(()),
        Kind::Raw(_) => walk_schema(v, depth),
        _ => {
            if let Scalar::New(new) = scalar(kind, v)? {
                *v = new;
            }
            Ok(())
        }
    }
}

fn walk_elem(kind: &Kind, v: &mut Value, depth: usize) -> Result<(), CanonError> {
    if v.is_null() {
        *v = rules::zero_elem(kind);
    }
    if v.is_null() { Ok(()) } else { walk(kind, v, depth) }
}

/// A schema, a list of schemas or strings, or a boolean.
fn walk_schema(v: &mut Value, depth: usize) -> Result<(), CanonError> {
    match v {
        Value::Object(_) => walk_struct(rules::json_schema_props(), v, depth + 1),
        Value::Array(items) => items.iter_mut().filter(|i| i.is_object()).try_for_each(|i| walk_schema(i, depth + 1)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
