use serde_json::json;

use super::*;
use crate::schema::lookup;

fn smp(ty: &str, doc: Value, patch: Value) -> Value {
    strategic(lookup(ty).unwrap(), &doc, patch.to_string().as_bytes(), &Limits::default()).unwrap()
}

fn jp(doc: Value, patch: Value) -> Result<Value, PatchError> {
    json(&doc, patch.to_string().as_bytes(), &Limits::default())
}

fn containers(names: &[&str]) -> Value {
    json!({"spec": {"containers": names.iter().map(|n| json!({"name": n, "image": "i"})).collect::<Vec<_>>()}})
}

fn names(v: &Value) -> Vec<&str> {
    v["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect()
}

#[test]
fn every_json_patch_operation_does_what_the_rfc_says() {
    let doc = json!({"a": {"b~/": 1}, "l": [1, 2]});
    let out = jp(
        doc,
        json!([
            {"op": "test", "path": "/a/b~0~1", "value": 1.0},
            {"op": "add", "path": "/l/-", "value": 3}, {"op": "add", "path": "/l/0", "value": 0},
            {"op": "remove", "path": "/l/1"}, {"op": "replace", "path": "/a", "value": {"x": null}},
            {"op": "copy", "from": "/l", "path": "/c"}, {"op": "move", "from": "/l/0", "path": "/m"}]),
    );
    assert_eq!(out.unwrap(), json!({"a": {"x": null}, "l": [2, 3], "c": [0, 2, 3], "m": 0}));
}

#[test]
fn a_json_patch_that_does_not_apply_is_unprocessable() {
    for patch in [
        json!([{"op": "test", "path": "/a", "value": 2}]),
        json!([{"op": "remove", "path": "/b"}]),
        json!([{"op": "replace", "path": "/b", "value": 1}]),
        json!([{"op": "add", "path": "/b/c", "value": 1}]),
        json!([{"op": "add", "path": "/l/9", "value": 1}]),
        json!([{"op": "move", "from": "/l", "path": "/l/x"}]),
        json!([{"op": "bogus", "path": "/a"}]),
        json!([{"op": "add", "path": "/x"}]),
    ] {
        let e = jp(json!({"a": 1, "l": []}), patch.clone()).unwrap_err();
        assert_eq!(e.status().code, 422, "{patch}");
    }
    assert_eq!(jp(json!({}), json!({})).unwrap_err().status().code, 400);
}

#[test]
fn json_patches_are_bounded_in_operations_and_growth() {
    let many: Vec<Value> = (0..10_001).map(|_| json!({"op": "test", "path": "/a", "value": 1})).collect();
    let e = jp(json!({"a": 1}), many.into()).unwrap_err();
    assert_eq!(e.status().code, 413);
    assert!(e.to_string().ends_with("is 10000, got 10001"));
    let bomb: Vec<Value> = (0..60).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})).collect();
    assert!(jp(json!({"a": ["x".repeat(1000)]}), bomb.into()).is_err());
}

#[test]
fn a_merge_patch_replaces_lists_and_drops_nulls() {
    let doc = json!({"a": [1], "b": {"c": 1, "d": 2}, "e": 1});
    let out = merge(&doc, br#"{"a":[2],"b":{"c":null,"n":{"x":null,"y":1}},"e":{"f":1}}"#, &Limits::default());
    assert_eq!(out.unwrap(), json!({"a": [2], "b": {"d": 2, "n": {"y": 1}}, "e": {"f": 1}}));
    assert!(matches!(merge(&doc, b"[]", &Limits::default()), Err(PatchError::Bad(_))));
}

#[test]
fn strategic_lists_merge_by_key_and_keep_the_order() {
    let out = smp(
        "core/v1.Pod",
        containers(&["a", "b"]),
        json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "c"}]}}),
    );
    assert_eq!(names(&out), ["a", "b", "c"]);
    assert_eq!(out["spec"]["containers"][1], json!({"name": "b", "image": "2"}));
    // Tolerations are atomic.
    let out = smp(
        "core/v1.Pod",
        json!({"spec": {"tolerations": [{"key": "a"}]}}),
        json!({"spec": {"tolerations": [{"key": "b"}]}}),
    );
    assert_eq!(out["spec"]["tolerations"], json!([{"key": "b"}]));
}

#[test]
fn strategic_directives_delete_replace_and_order() {
    let gone = json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}});
    assert_eq!(names(&smp("core/v1.Pod", containers(&["a", "b"]), gone)), ["b"]);
    let replaced = json!({"spec": {"containers": [{"name": "z"}, {"$patch": "replace"}]}});
    assert_eq!(names(&smp("core/v1.Pod", containers(&["a", "b"]), replaced)), ["z"]);
    let ordered = json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
        "containers": [{"name": "c", "image": "n"}]}});
    assert_eq!(names(&smp("core/v1.Pod", containers(&["a", "b"]), ordered)), ["c", "a", "b"]);
    let map = json!({"metadata": {"labels": {"$patch": "replace", "x": "y"}}});
    let out = smp("core/v1.Pod", json!({"metadata": {"labels": {"a": "b"}}}), map);
    assert_eq!(out["metadata"]["labels"], json!({"x": "y"}));
}

#[test]
fn primitive_lists_merge_and_delete() {
    let doc = json!({"metadata": {"finalizers": ["a", "b"]}});
    let out = smp("core/v1.Pod", doc.clone(), json!({"metadata": {"finalizers": ["c", "a"]}}));
    let list = out["metadata"]["finalizers"].as_array().unwrap();
    assert_eq!(list.len(), 3);
    let out = smp("core/v1.Pod", doc, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}));
    assert_eq!(out["metadata"]["finalizers"], json!(["b"]));
}

#[test]
fn retain_keys_clears_the_other_members_of_a_union() {
    let doc = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let out =
        smp("apps/v1.Deployment", doc, json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}));
    assert_eq!(out["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn the_same_port_for_two_protocols_merges_by_port_number() {
    // The declared merge key of Service ports is the port alone, so the second entry wins over the first.
    let doc = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP", "name": "dns"}]}});
    let out = smp("core/v1.Service", doc, json!({"spec": {"ports": [{"port": 53, "nodePort": 30053}]}}));
    assert_eq!(out["spec"]["ports"], json!([{"port": 53, "protocol": "UDP", "name": "dns", "nodePort": 30053}]));
}

#[test]
fn an_element_without_its_merge_key_is_an_error() {
    let e = strategic(
        lookup("core/v1.Pod").unwrap(),
        &containers(&["a"]),
        br#"{"spec":{"containers":[{"image":"x"}]}}"#,
        &Limits::default(),
    );
    assert!(e.unwrap_err().to_string().contains("does not contain declared merge key: name"));
}
