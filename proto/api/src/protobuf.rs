//! Writing protobuf messages by the table's field numbers, and the `k8s\0`
//! envelope around them.

use serde_json::{Map, Value};

use crate::quantity::Quantity;
use crate::schema::{Kind, Raw, Type};
use crate::time;

/// A message; kind and apiVersion are not in it (see [`envelope`]). Fields that
/// the table does not know, or that have no number, are left out.
pub fn encode(ty: &Type, v: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    if let Value::Object(map) = v {
        structure(ty, map, &mut out);
    }
    out
}

/// The `k8s\0` envelope with the message inside.
pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    bytes(&mut meta, 1, api_version.as_bytes());
    bytes(&mut meta, 2, kind.as_bytes());
    let mut out = crate::decode::MAGIC.to_vec();
    bytes(&mut out, 1, &meta);
    bytes(&mut out, 2, raw);
    bytes(&mut out, 3, b"");
    bytes(&mut out, 4, b"");
    out
}

/// An object in its envelope.
pub fn object(ty: &Type, v: &Value) -> Vec<u8> {
    envelope(crate::meta::api_version(v), crate::meta::kind(v), &encode(ty, v))
}

pub(crate) fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

pub(crate) fn tag(out: &mut Vec<u8>, number: u32, wire: u64) {
    varint(out, u64::from(number) << 3 | wire);
}

pub(crate) fn bytes(out: &mut Vec<u8>, number: u32, data: &[u8]) {
    tag(out, number, 2);
    varint(out, data.len() as u64);
    out.extend_from_slice(data);
}

pub(crate) fn int(out: &mut Vec<u8>, number: u32, v: i64) {
    tag(out, number, 0);
    varint(out, v as u64);
}

fn structure(ty: &Type, map: &Map<String, Value>, out: &mut Vec<u8>) {
    for f in ty.fields.iter().filter(|f| f.proto != 0) {
        let Some(v) = map.get(f.name).filter(|v| !v.is_null()) else { continue };
        match (&f.kind, v) {
            (Kind::List(elem), Value::Array(items)) => items.iter().for_each(|i| single(elem, f.proto, i, out)),
            (Kind::Map(elem), Value::Object(entries)) => {
                for (key, value) in entries {
                    let mut entry = Vec::new();
                    bytes(&mut entry, 1, key.as_bytes());
                    single(elem, 2, value, &mut entry);
                    bytes(out, f.proto, &entry);
                }
            }
            (kind, v) => single(kind, f.proto, v, out),
        }
    }
    for (number, embedded) in ty.embeds {
        let mut inner = Vec::new();
        structure(embedded, map, &mut inner);
        // An embedded Go struct is a value: it is always there.
        bytes(out, *number, &inner);
    }
}

fn single(kind: &Kind, number: u32, v: &Value, out: &mut Vec<u8>) {
    let message = |out: &mut Vec<u8>, fill: &dyn Fn(&mut Vec<u8>)| {
        let mut inner = Vec::new();
        fill(&mut inner);
        bytes(out, number, &inner);
    };
    match kind {
        Kind::String => bytes(out, number, v.as_str().unwrap_or("").as_bytes()),
        Kind::Bool => int(out, number, i64::from(v.as_bool().unwrap_or(false))),
        Kind::Int32 | Kind::Int64 => int(out, number, v.as_i64().unwrap_or(0)),
        Kind::Float64 => {
            tag(out, number, 1);
            out.extend_from_slice(&v.as_f64().unwrap_or(0.0).to_le_bytes());
        }
        Kind::Bytes => bytes(out, number, &crate::canon::base64_bytes(v.as_str().unwrap_or("")).unwrap_or_default()),
        Kind::Quantity => {
            let text = match v {
                Value::String(s) => s.clone(),
                other => other.to_string(),
            };
            let text = Quantity::parse(&text).map(|q| q.to_string()).unwrap_or(text);
            message(out, &|m| bytes(m, 1, text.as_bytes()));
        }
        Kind::Time | Kind::MicroTime => {
            let t = v.as_str().and_then(|s| time::parse(s).ok()).filter(|t| !t.is_go_zero());
            message(out, &|m| {
                if let Some(t) = t {
                    int(m, 1, t.secs);
                    int(m, 2, if matches!(kind, Kind::Time) { 0 } else { i64::from(t.nanos) });
                }
            });
        }
        Kind::IntOrString => message(out, &|m| {
            int(m, 1, i64::from(v.is_string()));
            int(m, 2, v.as_i64().unwrap_or(0));
            bytes(m, 3, v.as_str().unwrap_or("").as_bytes());
        }),
        Kind::Items => message(out, &|m| {
            v.as_array().into_iter().flatten().for_each(|i| single(&Kind::String, 1, i, m));
        }),
        Kind::Struct(ty) => message(out, &|m| {
            if let Value::Object(map) = v {
                structure(ty, map, m);
            }
        }),
        Kind::Raw(Raw::Json) => message(out, &|m| bytes(m, 1, &crate::canon::any_to_json(v))),
        Kind::Raw(raw) => message(out, &|m| schema(*raw, v, m)),
        // Lists of lists and maps of maps are not in the API.
        Kind::List(_) | Kind::Map(_) => {}
    }
}

fn schema(raw: Raw, v: &Value, out: &mut Vec<u8>) {
    let one = Kind::Struct(crate::canon::schema_type());
    match (raw, v) {
        (Raw::SchemaOrBool, Value::Object(_)) => {
            int(out, 1, 1);
            single(&one, 2, v, out);
        }
        (Raw::SchemaOrBool, _) => int(out, 1, i64::from(v.as_bool().unwrap_or(false))),
        (_, Value::Object(_)) => single(&one, 1, v, out),
        (Raw::SchemaOrArray, Value::Array(items)) => items.iter().for_each(|i| single(&one, 2, i, out)),
        (_, Value::Array(items)) => items.iter().for_each(|i| single(&Kind::String, 2, i, out)),
        _ => {}
    }
}
