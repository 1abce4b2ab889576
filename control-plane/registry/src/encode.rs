//! From values to what is stored: canonical bytes and the metadata beside them.

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use std::sync::Arc;
use triarch_api::schema::{self, Kind as FieldKind, Type};
use triarch_api::status::Status;
use triarch_api::{canon, defaults};
use triarch_mvcc::{Meta, Object, OwnerRef};

use crate::{Kind, err};

/// The schema of a kind.
pub fn schema_of(name: &str) -> Result<&'static Type, Status> {
    schema::lookup(name).ok_or_else(|| err::internal(format!("no schema for {name}")))
}

/// Canonical values (quantities, times, emit rules), then defaults, then
/// canonical again, because a default may itself be dropped or rewritten.
pub fn normalize(kind: &'static Kind, value: &mut Value) -> Result<(), Status> {
    let ty = schema_of(kind.schema)?;
    canonicalize(ty, kind, value)?;
    defaults::apply(ty, value);
    (kind.defaults)(value);
    canonicalize(ty, kind, value)
}

/// [`normalize`] for an object's status alone, but for what the kind's own
/// defaults do.
pub fn normalize_status(kind: &'static Kind, value: &mut Value) -> Result<(), Status> {
    let field = schema_of(kind.schema)?.field("status").map(|f| &f.kind);
    let (Some(FieldKind::Struct(ty)), Some(status)) = (field, value.get_mut("status")) else { return Ok(()) };
    canonicalize(ty, kind, status)?;
    defaults::apply(ty, status);
    canonicalize(ty, kind, status)
}

/// Canonical form only.
pub fn canonicalize(ty: &'static Type, kind: &'static Kind, value: &mut Value) -> Result<(), Status> {
    canon::value(ty, value).map_err(|e| {
        err::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {e}",
            kind.kind, kind.version, kind.kind
        ))
    })
}

/// The stored form of a complete, canonical value. `storage` is the kind whose
/// schema the store keeps (two kinds may share one store).
pub fn to_object(storage: &'static Kind, value: &Value) -> Result<Object, Status> {
    let canonical = canon::stored(schema_of(storage.schema)?, value)
        .map_err(|e| err::internal(format!("cannot encode {}: {e}", storage.kind)))?;
    Ok(Object { bytes: canonical.bytes.into(), slot: Some(canonical.slot), meta: Arc::new(meta(storage, value)) })
}

/// From `"metadata"` on, with the resourceVersion that the value has.
pub fn tail(kind: &'static Kind, value: &Value) -> Bytes {
    let revision =
        value.pointer("/metadata/resourceVersion").and_then(Value::as_str).and_then(|s| s.parse().ok()).unwrap_or(0);
    match to_object(kind, value) {
        Ok(object) => object.served(revision),
        // A converted object always encodes (the conversion is tested); an empty one is still valid JSON.
        Err(_) => BytesMut::from(&b"\"metadata\":{}}"[..]).freeze(),
    }
}

/// What selectors, owners, finalizers and indexes need.
pub fn meta(storage: &Kind, value: &Value) -> Meta {
    let m = &value["metadata"];
    let text = |v: &Value| -> Box<str> { v.as_str().unwrap_or_default().into() };
    let labels =
        m["labels"].as_object().map(|l| l.iter().map(|(k, v)| (k.as_str().into(), text(v))).collect::<Vec<_>>());
    let mut labels: Vec<(Box<str>, Box<str>)> = labels.unwrap_or_default();
    labels.sort();
    let owners = m["ownerReferences"].as_array().map(|refs| {
        refs.iter()
            .map(|r| OwnerRef {
                uid: text(&r["uid"]),
                controller: r["controller"].as_bool().unwrap_or(false),
                block_deletion: r["blockOwnerDeletion"].as_bool().unwrap_or(false),
            })
            .collect()
    });
    Meta {
        uid: text(&m["uid"]),
        labels: labels.into(),
        owners: owners.unwrap_or_default(),
        fields: storage.selectable.iter().map(|f| (f.get)(value).into_boxed_str()).collect(),
        deleting: m["deletionTimestamp"].is_string(),
        has_finalizers: m["finalizers"].as_array().is_some_and(|f| !f.is_empty()),
        generation: m["generation"].as_i64().unwrap_or(0),
    }
}
