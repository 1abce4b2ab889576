use serde_json::json;

use super::*;
use crate::schema::lookup;

fn kind(group: &str, version: &str, name: &str, plural: &str, ty: &str) -> KindInfo {
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    KindInfo {
        group: group.into(),
        version: version.into(),
        kind: name.into(),
        plural: plural.into(),
        namespaced: true,
        verbs: verbs.map(String::from).to_vec(),
        schema: SchemaSource::Table(lookup(ty).unwrap()),
        subresources: vec![SubresourceInfo {
            name: "status".into(),
            verbs: vec!["get".into(), "update".into(), "patch".into()],
            group: group.into(),
            version: version.into(),
            kind: name.into(),
            schema: None,
        }],
    }
}

fn all() -> Vec<KindInfo> {
    let mut widget = kind("example.com", "v1", "Widget", "widgets", "core/v1.Pod");
    widget.schema = SchemaSource::Custom(json!({ "type": "object", "properties": {
        "spec": { "type": "object", "nullable": true, "properties": { "n": { "type": "integer" } } } } }));
    let mut pod = kind("", "v1", "Pod", "pods", "core/v1.Pod");
    pod.subresources.push(SubresourceInfo {
        name: "eviction".into(),
        verbs: vec!["create".into()],
        group: "policy".into(),
        version: "v1".into(),
        kind: "Eviction".into(),
        schema: lookup("policy/v1.Eviction"),
    });
    vec![pod, kind("apps", "v1", "Deployment", "deployments", "apps/v1.Deployment"), widget]
}

/// Every `$ref` below a value.
fn refs<'a>(v: &'a Value, out: &mut Vec<&'a str>) {
    match v {
        Value::Object(m) => {
            for (k, v) in m {
                match v.as_str().filter(|_| k == "$ref") {
                    Some(r) => out.push(r),
                    None => refs(v, out),
                }
            }
        }
        Value::Array(a) => a.iter().for_each(|v| refs(v, out)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let v2 = v2(&all());
    let docs = [v2, v3("", "v1", &all()), v3("apps", "v1", &all()), v3("example.com", "v1", &all())];
    for doc in &docs {
        let mut found = Vec::new();
        refs(doc, &mut found);
        assert!(found.len() > 20);
        for r in found {
            let schemas = doc.get("definitions").unwrap_or(&doc["components"]["schemas"]);
            let name = r.rsplit('/').next().unwrap();
            assert!(schemas.get(name).is_some_and(|s| s.is_object()), "{r}");
        }
    }
}

#[test]
fn patch_operations_say_that_the_server_validates_fields() {
    for doc in [v2(&all()), v3("apps", "v1", &all())] {
        let op = &doc["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        let names: Vec<_> = op["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"));
        assert_eq!(
            op["x-kubernetes-group-version-kind"],
            json!({ "group": "apps", "version": "v1", "kind": "Deployment" })
        );
        assert_eq!(op["x-kubernetes-action"], "patch");
    }
}

#[test]
fn explain_finds_kind_and_descriptions() {
    let doc = v3("", "v1", &all());
    let pod = &doc["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"], json!([{ "group": "", "version": "v1", "kind": "Pod" }]));
    assert!(pod["description"].as_str().unwrap().starts_with("Pod is a collection of containers"));
    let spec = &doc["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
    let containers = &spec["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert!(containers["description"].as_str().is_some_and(|d| d.contains("containers")));
    assert_eq!(spec["required"], json!(["containers"]));
    assert_eq!(doc["paths"]["/api/v1/pods"]["get"]["operationId"], "listCoreV1PodForAllNamespaces");
    let eviction = &doc["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"];
    assert_eq!(eviction["x-kubernetes-group-version-kind"]["kind"], "Eviction");
}

#[test]
fn a_custom_resource_keeps_its_schema_in_v3_and_loses_unions_in_v2() {
    let name = "com.example.v1.Widget";
    let three = &v3("example.com", "v1", &all())["components"]["schemas"][name]["properties"];
    assert_eq!(three["spec"]["nullable"], true);
    assert!(three["metadata"]["allOf"].is_array());
    let two = &v2(&all())["definitions"][name]["properties"];
    assert!(two["spec"].get("nullable").is_none() && two["spec"].get("properties").is_none());
}

#[test]
fn the_root_names_documents_by_hash() {
    let h = hash(b"x");
    let root = v3_root(&[("apis/apps/v1".into(), h.clone())]);
    assert_eq!(root["paths"]["apis/apps/v1"]["serverRelativeURL"], format!("/openapi/v3/apis/apps/v1?hash={h}"));
    assert_eq!(h.len(), 64);
}

/// Walks protobuf fields far enough to find a definition by name.
#[test]
fn the_protobuf_document_holds_every_definition_and_path() {
    fn fields(mut b: &[u8]) -> Vec<(u64, &[u8])> {
        let varint = |b: &mut &[u8]| {
            let (mut v, mut shift) = (0u64, 0);
            loop {
                let byte = b[0];
                *b = &b[1..];
                v |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return v;
                }
            }
        };
        let mut out = Vec::new();
        while !b.is_empty() {
            let tag = varint(&mut b);
            match tag & 7 {
                0 => {
                    varint(&mut b);
                }
                2 => {
                    let n = varint(&mut b) as usize;
                    out.push((tag >> 3, &b[..n]));
                    b = &b[n..];
                }
                other => panic!("wire type {other}"),
            }
        }
        out
    }
    let doc = v2(&all());
    let raw = v2_protobuf(&doc);
    let top = fields(&raw);
    let section = |n: u64| top.iter().find(|(k, _)| *k == n).unwrap().1;
    assert_eq!(section(1), b"2.0");
    let names = |n: u64, inner: u64| -> Vec<String> {
        let list = fields(section(n)).into_iter().filter(|(k, _)| *k == inner);
        list.map(|(_, b)| String::from_utf8(fields(b)[0].1.to_vec()).unwrap()).collect()
    };
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(8, 2), keys(&doc["paths"]));
    assert_eq!(names(9, 1), keys(&doc["definitions"]));
}
