//! Columns that many kinds have, and the small texts that cells are made of.

use serde_json::Value;
use triarch_env::Wall;
use triarch_registry::Column;

use crate::describe;
use crate::duration;
use crate::value::{at, entries, get, list, str_of};

pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    description: describe::NAME,
    cell: |v, _| str_of(get(v, "metadata"), "name").into(),
};

pub const AGE: Column = text("Age", describe::CREATION_TIMESTAMP, |v, now| {
    duration::since(at(v, &["metadata", "creationTimestamp"]), now).into()
});

/// A column that is always shown.
pub const fn text(name: &'static str, description: &'static str, cell: fn(&Value, Wall) -> Value) -> Column {
    Column { name, kind: "string", format: "", priority: 0, description, cell }
}

/// A column of `-o wide`.
pub const fn wide(name: &'static str, description: &'static str, cell: fn(&Value, Wall) -> Value) -> Column {
    Column { name, kind: "string", format: "", priority: 1, description, cell }
}

/// A number that is always shown.
pub const fn integer(name: &'static str, description: &'static str, cell: fn(&Value, Wall) -> Value) -> Column {
    Column { name, kind: "integer", format: "", priority: 0, description, cell }
}

/// `name1,name2` of the template's containers.
pub const CONTAINERS: Column = wide("Containers", "Names of each container in the template.", |v, _| {
    joined(list(at(v, &["spec", "template", "spec"]), "containers"), "name").into()
});

pub const IMAGES: Column = wide("Images", "Images referenced by each container in the template.", |v, _| {
    joined(list(at(v, &["spec", "template", "spec"]), "containers"), "image").into()
});

pub fn joined(items: &[Value], key: &str) -> String {
    items.iter().map(|i| str_of(i, key)).collect::<Vec<_>>().join(",")
}

pub fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(owner: &Value, key: &str) -> String {
    let pairs: Vec<String> =
        entries(owner, key).into_iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// The creation time as it is, for kinds that show it so.
pub const CREATED_AT: Column = Column {
    name: "Created At",
    kind: "date",
    format: "",
    priority: 0,
    description: describe::CREATION_TIMESTAMP,
    cell: |v, _| str_of(get(v, "metadata"), "creationTimestamp").into(),
};
