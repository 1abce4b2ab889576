//! What is written when: emit rules, zero values, scalars.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::CanonError;
use crate::quantity::Quantity;
use crate::schema::{self, Emit, Field, Kind, Type};
use crate::time;

pub(super) enum Presence {
    Skip,
    Keep,
    /// Absent, but its zero value is written.
    Zero,
}

/// The canonical spelling of a scalar.
#[derive(Debug, PartialEq)]
pub enum Scalar {
    Same,
    New(Value),
}

/// Applies the emit rule to a value that is canonical already.
pub(super) fn presence(f: &Field, v: Option<&Value>) -> Presence {
    let v = v.filter(|v| !v.is_null());
    match (f.emit, v) {
        (Emit::Always, None) => Presence::Zero,
        (Emit::Always, Some(Value::Array(a))) if a.is_empty() => Presence::Zero,
        (Emit::Always, Some(Value::Object(m))) if m.is_empty() && matches!(f.kind, Kind::Map(_)) => Presence::Zero,
        (Emit::Always, Some(_)) => Presence::Keep,
        (_, None) => Presence::Skip,
        (_, Some(v)) if is_empty(f, v) => Presence::Skip,
        _ => Presence::Keep,
    }
}

/// Empty as omitempty understands it: Go structs and pointers never are.
fn is_empty(f: &Field, v: &Value) -> bool {
    match (&f.kind, v) {
        (Kind::List(_) | Kind::Items, Value::Array(a)) => a.is_empty(),
        (Kind::Map(_), Value::Object(m)) => m.is_empty(),
        _ if f.pointer => false,
        (Kind::String | Kind::Bytes, Value::String(s)) => s.is_empty(),
        (Kind::Bool, Value::Bool(b)) => !b,
        (Kind::Int32 | Kind::Int64 | Kind::Float64, Value::Number(n)) => n.as_f64() == Some(0.0),
        _ => false,
    }
}

/// The zero value of an absent field; a struct's own fields are still to be filled in.
pub(super) fn zero(f: &Field) -> Value {
    if f.pointer {
        return Value::Null;
    }
    match f.kind {
        Kind::List(_) | Kind::Map(_) | Kind::Items | Kind::Bytes => Value::Null,
        ref kind => zero_elem(kind),
    }
}

/// The zero value of an element that was null.
pub(super) fn zero_elem(kind: &Kind) -> Value {
    match kind {
        Kind::String | Kind::Bytes => Value::String(String::new()),
        Kind::Bool => Value::Bool(false),
        Kind::Int32 | Kind::Int64 | Kind::Float64 | Kind::IntOrString => Value::from(0),
        Kind::Quantity => Value::from("0"),
        Kind::Struct(_) => Value::Object(Map::new()),
        Kind::Items => Value::Array(Vec::new()),
        Kind::Time | Kind::MicroTime | Kind::Raw(_) | Kind::List(_) | Kind::Map(_) => Value::Null,
    }
}

pub(super) fn json_schema_props() -> &'static Type {
    schema::lookup("apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaProps")
        .expect("the table has JSONSchemaProps")
}

pub(super) fn json_type(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The canonical spelling of a scalar of that kind.
pub(super) fn scalar(kind: &Kind, v: &Value) -> Result<Scalar, CanonError> {
    let wrong = || CanonError::new(format!("expected {}, got {}", word(kind), json_type(v)));
    let same_or = |old: &str, new: String| if old == new { Scalar::Same } else { Scalar::New(Value::String(new)) };
    match kind {
        Kind::String => v.as_str().map(|_| Scalar::Same).ok_or_else(wrong),
        Kind::Bool => v.as_bool().map(|_| Scalar::Same).ok_or_else(wrong),
        Kind::Int32 | Kind::Int64 => {
            let n = v.as_i64().ok_or_else(wrong)?;
            if matches!(kind, Kind::Int32) && i32::try_from(n).is_err() {
                return Err(wrong());
            }
            Ok(Scalar::Same)
        }
        Kind::Float64 => {
            let n = v.as_f64().ok_or_else(wrong)?;
            // Whole floats are written without a point, and so read back as integers.
            let whole = v.is_f64() && n.fract() == 0.0 && n.abs() < 9e15;
            Ok(if whole { Scalar::New(Value::from(n as i64)) } else { Scalar::Same })
        }
        Kind::IntOrString => match v {
            Value::String(_) => Ok(Scalar::Same),
            Value::Number(n) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(Scalar::Same),
            _ => Err(wrong()),
        },
        Kind::Bytes => {
            let text = v.as_str().ok_or_else(wrong)?;
            if is_canonical_base64(text) {
                return Ok(Scalar::Same);
            }
            let bytes = decode_base64(text).map_err(CanonError::new)?;
            Ok(same_or(text, STANDARD.encode(bytes)))
        }
        Kind::Quantity => {
            let number;
            let text = match v {
                Value::String(s) => s.as_str(),
                Value::Number(n) => {
                    number = n.to_string();
                    &number
                }
                _ => return Err(wrong()),
            };
            let q = Quantity::parse(text).map_err(|e| CanonError::new(e.to_string()))?.to_string();
            Ok(if v.as_str() == Some(&q) { Scalar::Same } else { Scalar::New(Value::String(q)) })
        }
        Kind::Time => {
            let text = v.as_str().ok_or_else(wrong)?;
            let t = time::parse(text).map_err(|e| CanonError::new(e.to_string()))?;
            Ok(if t.is_go_zero() { Scalar::New(Value::Null) } else { same_or(text, time::format(t)) })
        }
        Kind::MicroTime => {
            let text = v.as_str().ok_or_else(wrong)?;
            // Readers of our own values may carry whole seconds; clients' are checked when decoded.
            let t = time::parse(text).map_err(|e| CanonError::new(e.to_string()))?;
            Ok(if t.is_go_zero() { Scalar::New(Value::Null) } else { same_or(text, time::format_micro(t)) })
        }
        Kind::Items | Kind::Raw(_) | Kind::Struct(_) | Kind::List(_) | Kind::Map(_) => Ok(Scalar::Same),
    }
}

/// Bytes of base64 as Go's decoder takes it: line ends are skipped.
pub(crate) fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let cleaned: String;
    let clean = match text.contains(['\r', '\n']) {
        true => {
            cleaned = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
            &cleaned
        }
        false => text,
    };
    STANDARD.decode(clean).map_err(|e| {
        let at = match e {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding =>
            // Go: the end when padding is missing, else where the short group begins.
            {
                if clean.ends_with('=') {
                    clean.len()
                } else {
                    clean.len() / 4 * 4
                }
            }
        };
        format!("illegal base64 data at input byte {at}")
    })
}

fn is_canonical_base64(text: &str) -> bool {
    // Cheap for the usual case: whole groups of the alphabet without padding.
    text.len().is_multiple_of(4) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

fn word(kind: &Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::Bool => "bool",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Float64 => "float64",
        Kind::Bytes => "base64 string",
        Kind::Quantity => "quantity",
        Kind::Time | Kind::MicroTime => "time",
        Kind::IntOrString => "integer or string",
        Kind::Items | Kind::List(_) => "array",
        Kind::Raw(_) => "any value",
        Kind::Struct(_) | Kind::Map(_) => "object",
    }
}
