//! Stored objects as clients see them: a header per kind in front of stored
//! bytes. Copies only; nothing is encoded again unless a kind converts.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};
use triarch_api::status::Status;
use triarch_mvcc::{Object, Revision, Stored};

use crate::Kind;

/// An object at a revision, as one kind shows it.
#[derive(Clone, Debug)]
pub struct Served {
    pub kind: &'static Kind,
    pub object: Object,
    /// What `metadata.resourceVersion` shows.
    pub revision: Revision,
}

impl Served {
    pub fn stored(kind: &'static Kind, stored: &Stored) -> Served {
        Served { kind, object: stored.object.clone(), revision: stored.mod_revision }
    }

    /// The whole object with kind and apiVersion.
    pub fn json(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.object.bytes.len() + 96);
        self.write(&mut out, true);
        out.freeze()
    }

    /// Appends the object; items of built-in lists go without kind and apiVersion.
    pub fn write(&self, out: &mut BytesMut, with_type: bool) {
        if with_type {
            write_header(out, self.kind);
        } else {
            out.put_u8(b'{');
        }
        match self.kind.from_storage {
            None => self.object.write_to(out, self.revision),
            Some(convert) => {
                // Starts at `"metadata"` like stored bytes do.
                let value = convert(self.storage_value());
                let bytes = crate::encode::tail(self.kind, &value);
                out.put_slice(&bytes);
            }
        }
    }

    /// The object as a value, with kind, apiVersion and resourceVersion.
    pub fn value(&self) -> Value {
        let mut value = self.storage_value();
        if let Some(convert) = self.kind.from_storage {
            value = convert(value);
        }
        set_type(&mut value, self.kind);
        value
    }

    fn storage_value(&self) -> Value {
        let mut bytes = BytesMut::with_capacity(self.object.bytes.len() + 1);
        bytes.put_u8(b'{');
        self.object.write_to(&mut bytes, self.revision);
        // Stored bytes are canonical JSON that this code wrote; damage is found by the log's checksums.
        serde_json::from_slice(&bytes).unwrap_or_else(|_| json!({"metadata": {}}))
    }
}

/// `{"kind":"Pod","apiVersion":"v1",`
pub fn write_header(out: &mut BytesMut, kind: &Kind) {
    out.put_slice(b"{\"kind\":\"");
    out.put_slice(kind.kind.as_bytes());
    out.put_slice(b"\",\"apiVersion\":\"");
    if !kind.group.is_empty() {
        out.put_slice(kind.group.as_bytes());
        out.put_u8(b'/');
    }
    out.put_slice(kind.version.as_bytes());
    out.put_slice(b"\",");
}

pub fn set_type(value: &mut Value, kind: &Kind) {
    if let Some(map) = value.as_object_mut() {
        map.insert("kind".into(), kind.kind.into());
        map.insert("apiVersion".into(), kind.api_version().into());
    }
}

/// One page of a list, all at one revision.
#[derive(Clone, Debug)]
pub struct ListPage {
    pub kind: &'static Kind,
    pub revision: Revision,
    pub items: Vec<Stored>,
    /// Empty on the last page.
    pub continue_token: String,
    pub remaining: Option<u64>,
}

/// Bytes handed out at a time while a list is written.
const LIST_CHUNK: usize = 64 * 1024;

impl ListPage {
    /// The `metadata` of the list.
    pub fn metadata(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if !self.continue_token.is_empty() {
            meta["continue"] = self.continue_token.clone().into();
        }
        if let Some(n) = self.remaining {
            meta["remainingItemCount"] = n.into();
        }
        meta
    }

    pub fn served(&self, stored: &Stored) -> Served {
        Served::stored(self.kind, stored)
    }

    /// The list as JSON in chunks of about 64 KiB; the items are copied, never encoded.
    pub fn into_chunks(self) -> impl Iterator<Item = Bytes> + Send {
        let mut head = BytesMut::with_capacity(LIST_CHUNK);
        head.put_slice(
            format!(
                "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":",
                self.kind.list_kind,
                self.kind.api_version()
            )
            .as_bytes(),
        );
        head.put_slice(self.metadata().to_string().as_bytes());
        head.put_slice(b",\"items\":[");
        let (mut next, mut buf, mut done) = (0, head, false);
        std::iter::from_fn(move || {
            while !done {
                match self.items.get(next) {
                    Some(item) => {
                        if next > 0 {
                            buf.put_u8(b',');
                        }
                        self.served(item).write(&mut buf, false);
                        next += 1;
                    }
                    None => {
                        buf.put_slice(b"]}\n");
                        done = true;
                    }
                }
                if buf.len() >= LIST_CHUNK || done {
                    return Some(
                        std::mem::replace(&mut buf, BytesMut::with_capacity(if done { 0 } else { LIST_CHUNK }))
                            .freeze(),
                    );
                }
            }
            None
        })
    }
}

/// What a verb answers.
#[derive(Clone, Debug)]
pub struct Response {
    pub code: u16,
    pub body: Body,
}

/// The forms of an answer.
#[derive(Clone, Debug)]
pub enum Body {
    Object(Served),
    List(ListPage),
    /// Anything made on the spot: Scale, a review, a dry-run object. `schema`
    /// names its type for canonical order; empty when it has none.
    Value {
        schema: &'static str,
        value: Value,
    },
    Status(Status),
}

impl Response {
    pub fn ok(body: Body) -> Response {
        Response { code: 200, body }
    }

    /// The name of the object that a write answers and its revision; `None`
    /// where the answer is no object. Reads no more than that.
    pub fn identity(&self) -> (String, Option<Revision>) {
        match &self.body {
            Body::Object(served) => {
                let bytes = &served.object.bytes;
                let metadata = bytes.strip_prefix(b"\"metadata\":").unwrap_or_default();
                // The slot is blank, and what follows the name is not looked at: only up to it is JSON asked for.
                let name = metadata.strip_prefix(b"{\"name\":").and_then(|rest| {
                    serde_json::Deserializer::from_slice(rest).into_iter::<String>().next().and_then(Result::ok)
                });
                (name.unwrap_or_default(), Some(served.revision))
            }
            Body::Value { value, .. } => {
                let m = &value["metadata"];
                let revision = m["resourceVersion"].as_str().and_then(|v| v.trim().parse().ok());
                (m["name"].as_str().unwrap_or_default().to_owned(), revision)
            }
            Body::List(_) | Body::Status(_) => (String::new(), None),
        }
    }

    /// The answer as a value (in-process clients).
    pub fn into_value(self) -> Value {
        match self.body {
            Body::Object(served) => served.value(),
            Body::Value { value, .. } => value,
            Body::Status(status) => status.to_value(),
            Body::List(page) => {
                let items: Vec<Value> = page.items.iter().map(|s| page.served(s).value()).collect();
                json!({"kind": page.kind.list_kind, "apiVersion": page.kind.api_version(), "metadata": page.metadata(), "items": items})
            }
        }
    }
}
