//! Other forms of objects: Table and PartialObjectMetadata, for get, list and watch.
//!
//! Metadata-only is a copy of stored bytes. Tables decode each object once and
//! compute ages at request time.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};
use triarch_api::{canon, meta, schema};
use triarch_env::Wall;
use triarch_mvcc::Object;
use triarch_registry::{Column, Kind, ListPage, Served};

/// What a row's `object` holds (`?includeObject=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    pub fn parse(text: &str) -> Option<IncludeObject> {
        match text {
            "" | "Metadata" => Some(IncludeObject::Metadata),
            "None" => Some(IncludeObject::None),
            "Object" => Some(IncludeObject::Object),
            _ => None,
        }
    }
}

const PARTIAL: &[u8] = b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",";

/// Appends `{"kind":"PartialObjectMetadata",…,"metadata":{…}}`.
pub fn write_partial(out: &mut BytesMut, served: &Served) {
    out.put_slice(PARTIAL);
    let end = metadata_end(&served.object.bytes);
    let head = Object { bytes: served.object.bytes.slice(..end), ..served.object.clone() };
    head.write_to(out, served.revision);
    out.put_u8(b'}');
}

pub fn partial(served: &Served) -> Bytes {
    let mut out = BytesMut::new();
    write_partial(&mut out, served);
    out.freeze()
}

/// The end of `"metadata":{…}`, with which stored bytes begin.
fn metadata_end(bytes: &[u8]) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (i, &b) in bytes.iter().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' => depth += 1,
            b'}' if depth == 1 => return i + 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    bytes.len()
}

/// A list of metadata in chunks.
pub fn partial_list(page: ListPage) -> impl Iterator<Item = Bytes> + Send {
    let head = format!(
        "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{},\"items\":[",
        page.metadata()
    );
    let rows = rows(page, |served, out| write_partial(out, served));
    std::iter::once(Bytes::from(head)).chain(rows)
}

/// A Table of a list in chunks.
pub fn table_list(page: ListPage, include: IncludeObject, now: Wall) -> impl Iterator<Item = Bytes> + Send {
    let head = table_head(page.kind, &page.metadata(), true);
    let rows = rows(page, move |served, out| write_row(out, served, include, now));
    std::iter::once(Bytes::from(head)).chain(rows)
}

/// Items separated by commas, in chunks of about 64 KiB, and the closing `]}`.
fn rows(page: ListPage, write: impl Fn(&Served, &mut BytesMut) + Send) -> impl Iterator<Item = Bytes> + Send {
    const CHUNK: usize = 64 * 1024;
    let (mut next, mut done) = (0, false);
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let mut out = BytesMut::new();
        while out.len() < CHUNK {
            let Some(item) = page.items.get(next) else {
                out.put_slice(b"]}\n");
                done = true;
                break;
            };
            if next > 0 {
                out.put_u8(b',');
            }
            write(&page.served(item), &mut out);
            next += 1;
        }
        Some(out.freeze())
    })
}

fn table_head(kind: &Kind, metadata: &Value, columns: bool) -> String {
    let columns = if columns { json!(definitions(kind)) } else { Value::Null };
    format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"columnDefinitions\":{columns},\"rows\":["
    )
}

/// A Table of one object: an answer to get, or a watch event (without headers after the first).
pub fn table_one(served: &Served, include: IncludeObject, now: Wall, headers: bool) -> Bytes {
    let metadata = json!({"resourceVersion": served.revision.to_string()});
    let mut out = BytesMut::from(table_head(served.kind, &metadata, headers).as_bytes());
    write_row(&mut out, served, include, now);
    out.put_slice(b"]}");
    out.freeze()
}

/// An object that carries a revision and nothing else.
pub fn bookmark_table(metadata: &Value, revision: u64) -> Value {
    let row = json!({"cells": [], "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}});
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": null, "rows": [row]})
}

/// Columns of a kind that names none.
const DEFAULT_COLUMNS: &[Column] = &[
    Column {
        name: "Name",
        kind: "string",
        format: "name",
        priority: 0,
        description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
        cell: |v, _| meta::name(v).into(),
    },
    Column {
        name: "Created At",
        kind: "date",
        format: "",
        priority: 0,
        description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
        cell: |v, _| v["metadata"]["creationTimestamp"].clone(),
    },
];

fn columns(kind: &Kind) -> &'static [Column] {
    if kind.columns.is_empty() { DEFAULT_COLUMNS } else { kind.columns }
}

fn definitions(kind: &Kind) -> Vec<Value> {
    let one = |c: &Column| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority});
    columns(kind).iter().map(one).collect()
}

fn write_row(out: &mut BytesMut, served: &Served, include: IncludeObject, now: Wall) {
    let value = served.value();
    let cells: Vec<Value> = columns(served.kind).iter().map(|c| (c.cell)(&value, now)).collect();
    out.put_slice(b"{\"cells\":");
    out.put_slice(Value::Array(cells).to_string().as_bytes());
    let conditions = (served.kind.row_conditions)(&value);
    if !conditions.is_null() {
        out.put_slice(b",\"conditions\":");
        out.put_slice(conditions.to_string().as_bytes());
    }
    match include {
        IncludeObject::None => out.put_slice(b",\"object\":null"),
        IncludeObject::Metadata => {
            out.put_slice(b",\"object\":");
            write_partial(out, served);
        }
        IncludeObject::Object => {
            out.put_slice(b",\"object\":");
            served.write(out, true);
        }
    }
    out.put_u8(b'}');
}

/// A value in upstream's field order when its schema is known.
pub fn ordered(schema_name: &str, value: &Value) -> Bytes {
    match schema::lookup(schema_name) {
        Some(ty) if !schema_name.is_empty() => canon::to_json(ty, value).into(),
        _ => value.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_ends_where_its_brace_closes() {
        let text = br#""metadata":{"name":"a}\"{","labels":{"x":"y"}},"data":{}}"#;
        assert_eq!(&text[..metadata_end(text)], br#""metadata":{"name":"a}\"{","labels":{"x":"y"}}"#);
    }
}
