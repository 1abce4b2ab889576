//! The JSON walker: serde events against the table.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::context::{Context, Step};
use super::{DecodeError, Decoded, Limits, Strictness, TypeMeta};
use crate::canon::any_to_json;
use crate::quantity::Quantity;
use crate::schema::{Kind, Raw, Type};
use crate::time;

/// What serde calls our own refusals; the real error is in the context.
const STOPPED: &str = "stopped";

pub(super) fn bytes(
    ty: Option<&'static Type>,
    bytes: &[u8],
    strict: Strictness,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    let mut de = serde_json::Deserializer::from_slice(bytes);
    // The context's own limit holds instead.
    de.disable_recursion_limit();
    let mut ctx = Context::new(strict, limits);
    let (root, go) = root(ty);
    let read = Node { kind: root.as_ref(), go: &go, ctx: &mut ctx }.deserialize(&mut de).and_then(|v| {
        de.end()?;
        Ok(v)
    });
    finish(read.map_err(|e| DecodeError::Syntax(syntax(bytes, &e))), ctx)
}

pub(super) fn value(
    ty: Option<&'static Type>,
    v: Value,
    strict: Strictness,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    let mut ctx = Context::new(strict, limits);
    let (root, go) = root(ty);
    let read = Node { kind: root.as_ref(), go: &go, ctx: &mut ctx }.deserialize(v);
    finish(read.map_err(|e| DecodeError::Syntax(e.to_string())), ctx)
}

/// The kind of the whole, and its Go type in error messages.
fn root(ty: Option<&'static Type>) -> (Option<Kind>, String) {
    let go = ty.map(|t| format!("{}.{}", t.package.rsplit('/').next().unwrap_or(""), t.go));
    (ty.map(Kind::Struct), go.unwrap_or_default())
}

fn finish(read: Result<Value, DecodeError>, mut ctx: Context) -> Result<Decoded, DecodeError> {
    match (ctx.error.take(), read) {
        // Malformed text wins over a type error that came before it.
        (None | Some(DecodeError::Type(_)), Err(e)) if !matches!(&e, DecodeError::Syntax(s) if s == STOPPED) => Err(e),
        (Some(e), _) => Err(e),
        (None, Err(e)) => Err(e),
        (None, Ok(value)) => Ok(Decoded { value, strict_errors: ctx.into_strict_errors() }),
    }
}

struct Node<'a> {
    /// `None` is any value.
    kind: Option<&'a Kind>,
    /// The Go type in error messages.
    go: &'a str,
    ctx: &'a mut Context,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl Node<'_> {
    /// A scalar of the input against the kind that is wanted. Raw and Struct: see the callers.
    fn scalar(self, v: Value) -> Value {
        let ctx = self.ctx;
        let what = |v: &Value| match v {
            Value::Bool(_) => "bool",
            Value::String(_) => "string",
            _ => "number",
        };
        match (self.kind, &v) {
            (None | Some(Kind::Raw(_)), _) => v,
            (Some(Kind::String), Value::String(_)) | (Some(Kind::Bool), Value::Bool(_)) => v,
            (Some(kind @ (Kind::Int32 | Kind::Int64)), Value::Number(n)) => {
                let fits = n.as_i64().is_some_and(|n| matches!(kind, Kind::Int64) || i32::try_from(n).is_ok());
                if !fits {
                    ctx.mismatch(&format!("number {}", text(&v)), self.go);
                }
                v
            }
            (Some(Kind::Float64), Value::Number(_)) => v,
            (Some(Kind::Bytes), Value::String(s)) => {
                if let Err(e) = crate::canon::check_base64(s) {
                    ctx.fail(e);
                }
                v
            }
            (Some(Kind::Quantity), _) => {
                let checked = match &v {
                    Value::String(s) => Quantity::parse(s),
                    other => Quantity::parse(&text(other)),
                };
                if let Err(e) = checked {
                    ctx.fail(e.to_string());
                }
                v
            }
            (Some(kind @ (Kind::Time | Kind::MicroTime)), Value::String(s)) => {
                let micro = matches!(kind, Kind::MicroTime);
                if let Err(e) = if micro { time::parse_micro(s) } else { time::parse(s) } {
                    ctx.fail(e.0);
                }
                v
            }
            (Some(Kind::Time | Kind::MicroTime), other) => {
                ctx.mismatch(what(other), "string");
                v
            }
            (Some(Kind::IntOrString), Value::String(_)) => v,
            (Some(Kind::IntOrString), Value::Number(n)) => {
                if n.as_i64().is_none_or(|n| i32::try_from(n).is_err()) {
                    ctx.mismatch(&format!("number {}", text(&v)), "int32");
                }
                v
            }
            (Some(Kind::IntOrString), other) => {
                ctx.mismatch(what(other), "int32");
                v
            }
            (Some(_), other) => {
                ctx.mismatch(what(other), self.go);
                v
            }
        }
    }

    /// The wrong container for the kind: types with their own reader say it differently.
    fn container(&mut self, what: &str) {
        match self.kind {
            Some(Kind::Quantity) => self.ctx.fail(crate::quantity::QuantityError::Format.to_string()),
            Some(Kind::Time | Kind::MicroTime) => self.ctx.mismatch(what, "string"),
            Some(Kind::IntOrString) => self.ctx.mismatch(what, "int32"),
            _ => self.ctx.mismatch(what, self.go),
        }
    }
}

fn text(v: &Value) -> String {
    String::from_utf8_lossy(&any_to_json(v)).into_owned()
}

/// The Go type of an element: `[]v1.Container` has `v1.Container`.
fn elem_go(go: &str) -> &str {
    match go.strip_prefix("[]") {
        Some(elem) => elem.trim_start_matches('*'),
        None => match go.strip_prefix("map[").and_then(|r| r.split_once(']')) {
            Some((_, value)) => value,
            None => "string",
        },
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(self.scalar(Value::Bool(v)))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(self.scalar(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(self.scalar(v.into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(self.scalar(v.into()))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(self.scalar(v.into()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(self.scalar(v.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let schema = Kind::Raw(Raw::SchemaOrArray);
        let (elem, go): (Option<&Kind>, &str) = match self.kind {
            None | Some(Kind::Raw(Raw::Json)) => (None, ""),
            Some(Kind::Raw(_)) => (Some(&schema), ""),
            Some(Kind::List(elem)) => (Some(elem), elem_go(self.go)),
            Some(Kind::Items) => (Some(&Kind::String), "string"),
            Some(_) => {
                self.container("array");
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Value::Null);
            }
        };
        let is_raw = matches!(self.kind, Some(Kind::Raw(_)));
        if !self.ctx.enter() {
            return Err(A::Error::custom(STOPPED));
        }
        self.ctx.raw += usize::from(is_raw);
        let mut out = Vec::new();
        loop {
            self.ctx.path.push(Step::Index(out.len()));
            let next = seq.next_element_seed(Node { kind: elem, go, ctx: self.ctx })?;
            self.ctx.path.pop();
            match next {
                Some(v) => out.push(v),
                None => break,
            }
        }
        self.ctx.raw -= usize::from(is_raw);
        self.ctx.leave();
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<Value, A::Error> {
        if !self.ctx.enter() {
            return Err(A::Error::custom(STOPPED));
        }
        let out = match self.kind {
            Some(Kind::Struct(ty)) => structure(ty, self.ctx, map)?,
            Some(Kind::Map(elem)) => entries(Some(elem), elem_go(self.go), self.ctx, map)?,
            None => entries(None, "", self.ctx, map)?,
            Some(Kind::Raw(raw)) => {
                self.ctx.raw += 1;
                let out = match raw {
                    Raw::Json => entries(None, "", self.ctx, map)?,
                    _ => structure(crate::canon::schema_type(), self.ctx, map)?,
                };
                self.ctx.raw -= 1;
                out
            }
            Some(_) => {
                self.container("object");
                let mut map = map;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Map::new()
            }
        };
        self.ctx.leave();
        Ok(Value::Object(out))
    }
}

fn structure<'de, A: MapAccess<'de>>(
    ty: &'static Type,
    ctx: &mut Context,
    mut map: A,
) -> Result<Map<String, Value>, A::Error> {
    let mut out = Map::new();
    let mut given: Vec<&'static str> = Vec::new();
    ctx.structs.push(ty.go);
    while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
        let Some(f) = ty.field(&key) else {
            ctx.unknown(&key);
            map.next_value::<IgnoredAny>()?;
            continue;
        };
        if given.contains(&f.name) {
            ctx.duplicate(f.name);
        } else {
            given.push(f.name);
        }
        ctx.path.push(Step::Key(f.name.to_string()));
        // Go's path names the embedded struct that a field came from.
        let depth = ctx.fields.len();
        if f.owner != ty.go {
            ctx.fields.push(f.owner);
        }
        ctx.fields.push(f.name);
        let v = map.next_value_seed(Node { kind: Some(&f.kind), go: f.go, ctx })?;
        ctx.fields.truncate(depth);
        ctx.path.pop();
        if !v.is_null() {
            out.insert(f.name.to_string(), v);
        }
    }
    ctx.structs.pop();
    Ok(out)
}

fn entries<'de, A: MapAccess<'de>>(
    elem: Option<&Kind>,
    go: &str,
    ctx: &mut Context,
    mut map: A,
) -> Result<Map<String, Value>, A::Error> {
    let mut out = Map::new();
    while let Some(key) = map.next_key::<String>()? {
        if out.contains_key(&key) {
            ctx.duplicate(&key);
        }
        ctx.path.push(Step::Key(key.clone()));
        let v = map.next_value_seed(Node { kind: elem, go, ctx })?;
        ctx.path.pop();
        out.insert(key, v);
    }
    Ok(out)
}

/// The type that upstream reads kind and version into, as its errors print it.
const HEAD: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

pub(super) fn type_meta(bytes: &[u8]) -> Result<TypeMeta, DecodeError> {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(default, rename = "apiVersion")]
        api_version: Value,
        #[serde(default)]
        kind: Value,
    }
    let syntax = |e: serde_json::Error| DecodeError::Syntax(syntax(bytes, &e));
    let wrong = match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'"') => "string",
        Some(b'[') => "array",
        Some(b't' | b'f') => "bool",
        Some(b'-' | b'0'..=b'9') => "number",
        Some(b'n') => "",
        _ => {
            let head: Head = serde_json::from_slice(bytes).map_err(syntax)?;
            let text = |field: &str, v: Value| match v {
                Value::Null => Ok(String::new()),
                Value::String(s) => Ok(s),
                other => Err(DecodeError::Type(format!(
                    "json: cannot unmarshal {} into Go struct field .{field} of type string",
                    json_type(&other)
                ))),
            };
            return Ok(TypeMeta { api_version: text("apiVersion", head.api_version)?, kind: text("kind", head.kind)? });
        }
    };
    serde_json::from_slice::<IgnoredAny>(bytes).map_err(syntax)?;
    match wrong {
        "" => Ok(TypeMeta::default()),
        wrong => Err(DecodeError::Type(format!("json: cannot unmarshal {wrong} into Go value of type {HEAD}"))),
    }
}

fn json_type(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Go's words for malformed JSON.
fn syntax(bytes: &[u8], e: &serde_json::Error) -> String {
    if e.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let text = e.to_string();
    if text.starts_with(STOPPED) {
        return STOPPED.into();
    }
    if text.starts_with("control character") {
        // The place is at the character or just behind it, perhaps on the next line already.
        let before: usize = bytes.split(|b| *b == b'\n').take(e.line().saturating_sub(1)).map(|l| l.len() + 1).sum();
        let end = (before + e.column() + 1).min(bytes.len());
        let c = bytes[..end].iter().rev().find(|b| **b < 0x20).map_or('\u{fffd}', |b| char::from(*b));
        return format!("invalid character {} in string literal", go_char(c));
    }
    let line = bytes.split(|b| *b == b'\n').nth(e.line().saturating_sub(1)).unwrap_or(&[]);
    let at = line.get(e.column().saturating_sub(1)..).unwrap_or(&[]);
    let head = String::from_utf8_lossy(&at[..at.len().min(4)]);
    // Column 0 is the end of the line before.
    let c = if e.column() == 0 { '\n' } else { head.chars().next().unwrap_or('\u{fffd}') };
    if text.starts_with("expected ident") {
        // Go names the literal that the text began to spell.
        let end = e.column().saturating_sub(1).min(line.len());
        let start = line[..end].iter().rposition(|b| !b.is_ascii_lowercase()).map_or(0, |i| i + 1);
        let literal = ["null", "true", "false"].into_iter().find(|l| line.get(start) == l.as_bytes().first());
        if let Some((literal, want)) = literal.and_then(|l| l.get(end - start..=end - start).map(|w| (l, w))) {
            let c = go_char(c);
            return format!("invalid character {c} in literal {literal} (expecting '{want}')");
        }
    }
    let place = if text.starts_with("key must be a string") {
        "looking for beginning of object key string"
    } else if text.starts_with("expected `,` or `}`") {
        "after object key:value pair"
    } else if text.starts_with("expected `,` or `]`") {
        "after array element"
    } else if text.starts_with("expected `:`") {
        "after object key"
    } else if text.starts_with("trailing characters") {
        "after top-level value"
    } else if text.starts_with("trailing comma") && c == '}' {
        "looking for beginning of object key string"
    } else {
        "looking for beginning of value"
    };
    format!("invalid character {} {place}", go_char(c))
}

/// A character as Go quotes it in these messages.
fn go_char(c: char) -> String {
    match c {
        '\'' => r"'\''".into(),
        '"' => "'\"'".into(),
        c => {
            let quoted = crate::text::quote(&c.to_string());
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}
