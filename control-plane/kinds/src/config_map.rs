//! ConfigMap.

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;
use triarch_registry::Kind;

use crate::describe;
use crate::field::{self, Path};
use crate::meta;
use crate::print::{AGE, NAME, text};
use crate::value::{entries, flag, get, same};

/// Of all values together (and of a Secret's).
pub const MAX_SIZE: usize = 1024 * 1024;

pub static KIND: Kind = Kind {
    kind: "ConfigMap",
    list_kind: "ConfigMapList",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    schema: "core/v1.ConfigMap",
    resource: "configmaps",
    columns: &[
        NAME,
        text("Data", describe::CONFIG_MAP_DATA, |v, _| {
            (entries(v, "data").len() + entries(v, "binaryData").len()).into()
        }),
        AGE,
    ],
    validate_name: meta::subdomain_name,
    validate: |_, v, errs| validate(v, errs),
    validate_update: |_, new, old, errs| keeps_immutable(new, old, &["data", "binaryData"], errs),
    ..Kind::BASE
};

fn validate(v: &Value, errs: &mut ErrorList) {
    let mut size = 0;
    for (key, value) in entries(v, "data") {
        let p = Path::new("data").key(key);
        field::invalid_each(errs, &p, key, names::config_map_key(key));
        if get(v, "binaryData").get(key).is_some() {
            field::invalid(errs, &p, key, "duplicate of key present in binaryData");
        }
        size += value.as_str().unwrap_or("").len();
    }
    for (key, value) in entries(v, "binaryData") {
        field::invalid_each(errs, &Path::new("binaryData").key(key), key, names::config_map_key(key));
        size += decoded_len(value);
    }
    if size > MAX_SIZE {
        field::too_long(errs, "[]", MAX_SIZE);
    }
}

/// How many bytes a base64 text stands for.
pub fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or("").trim_end_matches('=');
    text.len() * 3 / 4
}

/// `immutable: true` freezes the data and itself.
pub fn keeps_immutable(new: &Value, old: &Value, data: &[&str], errs: &mut ErrorList) {
    if !flag(old, "immutable") {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if !flag(new, "immutable") {
        field::forbidden(errs, "immutable", detail);
    }
    for key in data {
        if !same(get(new, key), get(old, key)) {
            field::forbidden(errs, key, detail);
        }
    }
}
