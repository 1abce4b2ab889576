//! The operations of a kind: which paths, which parameters, which bodies.

use serde_json::{Map, Value, json};

use super::definitions::Definitions;
use super::{Dialect, KindInfo, SubresourceInfo};

const BODIES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// name, type, description
type Param = (&'static str, &'static str, &'static str);
const PRETTY: Param = (
    "pretty",
    "string",
    "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).",
);
const DRY_RUN: Param =
    ("dryRun", "string", "When present, indicates that modifications should not be persisted. Valid values are: All.");
const FIELD_MANAGER: Param =
    ("fieldManager", "string", "The name of the actor that is making these changes, at most 128 printable characters.");
const FIELD_VALIDATION: Param =
    ("fieldValidation", "string", "What the server does with unknown or duplicate fields: Ignore, Warn or Strict.");
const FORCE: Param = ("force", "boolean", "Take fields that other managers own. Only for apply patches.");
const LIST: [Param; 10] = [
    ("allowWatchBookmarks", "boolean", "Ask for bookmark events."),
    ("continue", "string", "The token of the next page, as the previous page gave it."),
    ("fieldSelector", "string", "Restrict the objects by their fields."),
    ("labelSelector", "string", "Restrict the objects by their labels."),
    ("limit", "integer", "The most items of a page."),
    ("resourceVersion", "string", "The version at which to read, or after which to watch."),
    ("resourceVersionMatch", "string", "How resourceVersion applies to a list: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Begin a watch with the objects that exist, and a bookmark."),
    ("timeoutSeconds", "integer", "The longest that a list or watch may take."),
    ("watch", "boolean", "Watch for changes instead of listing."),
];
const DELETE: [Param; 5] = [
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "Seconds before the object is deleted."),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "Delete an object that cannot be read."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "Orphan, Background or Foreground."),
];

struct Maker<'a> {
    dialect: Dialect,
    kind: &'a KindInfo,
    defs: &'a mut Definitions,
}

/// What an operation is.
struct Op<'a> {
    /// `get`, `list`, `post`, `put`, `patch`, `delete`, `deletecollection`
    action: &'a str,
    /// `read`, `list`, `create`, `replace`, `patch`, `delete`, `deleteCollection`
    word: &'a str,
    suffix: &'a str,
    gvk: (&'a str, &'a str, &'a str),
    body: Option<Value>,
    answer: Value,
    params: Vec<Param>,
    namespaced: bool,
}

pub(super) fn add(dialect: Dialect, kind: &KindInfo, defs: &mut Definitions, paths: &mut Map<String, Value>) {
    let mut m = Maker { dialect, kind, defs };
    let root = format!("/{}", kind.root());
    let collection = match kind.namespaced {
        true => format!("{root}/namespaces/{{namespace}}/{}", kind.plural),
        false => format!("{root}/{}", kind.plural),
    };
    let item = format!("{collection}/{{name}}");
    m.collection(&collection, paths);
    if kind.namespaced && m.has("list") {
        let get = m.list("ForAllNamespaces", false);
        let params = m.shared(false, false);
        paths.insert(format!("{root}/{}", kind.plural), json!({ "get": get, "parameters": params }));
    }
    m.item(&item, paths);
    for sub in &kind.subresources {
        m.subresource(&format!("{item}/{}", sub.name), sub, paths);
    }
}

impl Maker<'_> {
    fn has(&self, verb: &str) -> bool {
        self.kind.verbs.iter().any(|v| v == verb)
    }

    fn own_gvk(&self) -> (&str, &str, &str) {
        (&self.kind.group, &self.kind.version, &self.kind.kind)
    }

    fn list(&mut self, suffix: &str, namespaced: bool) -> Value {
        let answer = self.defs.kind_ref(self.kind, true);
        self.op(
            Op {
                action: "list",
                word: "list",
                suffix,
                gvk: ("", "", ""),
                body: None,
                answer,
                params: LIST.to_vec(),
                namespaced,
            },
            None,
        )
    }

    fn collection(&mut self, path: &str, paths: &mut Map<String, Value>) {
        let mut out = Map::new();
        let namespaced = self.kind.namespaced;
        if self.has("list") {
            out.insert("get".into(), self.list("", namespaced));
        }
        if self.has("create") {
            let body = self.defs.kind_ref(self.kind, false);
            let op = self.write("post", "create", body, vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION]);
            out.insert("post".into(), op);
        }
        if self.has("deletecollection") {
            let op = self.delete("deletecollection", "deleteCollection", [&DELETE[..], &LIST[1..9]].concat());
            out.insert("delete".into(), op);
        }
        if !out.is_empty() {
            out.insert("parameters".into(), self.shared(namespaced, false));
            paths.insert(path.to_string(), Value::Object(out));
        }
    }

    fn item(&mut self, path: &str, paths: &mut Map<String, Value>) {
        let mut out = Map::new();
        if self.has("get") {
            let answer = self.defs.kind_ref(self.kind, false);
            let op = self.read(answer);
            out.insert("get".into(), op);
        }
        if self.has("update") {
            let body = self.defs.kind_ref(self.kind, false);
            let op = self.write("put", "replace", body, vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION]);
            out.insert("put".into(), op);
        }
        if self.has("patch") {
            let answer = self.defs.kind_ref(self.kind, false);
            let op = self.patch(answer, None);
            out.insert("patch".into(), op);
        }
        if self.has("delete") {
            let op = self.delete("delete", "delete", DELETE.to_vec());
            out.insert("delete".into(), op);
        }
        if !out.is_empty() {
            let namespaced = self.kind.namespaced;
            out.insert("parameters".into(), self.shared(namespaced, true));
            paths.insert(path.to_string(), Value::Object(out));
        }
    }

    fn read(&mut self, answer: Value) -> Value {
        let namespaced = self.kind.namespaced;
        let op = Op {
            action: "get",
            word: "read",
            suffix: "",
            gvk: ("", "", ""),
            body: None,
            answer,
            params: Vec::new(),
            namespaced,
        };
        self.op(op, None)
    }

    fn write(&mut self, action: &str, word: &str, body: Value, params: Vec<Param>) -> Value {
        let namespaced = self.kind.namespaced;
        let answer = body.clone();
        self.op(Op { action, word, suffix: "", gvk: ("", "", ""), body: Some(body), answer, params, namespaced }, None)
    }

    fn patch(&mut self, answer: Value, sub: Option<&SubresourceInfo>) -> Value {
        let body = Some(self.defs.meta_ref("Patch"));
        let params = vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
        let namespaced = self.kind.namespaced;
        self.op(
            Op { action: "patch", word: "patch", suffix: "", gvk: ("", "", ""), body, answer, params, namespaced },
            sub,
        )
    }

    fn delete(&mut self, action: &str, word: &str, params: Vec<Param>) -> Value {
        let body = Some(self.defs.meta_ref("DeleteOptions"));
        let answer = self.defs.meta_ref("Status");
        let namespaced = self.kind.namespaced;
        self.op(Op { action, word, suffix: "", gvk: ("", "", ""), body, answer, params, namespaced }, None)
    }

    fn subresource(&mut self, path: &str, sub: &SubresourceInfo, paths: &mut Map<String, Value>) {
        let mut out = Map::new();
        let has = |verb: &str| sub.verbs.iter().any(|v| v == verb);
        let streams = matches!(sub.name.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log");
        let answer = match (sub.schema, streams) {
            (Some(ty), _) => self.defs.type_ref(ty),
            (None, false) => self.defs.kind_ref(self.kind, false),
            (None, true) => json!({ "type": "string" }),
        };
        let write = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION].to_vec();
        let namespaced = self.kind.namespaced;
        let method = |action: &'static str, word: &'static str, body: Option<Value>, params: Vec<Param>| Op {
            action: if streams { "connect" } else { action },
            word: if streams { "connect" } else { word },
            suffix: if streams { action } else { "" },
            gvk: (&sub.group, &sub.version, &sub.kind),
            body: body.filter(|_| !streams),
            answer: answer.clone(),
            params: if streams { Vec::new() } else { params },
            namespaced,
        };
        if has("get") {
            out.insert("get".into(), self.op(method("get", "read", None, Vec::new()), Some(sub)));
        }
        if has("create") {
            let op = method("post", "create", Some(answer.clone()), write.clone());
            out.insert("post".into(), self.op(op, Some(sub)));
        }
        if has("update") {
            let op = method("put", "replace", Some(answer.clone()), write);
            out.insert("put".into(), self.op(op, Some(sub)));
        }
        if has("patch") {
            out.insert("patch".into(), self.patch(answer, Some(sub)));
        }
        if !out.is_empty() {
            out.insert("parameters".into(), self.shared(namespaced, true));
            paths.insert(path.to_string(), Value::Object(out));
        }
    }

    /// The parameters of every operation of a path.
    fn shared(&self, namespaced: bool, named: bool) -> Value {
        let mut out = Vec::new();
        if named {
            out.push(self.param("path", "name", "string", &format!("name of the {}", self.kind.kind)));
        }
        if namespaced {
            let text = "object name and auth scope, such as for teams and projects";
            out.push(self.param("path", "namespace", "string", text));
        }
        out.push(self.param("query", PRETTY.0, PRETTY.1, PRETTY.2));
        Value::Array(out)
    }

    fn param(&self, place: &str, name: &str, ty: &str, description: &str) -> Value {
        let mut p = json!({ "name": name, "in": place, "description": description, "uniqueItems": true });
        if place == "path" {
            p["required"] = true.into();
        }
        match self.dialect {
            Dialect::V2 => p["type"] = ty.into(),
            Dialect::V3 => {
                p["schema"] = json!({ "type": ty, "uniqueItems": true });
                if let Value::Object(p) = &mut p {
                    p.remove("uniqueItems");
                }
            }
        }
        p
    }

    fn op(&mut self, op: Op<'_>, sub: Option<&SubresourceInfo>) -> Value {
        let k = self.kind;
        let (group, version, kind) = match sub {
            Some(s) => (s.group.as_str(), s.version.as_str(), s.kind.as_str()),
            None if op.gvk.2.is_empty() => self.own_gvk(),
            None => op.gvk,
        };
        let (first, second) = (camel(k.group.split('.').next().unwrap_or("")), camel(&k.version));
        let first = if first.is_empty() { "Core".to_string() } else { first };
        let sub_name = sub.map(|s| camel(&s.name)).unwrap_or_default();
        let scope = if op.namespaced { "Namespaced" } else { "" };
        let id = format!("{}{first}{second}{scope}{}{sub_name}{}", op.word, k.kind, camel(op.suffix));
        let tag = format!("{}_{}", first.to_lowercase(), k.version);
        let verb = match op.word {
            "deleteCollection" => "delete collection of",
            "list" => "list or watch objects of kind",
            word => word,
        };
        let mut params: Vec<Value> =
            op.params.iter().map(|(name, ty, text)| self.param("query", name, ty, text)).collect();
        let mut out = json!({
            "description": format!("{verb} {}", k.kind),
            "operationId": id,
            "tags": [tag],
            "x-kubernetes-action": op.action,
            "x-kubernetes-group-version-kind": { "group": group, "kind": kind, "version": version },
        });
        let bodies: &[&str] = if op.action == "patch" { &PATCHES } else { &BODIES };
        let content = |types: &[&str], schema: &Value| -> Value {
            Value::Object(types.iter().map(|t| (t.to_string(), json!({ "schema": schema }))).collect())
        };
        let mut codes = vec![("200", "OK")];
        match op.action {
            "post" => codes.extend([("201", "Created"), ("202", "Accepted")]),
            "put" | "patch" => codes.push(("201", "Created")),
            "delete" => codes.push(("202", "Accepted")),
            _ => {}
        }
        let mut responses = Map::new();
        for (code, text) in codes {
            let response = match self.dialect {
                Dialect::V2 => json!({ "description": text, "schema": op.answer }),
                Dialect::V3 => json!({ "description": text, "content": content(&BODIES, &op.answer) }),
            };
            responses.insert(code.into(), response);
        }
        responses.insert("401".into(), json!({ "description": "Unauthorized" }));
        out["responses"] = Value::Object(responses);
        let required = !matches!(op.action, "delete" | "deletecollection");
        match self.dialect {
            Dialect::V2 => {
                out["consumes"] = if op.action == "patch" { json!(PATCHES) } else { json!(["*/*"]) };
                out["produces"] = json!(BODIES);
                out["schemes"] = json!(["https"]);
                if let Some(schema) = op.body {
                    let mut body = json!({ "name": "body", "in": "body", "schema": schema });
                    if required {
                        body["required"] = true.into();
                    }
                    params.insert(0, body);
                }
            }
            Dialect::V3 => {
                if let Some(schema) = op.body {
                    let types = if op.action == "patch" { bodies } else { &["*/*"][..] };
                    out["requestBody"] = json!({ "content": content(types, &schema) });
                    if required {
                        out["requestBody"]["required"] = true.into();
                    }
                }
            }
        }
        if !params.is_empty() {
            out["parameters"] = Value::Array(params);
        }
        out
    }
}

fn camel(s: &str) -> String {
    let mut chars = s.chars();
    match chars.next() {
        Some(c) => c.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
