//! Strategic merge patch: maps merge, lists merge by the table's merge keys, and
//! directives (`$patch`, `$retainKeys`, `$deleteFromPrimitiveList/x`,
//! `$setElementOrder/x`) say what plain merging cannot.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Field, Kind, Type};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// What is known about a place: a struct's fields, a map's values, or nothing.
#[derive(Clone, Copy)]
enum Schema {
    Struct(&'static Type),
    MapOf(&'static Kind),
    Unknown,
}

/// A field's schema and how a list there merges.
#[derive(Clone, Copy)]
struct Place {
    schema: Schema,
    /// `Some("")` merges primitives.
    merge_key: Option<&'static str>,
    replace: bool,
}

impl Schema {
    fn of(kind: &'static Kind) -> Schema {
        match kind {
            Kind::Struct(ty) => Schema::Struct(ty),
            Kind::Map(elem) => Schema::MapOf(elem),
            Kind::List(elem) => Schema::of(elem),
            _ => Schema::Unknown,
        }
    }

    fn field(self, key: &str) -> Place {
        match self {
            Schema::Struct(ty) => match ty.field(key) {
                Some(Field { kind, merge, merge_key, replace, .. }) => {
                    Place { schema: Schema::of(kind), merge_key: merge.then_some(*merge_key), replace: *replace }
                }
                None => Place { schema: Schema::Unknown, merge_key: None, replace: false },
            },
            Schema::MapOf(kind) => Place { schema: Schema::of(kind), merge_key: None, replace: false },
            Schema::Unknown => Place { schema: Schema::Unknown, merge_key: None, replace: false },
        }
    }
}

pub(super) fn apply(ty: &'static Type, doc: &Value, patch: &Value) -> Result<Value, PatchError> {
    let original = doc.as_object().cloned().unwrap_or_default();
    let patch = patch.as_object().cloned().unwrap_or_default();
    merge_map(original, patch, Schema::Struct(ty)).map(Value::Object)
}

fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: Schema,
) -> Result<Map<String, Value>, PatchError> {
    if let Some(directive) = patch.remove(PATCH) {
        match directive.as_str() {
            Some("replace") => return Ok(without_directives(patch)),
            Some("delete") => return Ok(Map::new()),
            Some("merge") => {}
            _ => return Err(PatchError::Bad(format!("unknown patch type found: {}", go_string(&directive)))),
        }
    }
    retain_keys(&mut original, &mut patch)?;
    set_orders(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            let Value::Array(gone) = &value else {
                return Err(PatchError::Bad("invalid patch format of primitive list".into()));
            };
            if let Some(Value::Array(items)) = original.get_mut(field) {
                items.retain(|i| !gone.contains(i));
            }
            continue;
        }
        let place = schema.field(&key);
        match (original.remove(&key), value) {
            (_, Value::Null) => {}
            (Some(Value::Object(have)), Value::Object(want)) if !place.replace => {
                original.insert(key, Value::Object(merge_map(have, want, place.schema)?));
            }
            (Some(Value::Array(have)), Value::Array(want)) => {
                original.insert(key, Value::Array(merge_list(have, want, place)?));
            }
            (_, value) => {
                original.insert(key, clean(value));
            }
        }
    }
    Ok(original)
}

/// `$retainKeys`: what it does not name goes, and the patch may set nothing else.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(list) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || PatchError::Bad("invalid patch format of retainKeys".into());
    let keys: Vec<&str> = list.as_array().ok_or_else(bad)?.iter().filter_map(Value::as_str).collect();
    let plain = |k: &str| !k.starts_with(SET_ORDER) && !k.starts_with(DELETE_FROM);
    if patch.iter().any(|(k, v)| plain(k) && !v.is_null() && !keys.contains(&k.as_str())) {
        return Err(bad());
    }
    original.retain(|k, _| keys.contains(&k.as_str()));
    Ok(())
}

/// `$setElementOrder/x`: merges the list and puts it in that order.
fn set_orders(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: Schema,
) -> Result<(), PatchError> {
    let orders: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
    for order_key in orders {
        let field = &order_key[SET_ORDER.len()..];
        let Some(Value::Array(order)) = patch.remove(&order_key) else {
            return Err(PatchError::Bad("invalid patch format of setElementOrder list".into()));
        };
        let place = schema.field(field);
        let key = place.merge_key.unwrap_or("");
        let gone = match patch.remove(&format!("{DELETE_FROM}{field}")) {
            Some(Value::Array(gone)) => gone,
            _ => Vec::new(),
        };
        let have = match original.get(field) {
            Some(Value::Array(items)) => Some(items.clone()),
            _ => None,
        };
        let want = match patch.get(field) {
            Some(Value::Array(_)) => match patch.remove(field) {
                Some(Value::Array(items)) => Some(items),
                _ => None,
            },
            // Null deletes, below.
            Some(_) => continue,
            None => None,
        };
        if have.is_none() && want.is_none() {
            continue;
        }
        for item in want.iter().flatten().filter(|i| i.get(PATCH).is_none()) {
            if !order.iter().any(|o| same(o, item, key)) {
                return Err(PatchError::Bad(format!(
                    "The order in patch list:\n{}\n doesn't match {order_key} list:\n{}\n",
                    go_list(want.as_deref().unwrap_or(&[])),
                    go_list(&order)
                )));
            }
        }
        let live = have.clone().unwrap_or_default();
        let merged = match (have, want) {
            (Some(have), Some(want)) => merge_list(have, want, place)?,
            (Some(have), None) => have,
            (None, Some(want)) => clean_list(want),
            (None, None) => continue,
        };
        let merged: Vec<Value> = merged.into_iter().filter(|i| !gone.contains(i)).collect();
        original.insert(field.to_string(), Value::Array(normalize(merged, &order, &live, key)));
    }
    Ok(())
}

fn merge_list(original: Vec<Value>, patch: Vec<Value>, place: Place) -> Result<Vec<Value>, PatchError> {
    let Some(key) = place.merge_key else {
        return Ok(clean_list(patch));
    };
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let maps = original.iter().chain(&patch).filter(|v| v.is_object()).count();
    if maps == 0 {
        let live = original.clone();
        let mut merged = original;
        for item in &patch {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(normalize(merged, &patch, &live, ""));
    }
    if maps != original.len() + patch.len() {
        return Err(PatchError::Internal("list element types are not identical".into()));
    }
    if key.is_empty() {
        return Err(PatchError::Internal("cannot merge lists without merge key".into()));
    }
    merge_objects(original, patch, key, place.schema)
}

fn merge_objects(original: Vec<Value>, patch: Vec<Value>, key: &str, schema: Schema) -> Result<Vec<Value>, PatchError> {
    let mut merged = original;
    let (mut plain, mut replace) = (Vec::new(), false);
    let merge_value = |item: &Value| {
        item.get(key).filter(|v| !v.is_null()).map(key_text).ok_or_else(|| {
            PatchError::Internal(format!("map: {} does not contain declared merge key: {key}", go_string(item)))
        })
    };
    for mut item in patch {
        match item.get(PATCH).map(|d| d.as_str().unwrap_or("")) {
            None => plain.push(item),
            Some("replace") => {
                replace = true;
                // An element may carry content beside the directive only in a map.
            }
            Some("delete") => {
                let gone = merge_value(&item)?;
                merged.retain(|m| m.get(key).map(key_text).as_ref() != Some(&gone));
            }
            Some("merge") => {
                if let Some(m) = item.as_object_mut() {
                    m.remove(PATCH);
                }
                plain.push(item);
            }
            Some(other) => return Err(PatchError::Bad(format!("unknown patch type found: {other}"))),
        }
    }
    if replace {
        return Ok(clean_list(plain));
    }
    let live = merged.clone();
    // The first element of each key; big lists stay linear.
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    for (i, m) in merged.iter().enumerate() {
        if let Some(v) = m.get(key) {
            at.entry(key_text(v)).or_insert(i);
        }
    }
    for item in &plain {
        let k = merge_value(item)?;
        let Value::Object(want) = item.clone() else { continue };
        match at.get(&k) {
            Some(&i) => {
                let have = merged[i].as_object_mut().map(std::mem::take).unwrap_or_default();
                merged[i] = Value::Object(merge_map(have, want, schema)?);
            }
            None => {
                at.insert(k, merged.len());
                merged.push(Value::Object(without_directives(want)));
            }
        }
    }
    Ok(normalize(merged, &plain, &live, key))
}

/// Items that `order` names come in its order; the others keep theirs, each before
/// the first named item that stood behind it in the live list.
fn normalize(merged: Vec<Value>, order: &[Value], live: &[Value], key: &str) -> Vec<Value> {
    let position = |list: &[Value]| -> BTreeMap<String, usize> {
        list.iter().enumerate().rev().map(|(i, v)| (identity(v, key), i)).collect()
    };
    let (order, live) = (position(order), position(live));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|v| order.contains_key(&identity(v, key)));
    named.sort_by_key(|v| order.get(&identity(v, key)).copied());
    others.sort_by_key(|v| live.get(&identity(v, key)).copied());
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let here = live.get(&identity(&item, key));
        while let (Some(here), Some(other)) = (here, others.peek()) {
            match live.get(&identity(other, key)) {
                Some(there) if there < here => out.extend(others.next()),
                _ => break,
            }
        }
        out.push(item);
    }
    out.extend(others);
    out
}

fn identity(v: &Value, key: &str) -> String {
    if key.is_empty() { v.to_string() } else { v.get(key).map(key_text).unwrap_or_default() }
}

fn same(a: &Value, b: &Value, key: &str) -> bool {
    identity(a, key) == identity(b, key)
}

/// Keys are compared by their text: 80 and "80" differ, 80 and 80.0 do not.
fn key_text(v: &Value) -> String {
    String::from_utf8_lossy(&crate::canon::any_to_json(v)).into_owned()
}

/// A value that the patch brings new: without nulls and directives.
fn clean(v: Value) -> Value {
    match v {
        Value::Object(m) => Value::Object(without_directives(m)),
        Value::Array(items) => Value::Array(clean_list(items)),
        other => other,
    }
}

fn clean_list(items: Vec<Value>) -> Vec<Value> {
    // An element that only carries a directive is none.
    items
        .into_iter()
        .filter(|i| !matches!(i.get(PATCH).and_then(Value::as_str), Some("delete" | "replace")))
        .map(clean)
        .collect()
}

fn without_directives(map: Map<String, Value>) -> Map<String, Value> {
    let directive = |k: &str| k == PATCH || k == RETAIN_KEYS || k.starts_with(DELETE_FROM) || k.starts_with(SET_ORDER);
    map.into_iter().filter(|(k, v)| !directive(k) && !v.is_null()).map(|(k, v)| (k, clean(v))).collect()
}

/// As Go's %v prints maps, lists and scalars.
fn go_string(v: &Value) -> String {
    match v {
        Value::Null => "<nil>".into(),
        Value::String(s) => s.clone(),
        Value::Array(items) => go_list(items),
        Value::Object(m) => {
            let list: Vec<String> = m.iter().map(|(k, v)| format!("{k}:{}", go_string(v))).collect();
            format!("map[{}]", list.join(" "))
        }
        other => other.to_string(),
    }
}

fn go_list(items: &[Value]) -> String {
    format!("[{}]", items.iter().map(go_string).collect::<Vec<_>>().join(" "))
}
