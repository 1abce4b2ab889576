//! Discovery: legacy documents and the aggregated one, both from the table of kinds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use triarch_registry::{Kind, KindTable, Verb};

fn verbs(list: &[Verb]) -> Vec<&'static str> {
    let mut out: Vec<&str> = list
        .iter()
        .map(|v| match v {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        })
        .collect();
    out.sort_unstable();
    out
}

/// Clients compare it to see whether two resources share their storage.
fn storage_hash(kind: &Kind) -> String {
    let digest = Sha256::digest(format!("{}/{}/{}", kind.group, kind.version, kind.kind));
    STANDARD.encode(&digest[..8])
}

/// `/api`
pub fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

fn group(name: &str, versions: &[&str], typed: bool) -> Value {
    let version = |v: &&str| json!({"groupVersion": format!("{name}/{v}"), "version": v});
    let mut out = Map::new();
    if typed {
        out.insert("kind".into(), "APIGroup".into());
        out.insert("apiVersion".into(), "v1".into());
    }
    out.insert("name".into(), name.into());
    out.insert("versions".into(), versions.iter().map(version).collect());
    if let Some(first) = versions.first() {
        out.insert("preferredVersion".into(), version(first));
    }
    Value::Object(out)
}

/// `/apis`
pub fn groups(kinds: &KindTable) -> Value {
    let named = kinds.groups().iter().filter(|(g, _)| !g.is_empty());
    let groups: Vec<Value> = named.map(|(g, versions)| group(g, versions, false)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`
pub fn one_group(kinds: &KindTable, name: &str) -> Option<Value> {
    let (_, versions) = kinds.groups().iter().find(|(g, _)| *g == name && !g.is_empty())?;
    Some(group(name, versions, true))
}

/// `/api/v1` and `/apis/{group}/{version}`
pub fn resources(kinds: &KindTable, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for kind in kinds.in_group_version(group, version) {
        if !kind.verbs.is_empty() {
            let mut r = json!({
                "name": kind.plural,
                "singularName": kind.singular,
                "namespaced": kind.namespaced(),
                "kind": kind.kind,
                "verbs": verbs(kind.verbs),
            });
            if !kind.short_names.is_empty() {
                r["shortNames"] = json!(kind.short_names);
            }
            if !kind.categories.is_empty() {
                r["categories"] = json!(kind.categories);
            }
            if kind.stored {
                r["storageVersionHash"] = storage_hash(kind).into();
            }
            list.push(r);
        }
        for sub in kind.subresources {
            let (g, v, k) = sub.response;
            let mut r = json!({
                "name": format!("{}/{}", kind.plural, sub.name),
                "singularName": "",
                "namespaced": kind.namespaced(),
                "kind": k,
                "verbs": verbs(sub.verbs),
            });
            if (g, v) != (kind.group, kind.version) {
                r["group"] = g.into();
                r["version"] = v.into();
            }
            list.push(r);
        }
    }
    if list.is_empty() {
        return None;
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let gv = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut out = json!({"kind": "APIResourceList", "groupVersion": gv, "resources": list});
    if !group.is_empty() {
        out["apiVersion"] = "v1".into();
    }
    Some(out)
}

/// The media type of the aggregated document.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api` (`core`) or `/apis` as one document.
pub fn aggregated(kinds: &KindTable, core: bool) -> Value {
    let mut items = Vec::new();
    for (name, versions) in kinds.groups().iter().filter(|(g, _)| g.is_empty() == core) {
        let versions: Vec<Value> = versions
            .iter()
            .map(|v| {
                let resources: Vec<Value> = kinds.in_group_version(name, v).map(resource).collect();
                json!({"version": v, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let mut metadata = json!({"creationTimestamp": null});
        if !name.is_empty() {
            metadata["name"] = (*name).into();
        }
        items.push(json!({"metadata": metadata, "versions": versions}));
    }
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn resource(kind: &'static Kind) -> Value {
    let gvk = |(g, v, k): (&str, &str, &str)| json!({"group": g, "version": v, "kind": k});
    let mut r = json!({
        "resource": kind.plural,
        "responseKind": gvk((kind.group, kind.version, kind.kind)),
        "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind.verbs),
    });
    if !kind.short_names.is_empty() {
        r["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        r["categories"] = json!(kind.categories);
    }
    if !kind.subresources.is_empty() {
        let subs = kind.subresources.iter();
        let subs =
            subs.map(|s| json!({"subresource": s.name, "responseKind": gvk(s.response), "verbs": verbs(s.verbs)}));
        r["subresources"] = subs.collect();
    }
    r
}

/// A strong validator over a document's bytes.
pub fn etag(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|b| format!("{b:02X}")).collect();
    format!("\"{hex}\"")
}
