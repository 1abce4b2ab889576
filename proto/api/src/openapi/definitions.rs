//! The schemas of a document: what the kinds reach, walked through the table.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use super::{Dialect, KindInfo, SchemaSource};
use crate::schema::{Field, Kind, ListType, Raw, Type, lookup};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// How deep a custom resource's schema may nest.
const MAX_DEPTH: usize = 128;

pub(super) struct Definitions {
    dialect: Dialect,
    descriptions: Descriptions,
    schemas: BTreeMap<String, Value>,
    /// `x-kubernetes-group-version-kind` of each definition.
    gvks: BTreeMap<String, Vec<Value>>,
    /// Named by a reference and not yet walked.
    pending: Vec<&'static Type>,
}

impl Definitions {
    pub fn new(dialect: Dialect, kinds: &[KindInfo]) -> Definitions {
        let groups: BTreeSet<(&str, &str)> = kinds.iter().map(|k| (k.group.as_str(), k.version.as_str())).collect();
        let mut out = Definitions {
            dialect,
            descriptions: Descriptions::of(&groups),
            schemas: BTreeMap::new(),
            gvks: BTreeMap::new(),
            pending: Vec::new(),
        };
        for (group, version) in &groups {
            out.gvk(&format!("{META}.DeleteOptions"), group, version, "DeleteOptions");
        }
        out.gvk(&format!("{META}.Status"), "", "v1", "Status");
        out
    }

    pub fn add_kind(&mut self, k: &KindInfo) {
        let name = k.definition();
        self.gvk(&name, &k.group, &k.version, &k.kind);
        let list = format!("{name}List");
        let lists = k.verbs.iter().any(|v| v == "list");
        if lists {
            self.gvk(&list, &k.group, &k.version, &format!("{}List", k.kind));
        }
        match &k.schema {
            SchemaSource::Table(ty) => {
                self.pending.push(ty);
                if let (true, Some(ty)) = (lists, lookup(&format!("{}List", ty.name))) {
                    self.pending.push(ty);
                }
            }
            SchemaSource::Custom(schema) => {
                let schema = self.custom(schema);
                self.schemas.insert(name.clone(), schema);
                if lists {
                    let schema = self.custom_list(k, &name);
                    self.schemas.insert(list, schema);
                }
            }
        }
        for sub in &k.subresources {
            if let Some(ty) = sub.schema {
                self.gvk(ty.definition, &sub.group, &sub.version, &sub.kind);
                self.pending.push(ty);
            }
        }
    }

    fn gvk(&mut self, definition: &str, group: &str, version: &str, kind: &str) {
        let gvk = json!({ "group": group, "kind": kind, "version": version });
        let list = self.gvks.entry(definition.to_string()).or_default();
        if !list.contains(&gvk) {
            list.push(gvk);
        }
    }

    pub fn finish(mut self) -> Map<String, Value> {
        while let Some(ty) = self.pending.pop() {
            if !self.schemas.contains_key(ty.definition) {
                // Taken before it is walked: types are recursive.
                self.schemas.insert(ty.definition.to_string(), Value::Null);
                let schema = self.object(ty);
                self.schemas.insert(ty.definition.to_string(), schema);
            }
        }
        for (name, gvks) in self.gvks {
            if let Some(Value::Object(schema)) = self.schemas.get_mut(&name) {
                schema.insert("x-kubernetes-group-version-kind".into(), gvks.into());
            }
        }
        self.schemas.into_iter().collect()
    }

    fn pointer(&self, definition: &str) -> Value {
        let root = match self.dialect {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        };
        json!({ "$ref": format!("{root}{definition}") })
    }

    /// A reference to a table type, which is then described too.
    pub fn type_ref(&mut self, ty: &'static Type) -> Value {
        self.pending.push(ty);
        self.pointer(ty.definition)
    }

    pub fn meta_ref(&mut self, name: &str) -> Value {
        match lookup(&format!("meta/v1.{name}")) {
            Some(ty) => self.type_ref(ty),
            None => self.scalar_ref(&format!("{META}.{name}"), json!({ "type": "object" })),
        }
    }

    pub fn kind_ref(&mut self, k: &KindInfo, list: bool) -> Value {
        let name = k.definition();
        self.pointer(&if list { format!("{name}List") } else { name })
    }

    /// A definition that is not a struct.
    fn scalar_ref(&mut self, name: &str, schema: Value) -> Value {
        self.schemas.entry(name.to_string()).or_insert(schema);
        self.pointer(name)
    }

    fn object(&mut self, ty: &'static Type) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for f in ty.fields {
            let schema = self.field(ty, f);
            properties.insert(f.name.to_string(), schema);
            if f.required {
                required.push(Value::from(f.name));
            }
        }
        let mut out = Map::new();
        if let Some(text) = self.descriptions.ty(ty.definition) {
            out.insert("description".into(), text.into());
        }
        out.insert("type".into(), "object".into());
        if !properties.is_empty() {
            out.insert("properties".into(), properties.into());
        }
        if !required.is_empty() {
            out.insert("required".into(), required.into());
        }
        if ty.atomic {
            out.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        Value::Object(out)
    }

    fn field(&mut self, ty: &'static Type, f: &'static Field) -> Value {
        let mut schema = self.kind(&f.kind, f.go);
        if self.dialect == Dialect::V3 && schema.contains_key("$ref") {
            // OpenAPI 3.0 ignores what stands beside a reference.
            schema = Map::from_iter([("allOf".to_string(), json!([schema]))]);
        }
        if let Some(text) = self.descriptions.field(ty.definition, f.name) {
            schema.insert("description".into(), text.into());
        }
        if let Some(default) = f.default.and_then(|d| serde_json::from_str::<Value>(d).ok()) {
            schema.insert("default".into(), default);
        }
        match f.list_type {
            ListType::None => {}
            ListType::Atomic => drop(schema.insert("x-kubernetes-list-type".into(), "atomic".into())),
            ListType::Set => drop(schema.insert("x-kubernetes-list-type".into(), "set".into())),
            ListType::Map => {
                schema.insert("x-kubernetes-list-type".into(), "map".into());
                schema.insert("x-kubernetes-list-map-keys".into(), f.list_map_keys.into());
            }
        }
        let strategies = [(f.merge, "merge"), (f.replace, "replace"), (f.retain_keys, "retainKeys")];
        let strategy: Vec<&str> = strategies.iter().filter(|s| s.0).map(|s| s.1).collect();
        if !strategy.is_empty() {
            schema.insert("x-kubernetes-patch-strategy".into(), strategy.join(",").into());
        }
        if !f.merge_key.is_empty() {
            schema.insert("x-kubernetes-patch-merge-key".into(), f.merge_key.into());
        }
        if f.atomic {
            schema.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        Value::Object(schema)
    }

    fn kind(&mut self, kind: &'static Kind, go: &str) -> Map<String, Value> {
        let plain = |ty: &str| json!({ "type": ty });
        let format = |ty: &str, format: &str| json!({ "type": ty, "format": format });
        let schema = match kind {
            Kind::String => plain("string"),
            Kind::Bool => plain("boolean"),
            Kind::Int32 => format("integer", "int32"),
            Kind::Int64 => format("integer", "int64"),
            Kind::Float64 => format("number", "double"),
            Kind::Bytes => format("string", "byte"),
            Kind::Quantity => {
                let schema = match self.dialect {
                    Dialect::V2 => plain("string"),
                    Dialect::V3 => json!({ "oneOf": [ { "type": "string" }, { "type": "number" } ] }),
                };
                self.scalar_ref("io.k8s.apimachinery.pkg.api.resource.Quantity", schema)
            }
            Kind::Time => self.scalar_ref(&format!("{META}.Time"), format("string", "date-time")),
            Kind::MicroTime => self.scalar_ref(&format!("{META}.MicroTime"), format("string", "date-time")),
            Kind::IntOrString => {
                let schema = match self.dialect {
                    Dialect::V2 => format("string", "int-or-string"),
                    Dialect::V3 => {
                        json!({ "format": "int-or-string", "oneOf": [ { "type": "integer" }, { "type": "string" } ] })
                    }
                };
                self.scalar_ref("io.k8s.apimachinery.pkg.util.intstr.IntOrString", schema)
            }
            Kind::Items => json!({ "type": "array", "items": { "type": "string" } }),
            Kind::Struct(ty) => self.type_ref(ty),
            Kind::List(elem) => {
                let items = self.kind(elem, go.trim_start_matches("[]"));
                json!({ "type": "array", "items": items })
            }
            Kind::Map(elem) => {
                let values = self.kind(elem, go);
                json!({ "type": "object", "additionalProperties": values })
            }
            Kind::Raw(Raw::Json) if go.ends_with("RawExtension") => {
                self.scalar_ref("io.k8s.apimachinery.pkg.runtime.RawExtension", plain("object"))
            }
            Kind::Raw(Raw::Json) if go.ends_with("FieldsV1") => {
                self.scalar_ref(&format!("{META}.FieldsV1"), plain("object"))
            }
            Kind::Raw(raw) => {
                let name = match raw {
                    Raw::Json => "JSON",
                    Raw::SchemaOrArray => "JSONSchemaPropsOrArray",
                    Raw::SchemaOrBool => "JSONSchemaPropsOrBool",
                    Raw::SchemaOrStringArray => "JSONSchemaPropsOrStringArray",
                };
                let name = format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{name}");
                self.scalar_ref(&name, json!({}))
            }
        };
        match schema {
            Value::Object(m) => m,
            _ => Map::new(),
        }
    }

    /// A custom resource's schema, with the properties that every object has.
    fn custom(&mut self, schema: &Value) -> Value {
        let mut out = match self.dialect {
            Dialect::V3 => schema.clone(),
            Dialect::V2 => for_v2(schema, 0),
        };
        if !out.is_object() {
            out = json!({ "type": "object" });
        }
        let text = |text: &str| json!({ "type": "string", "description": text });
        let mut metadata = self.meta_ref("ObjectMeta");
        if self.dialect == Dialect::V3 {
            metadata = json!({ "allOf": [metadata] });
        }
        metadata["description"] = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata".into();
        // A schema that keeps unknown fields may describe none.
        if out.get("properties").is_some() || out.get("x-kubernetes-preserve-unknown-fields").is_none() {
            let properties = &mut out["properties"];
            if !properties.is_object() {
                *properties = json!({});
            }
            properties["apiVersion"] = text(
                "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
            );
            properties["kind"] = text(
                "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
            );
            properties["metadata"] = metadata;
        }
        out
    }

    fn custom_list(&mut self, k: &KindInfo, name: &str) -> Value {
        let items = self.pointer(name);
        let metadata = self.meta_ref("ListMeta");
        let metadata = if self.dialect == Dialect::V3 { json!({ "allOf": [metadata] }) } else { metadata };
        json!({
            "description": format!("{}List is a list of {}", k.kind, k.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": { "type": "string" },
                "items": { "type": "array", "items": items,
                    "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", k.plural) },
                "kind": { "type": "string" },
                "metadata": metadata,
            },
        })
    }
}

/// Swagger 2.0 has no unions and no null: what uses them is left open, as upstream does.
fn for_v2(schema: &Value, depth: usize) -> Value {
    let Value::Object(map) = schema else { return schema.clone() };
    if depth > MAX_DEPTH {
        return json!({});
    }
    let on = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
    let open = on("x-kubernetes-preserve-unknown-fields") || on("nullable");
    let mut out = Map::new();
    for (key, value) in map {
        match key.as_str() {
            "oneOf" | "anyOf" | "allOf" | "not" | "nullable" | "$schema" => {}
            "type" | "items" | "properties" | "additionalProperties" if open => {}
            "properties" => {
                let each = value.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), for_v2(v, depth + 1)));
                out.insert(key.clone(), Value::Object(each.collect()));
            }
            "items" | "additionalProperties" => drop(out.insert(key.clone(), for_v2(value, depth + 1))),
            _ => drop(out.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(out)
}
