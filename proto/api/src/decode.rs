//! Decoding what clients send, with the errors that upstream's decoder gives.
//!
//! JSON is read as events against the schema table, so that duplicate keys are
//! seen; YAML becomes JSON first, as upstream does; protobuf is read by field
//! number. The result is a value that still needs `canon::value`. Nulls in
//! structs are dropped, unknown fields are reported and dropped.
//!
//! Every input is bounded in size and depth before anything is built from it.

mod context;
mod json;
mod protobuf;
mod yaml;

use bytes::Bytes;
use serde_json::Value;

use crate::schema::Type;

/// What becomes of unknown and duplicate fields (`?fieldValidation=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strictness {
    Ignore,
    #[default]
    Warn,
    Strict,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of input.
    pub max_bytes: usize,
    /// Nesting.
    pub max_depth: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        // Upstream's request limit, and canon's depth.
        Limits { max_bytes: 3 * 1024 * 1024, max_depth: crate::canon::MAX_DEPTH }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// `unknown field "spec.x"`, `duplicate field "spec.y"`, in the order found; empty under `Ignore`.
    pub strict_errors: Vec<String>,
}

impl Decoded {
    /// `strict decoding error: a, b`, if there is anything to say.
    pub fn strict_message(&self) -> Option<String> {
        (!self.strict_errors.is_empty()).then(|| format!("strict decoding error: {}", self.strict_errors.join(", ")))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, YAML or protobuf at all; the text is Go's.
    #[error("{0}")]
    Syntax(String),
    /// Well-formed, of the wrong type: `json: cannot unmarshal …`.
    #[error("{0}")]
    Type(String),
    #[error("limit is {limit}")]
    TooLarge { limit: usize },
    #[error("exceeded max depth")]
    TooDeep,
}

/// Kind and apiVersion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeMeta {
    pub api_version: String,
    pub kind: String,
}

/// What precedes a protobuf body.
pub const MAGIC: &[u8; 4] = b"k8s\0";

pub fn json(ty: &'static Type, bytes: &[u8], strict: Strictness, limits: &Limits) -> Result<Decoded, DecodeError> {
    check(bytes, limits)?;
    shallow(bytes)?;
    json::bytes(Some(ty), bytes, strict, limits)
}

/// JSON without a schema (custom resources, patches): duplicates are reported.
pub fn json_untyped(bytes: &[u8], strict: Strictness, limits: &Limits) -> Result<Decoded, DecodeError> {
    check(bytes, limits)?;
    shallow(bytes)?;
    json::bytes(None, bytes, strict, limits)
}

pub fn yaml(ty: &'static Type, bytes: &[u8], strict: Strictness, limits: &Limits) -> Result<Decoded, DecodeError> {
    check(bytes, limits)?;
    yaml::bytes(Some(ty), bytes, strict, limits)
}

pub fn yaml_untyped(bytes: &[u8], strict: Strictness, limits: &Limits) -> Result<Decoded, DecodeError> {
    check(bytes, limits)?;
    yaml::bytes(None, bytes, strict, limits)
}

/// A value that is in memory already (a patched object), with the same checks as JSON text.
pub fn value(ty: &'static Type, v: Value, strict: Strictness, limits: &Limits) -> Result<Decoded, DecodeError> {
    json::value(Some(ty), v, strict, limits)
}

/// The raw message inside an envelope. Kind and apiVersion are not in it: the caller adds them.
pub fn protobuf(ty: &'static Type, raw: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    check(raw, limits)?;
    let value = protobuf::message(ty, raw, limits)?;
    Ok(Decoded { value, strict_errors: Vec::new() })
}

/// Opens a `k8s\0` envelope.
pub fn envelope(bytes: &Bytes) -> Result<(TypeMeta, Bytes), DecodeError> {
    protobuf::envelope(bytes)
}

/// Kind and apiVersion of a JSON body, without decoding the rest.
pub fn type_meta(bytes: &[u8], limits: &Limits) -> Result<TypeMeta, DecodeError> {
    check(bytes, limits)?;
    shallow(bytes)?;
    json::type_meta(bytes)
}

/// How deep JSON may nest where nothing is kept of it (unknown fields are
/// passed over without a stack); what is kept is bounded by [`Limits`].
const MAX_NESTING: usize = 10_000;

/// Refuses text that nests deeper than Go's parser goes.
fn shallow(bytes: &[u8]) -> Result<(), DecodeError> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &b in bytes {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_NESTING {
                    return Err(DecodeError::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn check(bytes: &[u8], limits: &Limits) -> Result<(), DecodeError> {
    if bytes.len() > limits.max_bytes {
        return Err(DecodeError::TooLarge { limit: limits.max_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
