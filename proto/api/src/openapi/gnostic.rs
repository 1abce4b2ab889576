//! The v2 document as the protobuf message that Go clients read
//! (`openapi.v2.Document`): only what our own documents contain.
//!
//! Field numbers are those of the published message; extensions travel as YAML text.

use serde_json::{Map, Value};

use crate::protobuf::{bytes, int, tag};

/// How deep a schema may nest; ours are built from bounded tables.
const MAX_DEPTH: usize = 256;

pub(super) fn document(v: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, v.get("swagger"));
    if let Some(info) = v.get("info") {
        message(&mut out, 2, |m| {
            text(m, 1, info.get("title"));
            text(m, 2, info.get("version"));
        });
    }
    message(&mut out, 8, |m| {
        for (path, item) in entries(v.get("paths")) {
            named(m, 2, path, |m| path_item(m, item));
        }
    });
    message(&mut out, 9, |m| {
        for (name, schema_value) in entries(v.get("definitions")) {
            named(m, 1, name, |m| schema(m, schema_value, 0));
        }
    });
    for requirement in items(v.get("security")) {
        message(&mut out, 12, |m| {
            for (name, scopes) in entries(Some(requirement)) {
                named(m, 1, name, |m| strings(m, 1, Some(scopes)));
            }
        });
    }
    message(&mut out, 13, |m| {
        for (name, security) in entries(v.get("securityDefinitions")) {
            named(m, 1, name, |m| {
                // Our only one is an API key.
                message(m, 2, |m| {
                    text(m, 1, security.get("type"));
                    text(m, 2, security.get("name"));
                    text(m, 3, security.get("in"));
                    text(m, 4, security.get("description"));
                });
            });
        }
    });
    out
}

fn path_item(out: &mut Vec<u8>, v: &Value) {
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(op) = v.get(method) {
            message(out, number, |m| operation(m, op));
        }
    }
    parameters(out, 9, v.get("parameters"));
}

fn operation(out: &mut Vec<u8>, v: &Value) {
    strings(out, 1, v.get("tags"));
    text(out, 3, v.get("description"));
    text(out, 5, v.get("operationId"));
    strings(out, 6, v.get("produces"));
    strings(out, 7, v.get("consumes"));
    parameters(out, 8, v.get("parameters"));
    message(out, 9, |m| {
        for (code, response) in entries(v.get("responses")) {
            named(m, 1, code, |m| {
                message(m, 1, |m| {
                    text(m, 1, response.get("description"));
                    if let Some(body) = response.get("schema") {
                        message(m, 2, |m| message(m, 1, |m| schema(m, body, 0)));
                    }
                });
            });
        }
    });
    strings(out, 10, v.get("schemes"));
    extensions(out, 13, v);
}

fn parameters(out: &mut Vec<u8>, number: u32, list: Option<&Value>) {
    for p in items(list) {
        let place = p.get("in").and_then(Value::as_str).unwrap_or("");
        // ParametersItem{parameter = 1}
        message(out, number, |m| {
            message(m, 1, |m| match place {
                "body" => message(m, 1, |m| {
                    text(m, 1, p.get("description"));
                    text(m, 2, p.get("name"));
                    text(m, 3, p.get("in"));
                    flag(m, 4, p.get("required"));
                    if let Some(body) = p.get("schema") {
                        message(m, 5, |m| schema(m, body, 0));
                    }
                }),
                _ => message(m, 2, |m| {
                    let query = place == "query";
                    message(m, if query { 3 } else { 4 }, |m| {
                        flag(m, 1, p.get("required"));
                        text(m, 2, p.get("in"));
                        text(m, 3, p.get("description"));
                        text(m, 4, p.get("name"));
                        text(m, if query { 6 } else { 5 }, p.get("type"));
                    });
                }),
            });
        });
    }
}

fn schema(out: &mut Vec<u8>, v: &Value, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    text(out, 1, v.get("$ref"));
    text(out, 2, v.get("format"));
    text(out, 3, v.get("title"));
    text(out, 4, v.get("description"));
    if let Some(default) = v.get("default") {
        message(out, 5, |m| yaml(m, default));
    }
    double(out, 6, v.get("multipleOf"));
    double(out, 7, v.get("maximum"));
    flag(out, 8, v.get("exclusiveMaximum"));
    double(out, 9, v.get("minimum"));
    flag(out, 10, v.get("exclusiveMinimum"));
    number(out, 11, v.get("maxLength"));
    number(out, 12, v.get("minLength"));
    text(out, 13, v.get("pattern"));
    number(out, 14, v.get("maxItems"));
    number(out, 15, v.get("minItems"));
    flag(out, 16, v.get("uniqueItems"));
    number(out, 17, v.get("maxProperties"));
    number(out, 18, v.get("minProperties"));
    strings(out, 19, v.get("required"));
    for one in items(v.get("enum")) {
        message(out, 20, |m| yaml(m, one));
    }
    match v.get("additionalProperties") {
        Some(Value::Bool(b)) => message(out, 21, |m| int(m, 2, i64::from(*b))),
        Some(inner) => message(out, 21, |m| message(m, 1, |m| schema(m, inner, depth + 1))),
        None => {}
    }
    if let Some(ty) = v.get("type").and_then(Value::as_str) {
        message(out, 22, |m| bytes(m, 1, ty.as_bytes()));
    }
    if let Some(inner) = v.get("items") {
        message(out, 23, |m| message(m, 1, |m| schema(m, inner, depth + 1)));
    }
    if let Some(properties) = v.get("properties") {
        message(out, 25, |m| {
            for (name, inner) in entries(Some(properties)) {
                named(m, 1, name, |m| schema(m, inner, depth + 1));
            }
        });
    }
    extensions(out, 31, v);
}

/// `x-…` as NamedAny with YAML (JSON is YAML).
fn extensions(out: &mut Vec<u8>, number: u32, v: &Value) {
    for (name, value) in entries(Some(v)).filter(|(k, _)| k.starts_with("x-")) {
        named(out, number, name, |m| yaml(m, value));
    }
}

fn yaml(out: &mut Vec<u8>, v: &Value) {
    bytes(out, 2, &crate::canon::any_to_json(v));
}

fn named(out: &mut Vec<u8>, number: u32, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    message(out, number, |m| {
        bytes(m, 1, name.as_bytes());
        message(m, 2, value);
    });
}

fn message(out: &mut Vec<u8>, number: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    bytes(out, number, &inner);
}

fn text(out: &mut Vec<u8>, number: u32, v: Option<&Value>) {
    if let Some(s) = v.and_then(Value::as_str) {
        bytes(out, number, s.as_bytes());
    }
}

fn strings(out: &mut Vec<u8>, number: u32, v: Option<&Value>) {
    items(v).filter_map(Value::as_str).for_each(|s| bytes(out, number, s.as_bytes()));
}

fn flag(out: &mut Vec<u8>, field: u32, v: Option<&Value>) {
    if v.and_then(Value::as_bool) == Some(true) {
        int(out, field, 1);
    }
}

fn number(out: &mut Vec<u8>, field: u32, v: Option<&Value>) {
    if let Some(n) = v.and_then(Value::as_i64) {
        int(out, field, n);
    }
}

fn double(out: &mut Vec<u8>, field: u32, v: Option<&Value>) {
    if let Some(n) = v.and_then(Value::as_f64) {
        tag(out, field, 1);
        out.extend_from_slice(&n.to_le_bytes());
    }
}

fn items(v: Option<&Value>) -> impl Iterator<Item = &Value> {
    v.and_then(Value::as_array).into_iter().flatten()
}

fn entries(v: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    v.and_then(Value::as_object).into_iter().flat_map(Map::iter)
}
