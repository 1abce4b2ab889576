//! `core/v1` Event: the stored form.

use serde_json::Value;
use triarch_env::Wall;
use triarch_registry::{Column, Kind, SelectableField};

use super::validate;
use crate::describe;
use crate::duration::since;
use crate::meta;
use crate::print::{NAME, text, wide};
use crate::value::{at, get, int_of, opt, str_at, str_of};

pub static KIND: Kind = Kind {
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    schema: "core/v1.Event",
    resource: "events",
    columns: COLUMNS,
    selectable: SELECTABLE,
    create_on_update: true,
    validate_name: meta::subdomain_name,
    validate: |_, v, errs| validate(errs, v, "reportingComponent"),
    ..Kind::BASE
};

pub const COLUMNS: &[Column] = &[
    text("Last Seen", describe::EVENT_LAST_TIMESTAMP, last_seen),
    text("Type", describe::EVENT_TYPE, |v, _| str_of(v, "type").into()),
    text("Reason", describe::EVENT_REASON, |v, _| str_of(v, "reason").into()),
    text("Object", describe::EVENT_OBJECT, |v, _| target(v).into()),
    wide("Subobject", describe::EVENT_FIELD_PATH, |v, _| str_at(v, &["involvedObject", "fieldPath"]).into()),
    wide("Source", describe::EVENT_SOURCE, |v, _| source(v).into()),
    text("Message", describe::EVENT_MESSAGE, |v, _| str_of(v, "message").trim().into()),
    wide("First Seen", describe::EVENT_FIRST_TIMESTAMP, |v, now| first_seen(v, now).into()),
    wide("Count", describe::EVENT_COUNT, |v, _| count(v).into()),
    Column { priority: 1, ..NAME },
];

const SELECTABLE: &[SelectableField] = &[
    SelectableField { path: "involvedObject.kind", get: |v| str_at(v, &["involvedObject", "kind"]).to_owned() },
    SelectableField {
        path: "involvedObject.namespace",
        get: |v| str_at(v, &["involvedObject", "namespace"]).to_owned(),
    },
    SelectableField { path: "involvedObject.name", get: |v| str_at(v, &["involvedObject", "name"]).to_owned() },
    SelectableField { path: "involvedObject.uid", get: |v| str_at(v, &["involvedObject", "uid"]).to_owned() },
    SelectableField {
        path: "involvedObject.apiVersion",
        get: |v| str_at(v, &["involvedObject", "apiVersion"]).to_owned(),
    },
    SelectableField {
        path: "involvedObject.resourceVersion",
        get: |v| str_at(v, &["involvedObject", "resourceVersion"]).to_owned(),
    },
    SelectableField {
        path: "involvedObject.fieldPath",
        get: |v| str_at(v, &["involvedObject", "fieldPath"]).to_owned(),
    },
    SelectableField { path: "reason", get: |v| str_of(v, "reason").to_owned() },
    SelectableField { path: "reportingComponent", get: |v| str_of(v, "reportingComponent").to_owned() },
    SelectableField {
        path: "source",
        get: |v| first(str_at(v, &["source", "component"]), str_of(v, "reportingComponent")).to_owned(),
    },
    SelectableField { path: "type", get: |v| str_of(v, "type").to_owned() },
];

fn first<'a>(a: &'a str, b: &'a str) -> &'a str {
    if a.is_empty() { b } else { a }
}

fn first_seen(v: &Value, now: Wall) -> String {
    match opt(v, "firstTimestamp") {
        Some(t) => since(t, now),
        None => since(get(v, "eventTime"), now),
    }
}

fn last_seen(v: &Value, now: Wall) -> Value {
    if let Some(series) = opt(v, "series") {
        return since(get(series, "lastObservedTime"), now).into();
    }
    match opt(v, "lastTimestamp") {
        Some(t) => since(t, now).into(),
        None => first_seen(v, now).into(),
    }
}

fn count(v: &Value) -> i64 {
    match opt(v, "series") {
        Some(series) => int_of(series, "count"),
        // A single event of the new form has no count.
        None => int_of(v, "count").max(1),
    }
}

fn target(v: &Value) -> String {
    let object = at(v, &["involvedObject"]);
    let (kind, name) = (str_of(object, "kind").to_lowercase(), str_of(object, "name"));
    if name.is_empty() { kind } else { format!("{kind}/{name}") }
}

fn source(v: &Value) -> String {
    let component = first(str_at(v, &["source", "component"]), str_of(v, "reportingComponent"));
    match first(str_at(v, &["source", "host"]), str_of(v, "reportingInstance")) {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    }
}
