//! `events.k8s.io/v1` Event: another form of the core Event.

use serde_json::{Map, Value};
use triarch_api::status::ErrorList;
use triarch_registry::{Column, Kind, SelectableField};

use super::core;
use crate::field;
use crate::meta;
use crate::value::{get, int_of, object, opt, same, str_at, str_of};

pub static KIND: Kind = Kind {
    group: "events.k8s.io",
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    schema: "events/v1.Event",
    resource: "events",
    columns: COLUMNS,
    selectable: SELECTABLE,
    create_on_update: true,
    validate_name: meta::subdomain_name,
    validate: |_, v, errs| validate(errs, v),
    validate_update: |_, new, old, errs| validate_update(errs, new, old),
    to_storage: Some(to_core),
    from_storage: Some(from_core),
    ..Kind::BASE
};

/// The fields that have another name in core, `(here, there)`.
const RENAMED: [(&str, &str); 7] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(mut v: Value, version: &str, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let fields = std::mem::take(object(&mut v));
    let renamed: Map<String, Value> =
        fields.into_iter().map(|(key, value)| (name(&key).map_or(key, str::to_owned), value)).collect();
    let mut out = Value::Object(renamed);
    if out.get("apiVersion").is_some() {
        crate::value::set(&mut out, "apiVersion", version);
    }
    out
}

fn to_core(v: Value) -> Value {
    rename(v, "v1", |key| RENAMED.iter().find(|(here, _)| *here == key).map(|(_, there)| *there))
}

fn from_core(v: Value) -> Value {
    rename(v, "events.k8s.io/v1", |key| RENAMED.iter().find(|(_, there)| *there == key).map(|(here, _)| *here))
}

fn validate(errs: &mut ErrorList, v: &Value) {
    super::validate(errs, &to_core(v.clone()), "reportingController");
    // What follows is about new events: an update may be of one that came
    // through the core group and keeps its old-style fields.
    if !str_at(v, &["metadata", "resourceVersion"]).is_empty() {
        return;
    }
    series(errs, v);
    if get(v, "eventTime").is_null() {
        field::required(errs, "eventTime", "");
    }
    let kind = str_of(v, "type");
    if kind != "Normal" && kind != "Warning" {
        field::invalid(errs, "type", "", format!("has invalid value: {kind}"));
    }
    for (here, there) in [("deprecatedFirstTimestamp", "firstTimestamp"), ("deprecatedLastTimestamp", "lastTimestamp")]
    {
        if !get(v, here).is_null() {
            field::invalid(errs, there, "", "needs to be unset");
        }
    }
    if int_of(v, "deprecatedCount") != 0 {
        field::invalid(errs, "count", "", "needs to be unset");
    }
    if !str_at(v, &["deprecatedSource", "component"]).is_empty() || !str_at(v, &["deprecatedSource", "host"]).is_empty()
    {
        field::invalid(errs, "source", "", "needs to be unset");
    }
}

fn series(errs: &mut ErrorList, v: &Value) {
    let Some(series) = opt(v, "series") else { return };
    if int_of(series, "count") < 2 {
        field::invalid(errs, "series.count", "", "should be at least 2");
    }
    if get(series, "lastObservedTime").is_null() {
        field::required(errs, "series.lastObservedTime", "");
    }
}

/// Only the series may change.
fn validate_update(errs: &mut ErrorList, new: &Value, old: &Value) {
    if !same(get(new, "series"), get(old, "series")) {
        series(errs, new);
    }
    let keys = [
        ("regarding", "involvedObject"),
        ("reason", "reason"),
        ("note", "message"),
        ("deprecatedSource", "source"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        ("reportingInstance", "reportingInstance"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingController"),
    ];
    for (here, path) in keys {
        if !same(get(new, here), get(old, here)) {
            field::invalid(errs, path, get(new, here).clone(), "field is immutable");
        }
    }
}

/// The core columns over the converted object.
const COLUMNS: &[Column] = &[
    via(0, |v, now| (core::COLUMNS[0].cell)(&to_core(v.clone()), now)),
    via(1, |v, now| (core::COLUMNS[1].cell)(v, now)),
    via(2, |v, now| (core::COLUMNS[2].cell)(v, now)),
    via(3, |v, now| (core::COLUMNS[3].cell)(&to_core(v.clone()), now)),
    via(4, |v, now| (core::COLUMNS[4].cell)(&to_core(v.clone()), now)),
    via(5, |v, now| (core::COLUMNS[5].cell)(&to_core(v.clone()), now)),
    via(6, |v, now| (core::COLUMNS[6].cell)(&to_core(v.clone()), now)),
    via(7, |v, now| (core::COLUMNS[7].cell)(&to_core(v.clone()), now)),
    via(8, |v, now| (core::COLUMNS[8].cell)(&to_core(v.clone()), now)),
    via(9, |v, now| (core::COLUMNS[9].cell)(v, now)),
];

const fn via(i: usize, cell: fn(&Value, triarch_env::Wall) -> Value) -> Column {
    Column { cell, ..core::COLUMNS[i] }
}

/// In the order of the core kind's, since the store keeps one list of values.
const SELECTABLE: &[SelectableField] = &[
    SelectableField { path: "regarding.kind", get: |v| str_at(v, &["regarding", "kind"]).to_owned() },
    SelectableField { path: "regarding.namespace", get: |v| str_at(v, &["regarding", "namespace"]).to_owned() },
    SelectableField { path: "regarding.name", get: |v| str_at(v, &["regarding", "name"]).to_owned() },
    SelectableField { path: "regarding.uid", get: |v| str_at(v, &["regarding", "uid"]).to_owned() },
    SelectableField { path: "regarding.apiVersion", get: |v| str_at(v, &["regarding", "apiVersion"]).to_owned() },
    SelectableField {
        path: "regarding.resourceVersion",
        get: |v| str_at(v, &["regarding", "resourceVersion"]).to_owned(),
    },
    SelectableField { path: "regarding.fieldPath", get: |v| str_at(v, &["regarding", "fieldPath"]).to_owned() },
    SelectableField { path: "reason", get: |v| str_of(v, "reason").to_owned() },
    SelectableField { path: "reportingController", get: |v| str_of(v, "reportingController").to_owned() },
    SelectableField { path: "source", get: |v| str_at(v, &["deprecatedSource", "component"]).to_owned() },
    SelectableField { path: "type", get: |v| str_of(v, "type").to_owned() },
];
