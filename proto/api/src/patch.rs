//! The patches of the API: JSON patch, merge patch, strategic merge patch.
//!
//! All work on values and return a new one; what they return is decoded and made
//! canonical like any client's object. Everything is bounded: operations, size
//! (a `copy` may not blow an object up), depth.

mod json;
mod strategic;

use serde_json::{Map, Value};

use crate::decode::{self, DecodeError, Strictness};
use crate::schema::Type;
use crate::status::Status;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub decode: decode::Limits,
    /// Operations of a JSON patch.
    pub max_operations: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { decode: decode::Limits::default(), max_operations: 10_000 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is not a patch.
    #[error("{0}")]
    Bad(String),
    #[error("The allowed maximum operations in a JSON patch is {max}, got {got}")]
    TooManyOperations { max: usize, got: usize },
    /// The patch does not apply (a failed `test`, a path that is not there).
    #[error("{0}")]
    DoesNotApply(String),
    #[error("{0}")]
    TooLarge(String),
    /// The object or the patch breaks a rule of strategic merging.
    #[error("{0}")]
    Internal(String),
}

impl PatchError {
    /// As upstream answers it. The reason why a patch does not apply is not told.
    pub fn status(&self) -> Status {
        match self {
            PatchError::Bad(text) => Status::bad_request(text),
            PatchError::TooManyOperations { .. } | PatchError::TooLarge(_) => Status::request_too_large(self),
            PatchError::DoesNotApply(_) => Status::unprocessable(),
            PatchError::Internal(text) => Status::internal(text),
        }
    }
}

impl From<DecodeError> for PatchError {
    fn from(e: DecodeError) -> PatchError {
        match e {
            DecodeError::TooLarge { .. } => PatchError::TooLarge(e.to_string()),
            other => PatchError::Bad(other.to_string()),
        }
    }
}

/// RFC 6902.
pub fn json(doc: &Value, patch: &[u8], limits: &Limits) -> Result<Value, PatchError> {
    let patch = decode::json_untyped(patch, Strictness::Ignore, &limits.decode)?.value;
    json::apply(doc, &patch, limits)
}

/// RFC 7386.
pub fn merge(doc: &Value, patch: &[u8], limits: &Limits) -> Result<Value, PatchError> {
    let patch = object(patch, limits)?;
    let mut out = doc.clone();
    merge_value(&mut out, &patch);
    Ok(out)
}

/// Strategic merge patch, by the table's merge keys.
pub fn strategic(ty: &'static Type, doc: &Value, patch: &[u8], limits: &Limits) -> Result<Value, PatchError> {
    let patch = object(patch, limits)?;
    strategic::apply(ty, doc, &patch)
}

/// The unknown and duplicate fields of a merge patch, for field validation.
pub fn strict_errors(ty: &'static Type, patched: &Value, limits: &Limits) -> Result<Vec<String>, PatchError> {
    Ok(decode::value(ty, patched.clone(), Strictness::Strict, &limits.decode)?.strict_errors)
}

fn object(patch: &[u8], limits: &Limits) -> Result<Value, PatchError> {
    let v = decode::json_untyped(patch, Strictness::Ignore, &limits.decode)?.value;
    if v.is_object() {
        return Ok(v);
    }
    let what = match v {
        Value::Null => return Ok(Value::Object(Map::new())),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        _ => "number",
    };
    Err(PatchError::Bad(format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}")))
}

fn merge_value(doc: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *doc = patch.clone();
        return;
    };
    if !doc.is_object() {
        *doc = Value::Object(Map::new());
    }
    let map = doc.as_object_mut().expect("made an object just above");
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge_value(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests;
