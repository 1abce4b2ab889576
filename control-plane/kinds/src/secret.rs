//! Secret: typed data, `stringData` merged into it, immutability.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;
use triarch_registry::Kind;

use crate::config_map::{MAX_SIZE, decoded_len, keeps_immutable};
use crate::describe;
use crate::field::{self, Path};
use crate::meta;
use crate::print::{AGE, NAME, text};
use crate::value::{child, default_str, entries, get, metadata_map, object, remove, str_of};

pub static KIND: Kind = Kind {
    kind: "Secret",
    list_kind: "SecretList",
    plural: "secrets",
    singular: "secret",
    schema: "core/v1.Secret",
    resource: "secrets",
    columns: &[
        NAME,
        text("Type", describe::SECRET_TYPE, |v, _| str_of(v, "type").into()),
        text("Data", describe::SECRET_DATA, |v, _| entries(v, "data").len().into()),
        AGE,
    ],
    selectable: &[triarch_registry::SelectableField { path: "type", get: |v| str_of(v, "type").to_owned() }],
    validate_name: meta::subdomain_name,
    defaults,
    validate: |_, v, errs| validate(v, errs),
    validate_update: |_, new, old, errs| {
        field::immutable(errs, "type", get(new, "type"), get(old, "type"));
        keeps_immutable(new, old, &["data"], errs);
    },
    ..Kind::BASE
};

fn defaults(v: &mut Value) {
    default_str(v, "type", "Opaque");
    // Written in clear by people, never kept and never shown.
    if let Some(plain) = get(v, "stringData").as_object().cloned() {
        let data = object(child(v, "data"));
        for (key, text) in plain {
            data.insert(key, Value::String(STANDARD.encode(text.as_str().unwrap_or(""))));
        }
    }
    remove(v, "stringData");
}

fn validate(v: &Value, errs: &mut ErrorList) {
    let p = Path::new("data");
    let mut size = 0;
    for (key, value) in entries(v, "data") {
        field::invalid_each(errs, &p.key(key), key, names::config_map_key(key));
        size += decoded_len(value);
    }
    if size > MAX_SIZE {
        field::too_long(errs, &p, MAX_SIZE);
    }
    let data = get(v, "data");
    let has = |key: &str| data.get(key).is_some();
    match str_of(v, "type") {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            if metadata_map(v, "annotations", key).is_none_or(str::is_empty) {
                field::required(errs, Path::new("metadata").child("annotations").key(key), "");
            }
        }
        "kubernetes.io/dockercfg" => json_map(errs, &p, data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_map(errs, &p, data, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            field::required(errs, p.key("username"), "");
            field::required(errs, p.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if str_of(data, "ssh-privatekey").is_empty() => {
            field::required(errs, p.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    field::required(errs, p.key(key), "");
                }
            }
        }
        _ => {}
    }
}

/// The value must be a JSON object; its contents never appear in the message.
fn json_map(errs: &mut ErrorList, p: &Path, data: &Value, key: &str) {
    let Some(text) = data.get(key).and_then(Value::as_str) else {
        field::required(errs, p.key(key), "");
        return;
    };
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let problem = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(other) => {
            format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", json_type(&other))
        }
        Err(_) if bytes.is_empty() => "unexpected end of JSON input".to_owned(),
        Err(e) if e.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(_) => "invalid character in JSON input".to_owned(),
    };
    field::invalid(errs, p.key(key), "<secret contents redacted>", problem);
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
