//! OpenAPI v2 and v3 documents, from the schema table and a list of kinds.
//!
//! Types, order and extensions come from the table, descriptions from the
//! generated API crate. Documents are megabytes: they are built on request and
//! belong to the caller, who keeps them compressed or not at all.

mod definitions;
mod descriptions;
mod gnostic;
mod paths;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::schema::Type;
use definitions::Definitions;

/// A kind as it is served.
#[derive(Clone, Debug)]
pub struct KindInfo {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verbs: Vec<String>,
    pub schema: SchemaSource,
    pub subresources: Vec<SubresourceInfo>,
}

#[derive(Clone, Debug)]
pub struct SubresourceInfo {
    pub name: String,
    pub verbs: Vec<String>,
    /// Of the body.
    pub group: String,
    pub version: String,
    pub kind: String,
    /// `None`: the parent's own schema (`status`), or no body that is described (`log`, `exec`).
    pub schema: Option<&'static Type>,
}

#[derive(Clone, Debug)]
pub enum SchemaSource {
    Table(&'static Type),
    /// A custom resource's `openAPIV3Schema`.
    Custom(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

/// The media type that asks for OpenAPI v2 as protobuf.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
pub const V2_JSON: &str = "application/com.github.proto-openapi.spec.v2@v1.0+json";
pub const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

const TITLE: &str = "Kubernetes";
/// The API version that all of this speaks.
const VERSION: &str = "v1.37.0";

impl KindInfo {
    /// `io.k8s.api.apps.v1.Deployment`, or `com.example.v1.Widget` for a custom resource.
    pub fn definition(&self) -> String {
        match &self.schema {
            SchemaSource::Table(ty) => ty.definition.to_string(),
            SchemaSource::Custom(_) => {
                let group: Vec<&str> = self.group.split('.').rev().collect();
                format!("{}.{}.{}", group.join("."), self.version, self.kind)
            }
        }
    }

    /// `api/v1` or `apis/apps/v1`.
    pub fn root(&self) -> String {
        v3_path(&self.group, &self.version)
    }
}

/// The key of a group and version in the v3 root: `api/v1`, `apis/apps/v1`.
pub fn v3_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The whole API as swagger 2.0.
pub fn v2(kinds: &[KindInfo]) -> Value {
    let mut defs = Definitions::new(Dialect::V2, kinds);
    let mut paths = Map::new();
    for kind in kinds {
        defs.add_kind(kind);
        paths::add(Dialect::V2, kind, &mut defs, &mut paths);
    }
    json!({
        "swagger": "2.0",
        "info": { "title": TITLE, "version": VERSION },
        "paths": paths,
        "definitions": defs.finish(),
        "securityDefinitions": { "BearerToken": {
            "description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header" } },
        "security": [ { "BearerToken": [] } ],
    })
}

/// The same as a gnostic `openapi_v2.Document`, which is what Go clients ask for.
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    gnostic::document(document)
}

/// One group and version as OpenAPI 3.0; kinds of others are left out.
pub fn v3(group: &str, version: &str, kinds: &[KindInfo]) -> Value {
    let here: Vec<KindInfo> = kinds.iter().filter(|k| k.group == group && k.version == version).cloned().collect();
    let mut defs = Definitions::new(Dialect::V3, &here);
    let mut paths = Map::new();
    for kind in &here {
        defs.add_kind(kind);
        paths::add(Dialect::V3, kind, &mut defs, &mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": { "title": TITLE, "version": VERSION },
        "paths": paths,
        "components": {
            "schemas": defs.finish(),
            "securitySchemes": { "BearerToken": {
                "description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header" } },
        },
    })
}

/// The index at `/openapi/v3`: pairs of path (as [`v3_path`] gives it) and document hash.
pub fn v3_root(documents: &[(String, String)]) -> Value {
    let one = |(path, hash): &(String, String)| {
        (path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") }))
    };
    json!({ "paths": documents.iter().map(one).collect::<Map<String, Value>>() })
}

/// The hash that names a document's content, for ETags and `?hash=`.
pub fn hash(document: &[u8]) -> String {
    Sha256::digest(document).iter().map(|b| format!("{b:02X}")).collect()
}

#[cfg(test)]
mod tests;
