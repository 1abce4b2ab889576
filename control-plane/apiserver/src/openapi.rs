//! /openapi/v2 and /openapi/v3: built when asked for, from the table of kinds.
//!
//! Documents are large and asked for rarely: only their hashes are kept for
//! ever. The one that was built last is kept too, because clients come in bursts.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, Response};
use parking_lot::Mutex;
use triarch_api::openapi::{self, KindInfo, SchemaSource, SubresourceInfo};
use triarch_api::schema;
use triarch_api::status::Status;
use triarch_registry::{KindTable, SubresourceHandler, Verb};

use crate::respond::{self, Body};
use crate::server::{Incoming, header};
use crate::{discovery, negotiate};

pub(crate) struct OpenApi {
    kinds: Arc<Vec<KindInfo>>,
    /// `(api/v1, hash)` of every v3 document.
    hashes: OnceLock<Vec<(String, String)>>,
    last: Mutex<Option<(String, Bytes)>>,
}

fn verb(v: Verb) -> String {
    match v {
        Verb::Create => "create",
        Verb::Delete => "delete",
        Verb::DeleteCollection => "deletecollection",
        Verb::Get => "get",
        Verb::List => "list",
        Verb::Patch => "patch",
        Verb::Update => "update",
        Verb::Watch => "watch",
    }
    .to_owned()
}

impl OpenApi {
    pub fn new(kinds: &KindTable) -> OpenApi {
        let infos = kinds.iter().filter_map(|k| {
            let subresources = k.subresources.iter().map(|s| SubresourceInfo {
                name: s.name.into(),
                verbs: s.verbs.iter().copied().map(verb).collect(),
                group: s.response.0.into(),
                version: s.response.1.into(),
                kind: s.response.2.into(),
                schema: match s.handler {
                    SubresourceHandler::Connect => None,
                    _ if s.schema == k.schema => None,
                    _ => schema::lookup(s.schema),
                },
            });
            Some(KindInfo {
                group: k.group.into(),
                version: k.version.into(),
                kind: k.kind.into(),
                plural: k.plural.into(),
                namespaced: k.namespaced(),
                verbs: k.verbs.iter().copied().map(verb).collect(),
                schema: SchemaSource::Table(schema::lookup(k.schema)?),
                subresources: subresources.collect(),
            })
        });
        OpenApi { kinds: Arc::new(infos.collect()), hashes: OnceLock::new(), last: Mutex::default() }
    }

    /// The document of that name, built unless it is the last one.
    fn built(&self, name: &str, build: impl FnOnce() -> Vec<u8>) -> Bytes {
        let mut last = self.last.lock();
        if let Some((have, bytes)) = last.as_ref()
            && have == name
        {
            return bytes.clone();
        }
        let bytes = Bytes::from(build());
        *last = Some((name.to_owned(), bytes.clone()));
        bytes
    }

    fn v3(&self, group: &str, version: &str) -> Vec<u8> {
        openapi::v3(group, version, &self.kinds).to_string().into_bytes()
    }

    fn hashes(&self) -> &[(String, String)] {
        self.hashes.get_or_init(|| {
            let mut versions: Vec<(String, String)> =
                self.kinds.iter().map(|k| (k.group.clone(), k.version.clone())).collect();
            versions.sort();
            versions.dedup();
            versions.into_iter().map(|(g, v)| (openapi::v3_path(&g, &v), openapi::hash(&self.v3(&g, &v)))).collect()
        })
    }

    pub fn serve(&self, path: &[&str], request: &Incoming) -> Result<Response<Body>, Status> {
        let headers = &request.head.headers;
        match path {
            ["v2"] => Ok(self.v2(headers)),
            ["v3"] => {
                let root = openapi::v3_root(self.hashes()).to_string();
                Ok(cached(headers, respond::JSON, root.into(), None))
            }
            ["v3", rest @ ..] => {
                let name = rest.join("/");
                let Some((_, hash)) = self.hashes().iter().find(|(p, _)| *p == name) else {
                    return Ok(respond::page_not_found());
                };
                let asked = request.query.get("hash");
                if !asked.is_empty() && !asked.eq_ignore_ascii_case(hash) {
                    return Ok(moved(&format!("/openapi/v3/{name}?hash={hash}")));
                }
                let (group, version) = match rest {
                    ["apis", group, version] => (*group, *version),
                    _ => ("", rest.last().copied().unwrap_or_default()),
                };
                let bytes = self.built(&name, || self.v3(group, version));
                Ok(cached(headers, respond::JSON, bytes, (!asked.is_empty()).then_some(())))
            }
            _ => Ok(respond::page_not_found()),
        }
    }

    fn v2(&self, headers: &HeaderMap) -> Response<Body> {
        // Protobuf is sent only when it is named: `*/*` is a person or a script.
        let protobuf = negotiate::names(headers, openapi::V2_PROTOBUF)
            || negotiate::names(headers, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
        if protobuf {
            let bytes = self.built("v2.protobuf", || openapi::v2_protobuf(&openapi::v2(&self.kinds)));
            return cached(headers, openapi::V2_PROTOBUF, bytes, None);
        }
        let bytes = self.built("v2", || openapi::v2(&self.kinds).to_string().into_bytes());
        cached(headers, respond::JSON, bytes, None)
    }
}

fn moved(to: &str) -> Response<Body> {
    let mut r = respond::text(301, "");
    if let Ok(to) = HeaderValue::from_str(to) {
        r.headers_mut().insert(LOCATION, to);
    }
    r
}

/// A document with its validator; one that was asked for by hash never changes.
fn cached(headers: &HeaderMap, content_type: &'static str, bytes: Bytes, immutable: Option<()>) -> Response<Body> {
    let etag = discovery::etag(&bytes);
    let same = header(headers, IF_NONE_MATCH.as_str()).split(',').any(|t| t.trim() == etag);
    let mut r = respond::response(
        if same { 304 } else { 200 },
        content_type,
        respond::full(if same { Bytes::new() } else { bytes }),
    );
    let h = r.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        h.insert(ETAG, etag);
    }
    h.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    if immutable.is_some() {
        h.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        h.insert(EXPIRES, HeaderValue::from_static("Fri, 01 Jan 2100 00:00:00 GMT"));
    }
    r
}
