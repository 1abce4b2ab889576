//! Reading protobuf messages by the table's field numbers. Unknown numbers are
//! skipped, as protobuf demands.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::{DecodeError, Limits, MAGIC, Strictness, TypeMeta};
use crate::schema::{Field, Kind, Raw, Type};
use crate::time::{self, Timestamp};

fn bad(what: &str) -> DecodeError {
    DecodeError::Syntax(format!("proto: {what}"))
}

/// Upstream's word for it comes from its reader, not from its protobuf code.
fn ends_early() -> DecodeError {
    DecodeError::Syntax("unexpected EOF".into())
}

/// One field of a message.
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Len(&'a [u8]),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut v = 0u64;
        for i in 0..10 {
            let (&b, rest) = self.0.split_first().ok_or_else(ends_early)?;
            self.0 = rest;
            v |= u64::from(b & 0x7f) << (7 * i);
            if b < 0x80 {
                return Ok(v);
            }
        }
        Err(bad("integer overflow"))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        if n > self.0.len() {
            return Err(ends_early());
        }
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(head)
    }

    fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, DecodeError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n > 0).ok_or_else(|| bad("illegal tag"))?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().expect("took eight bytes"))),
            2 => {
                let n = usize::try_from(self.varint()?).map_err(|_| bad("negative length"))?;
                Wire::Len(self.take(n)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().expect("took four bytes"))),
            _ => return Err(bad("illegal wireType")),
        };
        Ok(Some((number, wire)))
    }
}

impl<'a> Wire<'a> {
    fn len(&self) -> Result<&'a [u8], DecodeError> {
        match self {
            Wire::Len(b) => Ok(b),
            _ => Err(bad("wrong wireType")),
        }
    }
    fn int(&self) -> Result<u64, DecodeError> {
        match *self {
            Wire::Varint(v) | Wire::Fixed64(v) => Ok(v),
            Wire::Fixed32(v) => Ok(u64::from(v)),
            Wire::Len(_) => Err(bad("wrong wireType")),
        }
    }
    fn text(&self) -> Result<String, DecodeError> {
        String::from_utf8(self.len()?.to_vec()).map_err(|_| bad("invalid UTF-8 in string"))
    }
}

pub(super) fn envelope(bytes: &Bytes) -> Result<(TypeMeta, Bytes), DecodeError> {
    let body = bytes.strip_prefix(MAGIC).ok_or_else(|| {
        DecodeError::Syntax(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".into(),
        )
    })?;
    let (mut meta, mut raw) = (TypeMeta::default(), Bytes::new());
    let mut r = Reader(body);
    while let Some((number, wire)) = r.next()? {
        match number {
            1 => {
                let mut inner = Reader(wire.len()?);
                while let Some((number, wire)) = inner.next()? {
                    match number {
                        1 => meta.api_version = wire.text()?,
                        2 => meta.kind = wire.text()?,
                        _ => {}
                    }
                }
            }
            2 => raw = bytes.slice_ref(wire.len()?),
            // contentEncoding: none is known.
            3 if !wire.len()?.is_empty() => return Err(bad("unsupported content encoding")),
            _ => {}
        }
    }
    Ok((meta, raw))
}

pub(super) fn message(ty: &'static Type, raw: &[u8], limits: &Limits) -> Result<Value, DecodeError> {
    let mut out = Map::new();
    structure(ty, raw, limits.max_depth.min(crate::canon::MAX_DEPTH), &mut out)?;
    Ok(Value::Object(out))
}

/// Fills `out`, so that a field given twice is merged and embedded messages are flattened.
fn structure(ty: &'static Type, raw: &[u8], depth: usize, out: &mut Map<String, Value>) -> Result<(), DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
    let mut r = Reader(raw);
    while let Some((number, wire)) = r.next()? {
        if let Some(f) = ty.fields.iter().find(|f| f.proto == number) {
            field(f, wire, depth, out)?;
        } else if let Some((_, embedded)) = ty.embeds.iter().find(|(n, _)| *n == number) {
            structure(embedded, wire.len()?, depth, out)?;
        }
    }
    Ok(())
}

fn field(f: &'static Field, wire: Wire<'_>, depth: usize, out: &mut Map<String, Value>) -> Result<(), DecodeError> {
    match f.kind {
        Kind::Struct(ty) => {
            let slot = out.entry(f.name).or_insert_with(|| Value::Object(Map::new()));
            let map = slot.as_object_mut().expect("a struct field holds an object");
            structure(ty, wire.len()?, depth, map)
        }
        Kind::List(elem) => {
            let slot = out.entry(f.name).or_insert_with(|| Value::Array(Vec::new()));
            let list = slot.as_array_mut().expect("a list field holds an array");
            match (elem, &wire) {
                // Packed numbers.
                (Kind::Int32 | Kind::Int64 | Kind::Bool, Wire::Len(bytes)) => {
                    let mut r = Reader(bytes);
                    while !r.0.is_empty() {
                        list.push(single(elem, &Wire::Varint(r.varint()?), depth)?);
                    }
                }
                _ => list.push(single(elem, &wire, depth)?),
            }
            Ok(())
        }
        Kind::Map(elem) => {
            let (mut key, mut value) = (String::new(), None);
            let mut r = Reader(wire.len()?);
            while let Some((number, wire)) = r.next()? {
                match number {
                    1 => key = wire.text()?,
                    2 => value = Some(single(elem, &wire, depth)?),
                    _ => {}
                }
            }
            let value = match value {
                Some(v) => v,
                None => single(elem, &zero_wire(elem), depth)?,
            };
            let slot = out.entry(f.name).or_insert_with(|| Value::Object(Map::new()));
            slot.as_object_mut().expect("a map field holds an object").insert(key, value);
            Ok(())
        }
        ref kind => {
            let v = single(kind, &wire, depth)?;
            if !v.is_null() {
                out.insert(f.name.to_string(), v);
            }
            Ok(())
        }
    }
}

fn zero_wire(kind: &Kind) -> Wire<'static> {
    match kind {
        Kind::Bool | Kind::Int32 | Kind::Int64 => Wire::Varint(0),
        Kind::Float64 => Wire::Fixed64(0),
        _ => Wire::Len(&[]),
    }
}

fn single(kind: &Kind, wire: &Wire<'_>, depth: usize) -> Result<Value, DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
    Ok(match kind {
        Kind::String => wire.text()?.into(),
        Kind::Bool => (wire.int()? != 0).into(),
        Kind::Int32 => (wire.int()? as i64 as i32).into(),
        Kind::Int64 => (wire.int()? as i64).into(),
        Kind::Float64 => f64::from_bits(wire.int()?).into(),
        Kind::Bytes => STANDARD.encode(wire.len()?).into(),
        Kind::Quantity => {
            let mut text = String::from("0");
            each(wire.len()?, |number, w| {
                if number == 1 {
                    text = w.text()?;
                }
                Ok(())
            })?;
            if text.is_empty() {
                text.push('0');
            }
            crate::quantity::Quantity::parse(&text).map_err(|e| DecodeError::Type(e.to_string()))?;
            text.into()
        }
        Kind::Time | Kind::MicroTime => {
            let bytes = wire.len()?;
            if bytes.is_empty() {
                // Go's zero time.
                return Ok(Value::Null);
            }
            let mut t = Timestamp::default();
            each(bytes, |number, w| {
                match number {
                    1 => t.secs = w.int()? as i64,
                    2 => t.nanos = (w.int()? as u32).min(999_999_999),
                    _ => {}
                }
                Ok(())
            })?;
            // Years that RFC 3339 cannot say.
            if !(-62_135_596_800..253_402_300_800).contains(&t.secs) {
                return Err(bad("time out of range"));
            }
            if matches!(kind, Kind::Time) { time::format(t) } else { time::format_micro(t) }.into()
        }
        Kind::IntOrString => {
            let (mut is_text, mut int, mut text) = (false, 0i32, String::new());
            each(wire.len()?, |number, w| {
                match number {
                    1 => is_text = w.int()? == 1,
                    2 => int = w.int()? as i32,
                    3 => text = w.text()?,
                    _ => {}
                }
                Ok(())
            })?;
            if is_text { text.into() } else { int.into() }
        }
        Kind::Items => {
            let mut items = Vec::new();
            each(wire.len()?, |number, w| {
                if number == 1 {
                    items.push(Value::String(w.text()?));
                }
                Ok(())
            })?;
            Value::Array(items)
        }
        Kind::Struct(ty) => {
            let mut map = Map::new();
            structure(ty, wire.len()?, depth, &mut map)?;
            Value::Object(map)
        }
        Kind::Raw(Raw::Json) => {
            let mut out = Value::Null;
            each(wire.len()?, |number, w| {
                let bytes = w.len()?;
                if number == 1 && !bytes.is_empty() {
                    let limits = Limits { max_bytes: bytes.len(), max_depth: depth };
                    out = super::json::bytes(None, bytes, Strictness::Ignore, &limits)?.value;
                }
                Ok(())
            })?;
            out
        }
        Kind::Raw(raw) => schema(*raw, wire.len()?, depth)?,
        Kind::List(_) | Kind::Map(_) => return Err(bad("a list inside a list")),
    })
}

fn schema(raw: Raw, bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
    let ty = crate::canon::schema_type();
    let (mut one, mut many, mut allows) = (None, Vec::new(), false);
    each(bytes, |number, w| {
        match (raw, number) {
            (Raw::SchemaOrBool, 1) => allows = w.int()? != 0,
            (Raw::SchemaOrBool, 2) | (Raw::SchemaOrArray | Raw::SchemaOrStringArray, 1) => {
                one = Some(single(&Kind::Struct(ty), &w, depth)?);
            }
            (Raw::SchemaOrArray, 2) => many.push(single(&Kind::Struct(ty), &w, depth)?),
            (Raw::SchemaOrStringArray, 2) => many.push(w.text()?.into()),
            _ => {}
        }
        Ok(())
    })?;
    Ok(match (raw, one) {
        (_, Some(schema)) => schema,
        (Raw::SchemaOrBool, None) => allows.into(),
        _ => Value::Array(many),
    })
}

fn each<'a>(bytes: &'a [u8], mut f: impl FnMut(u32, Wire<'a>) -> Result<(), DecodeError>) -> Result<(), DecodeError> {
    let mut r = Reader(bytes);
    while let Some((number, wire)) = r.next()? {
        f(number, wire)?;
    }
    Ok(())
}
