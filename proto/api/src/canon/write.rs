//! Writing canonical JSON: the table's order for what it knows, sorted keys for
//! the rest, strings and floats spelled as Go's encoder spells them.

use std::io::Write as _;

use serde_json::{Map, Value};

use super::rules::{self, Presence, Scalar, json_schema_props, presence, scalar, zero, zero_elem};
use super::{CanonError, Canonical, MAX_DEPTH, SLOT_LEN};
use crate::keys::Keys;
use crate::schema::{Emit, Field, Kind, Raw, Type, object_meta};

pub(super) struct Writer {
    out: Vec<u8>,
    slot: Option<u32>,
    metadata_end: u32,
    want_slot: bool,
    lenient: bool,
}

impl Writer {
    pub fn with_slot() -> Writer {
        Writer { out: Vec::with_capacity(1024), slot: None, metadata_end: 0, want_slot: false, lenient: false }
    }
    pub fn lenient() -> Writer {
        Writer { lenient: true, ..Writer::with_slot() }
    }
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }
    pub fn finish(self) -> Result<Canonical, CanonError> {
        let slot = self.slot.ok_or_else(|| CanonError::new("the type has no metadata"))?;
        Ok(Canonical { bytes: self.out, slot, metadata_end: self.metadata_end })
    }

    /// An object from `"metadata"` to its final brace, with the slot.
    pub fn object_body(&mut self, ty: &Type, v: &Value) -> Result<(), CanonError> {
        let map = v.as_object().ok_or_else(|| CanonError::new("expected object"))?;
        self.metadata(map)?;
        let keys = Keys::of(map);
        let rest = |f: &&Field| !matches!(f.name, "kind" | "apiVersion" | "metadata");
        for f in ty.fields.iter().filter(rest).filter(|f| f.emit == Emit::Always || keys.may_have(f.name)) {
            self.field(f, map, 0, &mut false).map_err(|e| e.under(f.name))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    pub fn custom_body(&mut self, v: &Value) -> Result<(), CanonError> {
        let map = v.as_object().ok_or_else(|| CanonError::new("expected object"))?;
        self.metadata(map)?;
        for (key, v) in sorted(map).filter(|(k, _)| !matches!(k.as_str(), "kind" | "apiVersion" | "metadata")) {
            self.key(key, &mut false);
            self.any(v);
        }
        self.out.push(b'}');
        Ok(())
    }

    fn metadata(&mut self, map: &Map<String, Value>) -> Result<(), CanonError> {
        self.key("metadata", &mut true);
        self.want_slot = true;
        let empty = Value::Object(Map::new());
        let meta = map.get("metadata").filter(|m| !m.is_null()).unwrap_or(&empty);
        self.structure(object_meta(), meta, 1).map_err(|e| e.under("metadata"))?;
        self.metadata_end = self.out.len() as u32;
        Ok(())
    }

    pub fn structure(&mut self, ty: &Type, v: &Value, depth: usize) -> Result<(), CanonError> {
        let Value::Object(map) = v else {
            return self.wrong(v, format!("expected object, got {}", rules::json_type(v)));
        };
        if depth > MAX_DEPTH {
            return self.wrong(v, "exceeded max depth".into());
        }
        self.out.push(b'{');
        let mut first = true;
        let slot_here = std::mem::take(&mut self.want_slot);
        let keys = Keys::of(map);
        for f in ty.fields {
            let slot = slot_here && f.name == "resourceVersion";
            if !slot && f.emit != Emit::Always && !keys.may_have(f.name) {
                continue;
            }
            if slot {
                self.key(f.name, &mut first);
                self.slot = Some(self.out.len() as u32);
                self.out.resize(self.out.len() + SLOT_LEN, b' ');
                continue;
            }
            self.field(f, map, depth, &mut first).map_err(|e| e.under(f.name))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn field(&mut self, f: &Field, map: &Map<String, Value>, depth: usize, first: &mut bool) -> Result<(), CanonError> {
        let v = map.get(f.name).filter(|v| !v.is_null());
        // The emit rule judges the canonical spelling: Go's zero time is absent.
        let new = match v.map(|v| scalar(&f.kind, v)) {
            Some(Ok(Scalar::New(new))) => Some(new),
            Some(Err(e)) if !self.lenient => return Err(e),
            _ => None,
        };
        let v = new.as_ref().or(v).filter(|v| !v.is_null());
        match presence(f, v) {
            Presence::Skip => Ok(()),
            Presence::Keep => {
                self.key(f.name, first);
                self.kind(&f.kind, v.expect("a value that is kept is present"), depth)
            }
            Presence::Zero => {
                self.key(f.name, first);
                self.zero(&f.kind, &zero(f), depth)
            }
        }
    }

    fn zero(&mut self, kind: &Kind, zero: &Value, depth: usize) -> Result<(), CanonError> {
        match (kind, zero) {
            (Kind::Struct(ty), Value::Object(_)) => self.structure(ty, zero, depth + 1),
            _ => {
                self.any(zero);
                Ok(())
            }
        }
    }

    fn kind(&mut self, kind: &Kind, v: &Value, depth: usize) -> Result<(), CanonError> {
        if depth > MAX_DEPTH {
            return self.wrong(v, "exceeded max depth".into());
        }
        match kind {
            Kind::Struct(ty) => self.structure(ty, v, depth + 1),
            Kind::Items => self.kind(&Kind::List(&Kind::String), v, depth),
            Kind::List(elem) => {
                let Value::Array(items) = v else {
                    return self.wrong(v, format!("expected array, got {}", rules::json_type(v)));
                };
                self.out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        self.out.push(b',');
                    }
                    self.elem(elem, item, depth + 1).map_err(|e| e.under(&format!("[{i}]")))?;
                }
                self.out.push(b']');
                Ok(())
            }
            Kind::Map(elem) => {
                let Value::Object(map) = v else {
                    return self.wrong(v, format!("expected object, got {}", rules::json_type(v)));
                };
                self.out.push(b'{');
                let mut first = true;
                for (key, item) in sorted(map) {
                    self.key(key, &mut first);
                    self.elem(elem, item, depth + 1).map_err(|e| e.under(&format!("[{key}]")))?;
                }
                self.out.push(b'}');
                Ok(())
            }
            Kind::Raw(Raw::Json) => {
                self.any(v);
                Ok(())
            }
            Kind::Raw(_) => self.schema(v, depth),
            _ => match scalar(kind, v) {
                Ok(Scalar::Same) => {
                    self.any(v);
                    Ok(())
                }
                Ok(Scalar::New(new)) => {
                    self.any(&new);
                    Ok(())
                }
                Err(e) => self.wrong(v, e.message),
            },
        }
    }

    fn elem(&mut self, kind: &Kind, v: &Value, depth: usize) -> Result<(), CanonError> {
        if v.is_null() { self.zero(kind, &zero_elem(kind), depth) } else { self.kind(kind, v, depth) }
    }

    fn schema(&mut self, v: &Value, depth: usize) -> Result<(), CanonError> {
        match v {
            Value::Object(_) => self.structure(json_schema_props(), v, depth + 1),
            Value::Array(items) => {
                self.out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        self.out.push(b',');
                    }
                    self.schema(item, depth + 1)?;
                }
                self.out.push(b']');
                Ok(())
            }
            _ => {
                self.any(v);
                Ok(())
            }
        }
    }

    fn wrong(&mut self, v: &Value, message: String) -> Result<(), CanonError> {
        if !self.lenient {
            return Err(CanonError::new(message));
        }
        self.any(v);
        Ok(())
    }

    fn key(&mut self, name: &str, first: &mut bool) {
        if !std::mem::take(first) {
            self.out.push(b',');
        }
        string(&mut self.out, name);
        self.out.push(b':');
    }

    pub fn any(&mut self, v: &Value) {
        match v {
            Value::Null => self.out.extend_from_slice(b"null"),
            Value::Bool(b) => self.out.extend_from_slice(if *b { b"true" } else { b"false" }),
            Value::Number(n) => match n.as_f64().filter(|_| n.is_f64()) {
                Some(f) => float(&mut self.out, f),
                None => {
                    let _ = write!(self.out, "{n}");
                }
            },
            Value::String(s) => string(&mut self.out, s),
            Value::Array(items) => {
                self.out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        self.out.push(b',');
                    }
                    self.any(item);
                }
                self.out.push(b']');
            }
            Value::Object(map) => {
                self.out.push(b'{');
                let mut first = true;
                for (key, item) in sorted(map) {
                    self.key(key, &mut first);
                    self.any(item);
                }
                self.out.push(b'}');
            }
        }
    }
}

/// The entries by key, whether or not the map keeps them sorted.
fn sorted(map: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    if !entries.is_sorted_by(|a, b| a.0 <= b.0) {
        entries.sort_by(|a, b| a.0.cmp(b.0));
    }
    entries.into_iter()
}

/// A JSON string; `<`, `>`, `&` and the line separators are escaped, as Go does.
fn string(out: &mut Vec<u8>, s: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = s.as_bytes();
    let mut start = 0;
    for (i, &b) in bytes.iter().enumerate() {
        let plain = b >= 0x20 && !matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
        if plain {
            continue;
        }
        let separator = b == 0xe2 && matches!(bytes.get(i + 1..i + 3), Some([0x80, 0xa8 | 0xa9]));
        if b == 0xe2 && !separator {
            continue;
        }
        out.extend_from_slice(&bytes[start..i]);
        start = i + if separator { 3 } else { 1 };
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0xe2 => {
                out.extend_from_slice(b"\\u202");
                out.push(HEX[usize::from(bytes[i + 2] & 0xf)]);
            }
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(b >> 4)]);
                out.push(HEX[usize::from(b & 0xf)]);
            }
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// A float as Go prints it: no point when whole, an exponent only at the extremes.
fn float(out: &mut Vec<u8>, f: f64) {
    let abs = f.abs();
    let text = match abs != 0.0 && !(1e-6..1e21).contains(&abs) {
        true => {
            let t = format!("{f:e}");
            // Go writes a sign for positive exponents.
            match t.split_once('e') {
                Some((m, e)) if !e.starts_with('-') => format!("{m}e+{e}"),
                _ => t,
            }
        }
        false => format!("{f}"),
    };
    out.extend_from_slice(text.as_bytes());
}
