//! What client libraries rely on: paging, transforms, options of writes and
//! deletes, headers, impersonation.

mod common;

use std::sync::Arc;

use common::*;
use http::Method;
use serde_json::{Value, json};
use triarch_auth::authn::Authn;
use triarch_auth::impersonate::Impersonating;
use triarch_auth::rbac::Rbac;
use triarch_auth::reviews::Reviews;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON: (&str, &str) = ("content-type", "application/json");
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

fn delete(path: &str, options: &Value) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let body = if options.is_null() { String::new() } else { options.to_string() };
    request(Method::DELETE, path, &[JSON], body)
}

fn pod(name: &str, node: &str) -> Value {
    let mut v = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    if !node.is_empty() {
        v["spec"]["nodeName"] = node.into();
    }
    v
}

#[tokio::test]
async fn pages_are_of_one_revision_and_count_what_remains() {
    let f = fixture();
    for name in ["a", "b", "c", "d", "e"] {
        f.post(MAPS, &config_map(name, if name == "c" { "2" } else { "1" })).await;
    }
    let (_, first) = f.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(3)));
    f.post(MAPS, &config_map("bb", "1")).await;
    let token = |v: &Value| v["metadata"]["continue"].as_str().unwrap().to_owned();
    let (_, second) = f.get(&format!("{MAPS}?limit=2&continue={}", token(&first))).await;
    assert_eq!((names(&second), &second["metadata"]["remainingItemCount"]), (vec!["c", "d"], &json!(1)));
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let (_, last) = f.get(&format!("{MAPS}?limit=2&continue={}", token(&second))).await;
    assert_eq!(names(&last), ["e"]);
    assert!(last["metadata"].get("continue").is_none() && last["metadata"].get("remainingItemCount").is_none());
    // With a selector nobody counts what remains.
    let (_, selected) = f.get(&format!("{MAPS}?limit=1&labelSelector=v%3D1")).await;
    assert_eq!(names(&selected), ["a"]);
    assert!(selected["metadata"]["continue"].is_string() && selected["metadata"].get("remainingItemCount").is_none());
    let exact = &first["metadata"]["resourceVersion"].as_str().unwrap();
    let (_, then) = f.get(&format!("{MAPS}?resourceVersion={exact}&resourceVersionMatch=Exact")).await;
    assert_eq!(names(&then), ["a", "b", "c", "d", "e"]);
    let (_, now) = f.get(&format!("{MAPS}?resourceVersion={exact}&resourceVersionMatch=NotOlderThan")).await;
    assert_eq!(now["items"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn metadata_alone_is_had_by_get_list_and_watch() {
    let f = fixture();
    let (_, made) = f.post(MAPS, &config_map("a", "1")).await;
    let accept = [("accept", PARTIAL)];
    let partial =
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": made["metadata"]});
    let (_, one) = f.json(request(Method::GET, &format!("{MAPS}/a"), &accept, "")).await;
    assert_eq!(one, partial);
    let lists = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let (_, list) = f.json(request(Method::GET, MAPS, &lists, "")).await;
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]),
        (&json!("PartialObjectMetadataList"), &made["metadata"])
    );
    let watch = request(Method::GET, &format!("{MAPS}?watch=1&timeoutSeconds=1"), &accept, "");
    let events = bytes(f.send(watch).await).await;
    let first: Value = serde_json::from_slice(events.split(|b| *b == b'\n').next().unwrap()).unwrap();
    assert_eq!(first, json!({"type": "ADDED", "object": partial}));
    // What a write answers can be had so too.
    let patch = [accept[0], ("content-type", "application/merge-patch+json")];
    let (_, patched) = f.json(request(Method::PATCH, &format!("{MAPS}/a"), &patch, r#"{"data":{"k":"2"}}"#)).await;
    assert_eq!(patched["kind"], "PartialObjectMetadata");
    assert!(patched.get("data").is_none());
}

#[tokio::test]
async fn a_dry_run_answers_like_the_write_and_leaves_everything() {
    let f = fixture();
    let (_, made) = f.post(MAPS, &config_map("a", "1")).await;
    let path = format!("{MAPS}/a?dryRun=All");
    let mut changed = made.clone();
    changed["data"]["k"] = "2".into();
    let (code, v) = f.json(request(Method::PUT, &path, &[JSON], changed.to_string())).await;
    assert_eq!((code, &v["data"]["k"]), (200, &json!("2")));
    let merge = [("content-type", "application/merge-patch+json")];
    let (code, v) = f.json(request(Method::PATCH, &path, &merge, r#"{"data":{"x":"y"}}"#)).await;
    assert_eq!((code, &v["data"]["x"]), (200, &json!("y")));
    let (code, v) = f.json(delete(&path, &Value::Null)).await;
    assert_eq!((code, &v["status"]), (200, &json!("Success")));
    let (code, _) = f.json(delete(&format!("{MAPS}/a"), &json!({"dryRun": ["All"]}))).await;
    assert_eq!(code, 200);
    let (code, v) =
        f.json(request(Method::POST, &format!("{MAPS}?dryRun=All"), &[JSON], config_map("a", "1").to_string())).await;
    assert_eq!((code, &v["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(f.get(&format!("{MAPS}/a")).await.1, made);
}

#[tokio::test]
async fn deletes_answer_by_kind_and_wait_where_there_is_something_to_wait_for() {
    let f = fixture();
    let (_, made) = f.post(MAPS, &config_map("a", "1")).await;
    let (code, v) = f.json(delete(&format!("{MAPS}/a"), &Value::Null)).await;
    let details = json!({"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]});
    let success =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    assert_eq!((code, v), (200, success));
    // A pod on a node gets its grace, which can be cut.
    f.post(PODS, &pod("p", "n1")).await;
    let p = format!("{PODS}/p");
    let (code, v) = f.json(delete(&p, &json!({"gracePeriodSeconds": 60}))).await;
    assert_eq!((code, &v["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(60)));
    let (_, v) = f.json(delete(&format!("{p}?gracePeriodSeconds=5"), &Value::Null)).await;
    assert_eq!(v["metadata"]["deletionGracePeriodSeconds"], 5);
    let (_, v) = f.json(delete(&p, &json!({"gracePeriodSeconds": 60}))).await;
    assert_eq!(v["metadata"]["deletionGracePeriodSeconds"], 5, "never longer again");
    let (code, v) = f.json(delete(&p, &json!({"gracePeriodSeconds": 0}))).await;
    assert_eq!((code, &v["kind"]), (200, &json!("Pod")));
    assert_eq!(f.get(&p).await.0, 404);
    f.post(PODS, &pod("q", "")).await;
    assert_eq!(f.json(delete(&format!("{PODS}/q"), &Value::Null)).await.0, 200);
    assert_eq!(f.get(&format!("{PODS}/q")).await.0, 404, "nobody runs it: it is gone at once");
    // Dependents: by finalizers, and 202 only for the old option.
    for (options, code, finalizers) in [
        (json!({"propagationPolicy": "Orphan"}), 200, json!(["orphan"])),
        (json!({"propagationPolicy": "Foreground"}), 200, json!(["foregroundDeletion"])),
        (json!({"orphanDependents": true}), 200, json!(["orphan"])),
        (json!({"propagationPolicy": "Background"}), 200, Value::Null),
    ] {
        f.post(MAPS, &config_map("d", "1")).await;
        let (have, v) = f.json(delete(&format!("{MAPS}/d"), &options)).await;
        assert_eq!((have, &v["metadata"]["finalizers"]), (code, &finalizers), "{options}");
        let release = [("content-type", "application/merge-patch+json")];
        f.json(request(Method::PATCH, &format!("{MAPS}/d"), &release, r#"{"metadata":{"finalizers":null}}"#)).await;
        assert_eq!(f.get(&format!("{MAPS}/d")).await.0, 404, "{options}");
    }
    let mut held = config_map("h", "1");
    held["metadata"]["finalizers"] = json!(["example.com/f"]);
    f.post(MAPS, &held).await;
    assert_eq!(f.json(delete(&format!("{MAPS}/h"), &json!({"orphanDependents": false}))).await.0, 202);
    // As generated clients send it.
    let ty = triarch_api::schema::lookup("meta/v1.DeleteOptions").unwrap();
    f.post(MAPS, &config_map("e", "1")).await;
    let raw = triarch_api::protobuf::encode(ty, &json!({"preconditions": {"uid": "other"}}));
    let body = triarch_api::protobuf::envelope("v1", "DeleteOptions", &raw);
    let sent = [
        ("content-type", "application/vnd.kubernetes.protobuf"),
        ("accept", "application/vnd.kubernetes.protobuf,application/json"),
    ];
    assert_eq!(f.json(request(Method::DELETE, &format!("{MAPS}/e"), &sent, body)).await.0, 409);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector_and_answers_what_it_deleted() {
    let f = fixture();
    for (name, v) in [("a", "1"), ("b", "2"), ("c", "1")] {
        f.post(MAPS, &config_map(name, v)).await;
    }
    let (code, gone) = f.json(delete(&format!("{MAPS}?labelSelector=v%3D1"), &Value::Null)).await;
    assert_eq!((code, gone["kind"].as_str(), names(&gone)), (200, Some("ConfigMapList"), vec!["a", "c"]));
    assert_eq!(names(&f.get(MAPS).await.1), ["b"]);
    let (code, gone) = f.json(delete(&format!("{MAPS}?dryRun=All"), &Value::Null)).await;
    assert_eq!((code, names(&gone)), (200, vec!["b"]));
    assert_eq!(names(&f.get(MAPS).await.1), ["b"]);
}

#[tokio::test]
async fn every_answer_has_an_audit_id_and_warnings_where_there_are_some() {
    let f = fixture();
    for path in [MAPS, "/version", "/nope", "/api/v1/namespaces/default/widgets"] {
        let r = f.send(request(Method::GET, path, &[], "")).await;
        assert!(!r.headers()["audit-id"].is_empty(), "{path}");
        assert_eq!(r.headers()["cache-control"], "no-cache, private", "{path}");
    }
    let endpoints = json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": {"name": "e"}});
    let r = f.send(request(Method::POST, "/api/v1/namespaces/default/endpoints", &[JSON], endpoints.to_string())).await;
    let text = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!((r.status().as_u16(), r.headers()["warning"].to_str().unwrap()), (201, text));
}

#[tokio::test]
async fn documents_are_negotiated_and_validated() {
    let f = fixture();
    let ask = |accept: &'static str| request(Method::GET, "/apis", &[("accept", accept)], "");
    let v2beta1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
    assert_eq!(f.json(ask(v2beta1)).await.0, 406);
    let (_, legacy) =
        f.json(ask("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json")).await;
    assert_eq!(legacy["kind"], "APIGroupList");
    let (_, v2) =
        f.json(ask("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")).await;
    assert_eq!((&v2["kind"], &v2["apiVersion"]), (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2")));
    for path in ["/openapi/v2", "/openapi/v3", "/openapi/v3/apis/apps/v1"] {
        let r = f.send(request(Method::GET, path, &[], "")).await;
        let etag = r.headers()["etag"].to_str().unwrap().to_owned();
        assert!(r.headers()["vary"].to_str().unwrap().contains("Accept"), "{path}");
        let again = f.send(request(Method::GET, path, &[("if-none-match", &etag)], "")).await;
        assert_eq!(again.status(), 304, "{path}");
        assert!(bytes(again).await.is_empty());
        let other = f.send(request(Method::GET, path, &[("if-none-match", "\"0\"")], "")).await;
        assert_eq!(other.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn impersonation_is_granted_by_roles_and_only_for_what_they_name() {
    let mut p = parts();
    let (db, env) = (p.registry.db().clone(), p.registry.env().clone());
    let rbac = Arc::new(Rbac::new(p.registry.mvcc().clone()));
    let authorizer = Arc::new(triarch_auth::Chain {
        node: triarch_auth::node::NodeAuthorizer::new(p.registry.mvcc().clone()),
        rbac: rbac.clone(),
    });
    let authn = Authn {
        db,
        env,
        service_accounts: Arc::new(triarch_pki::jwt::ServiceAccountKey::generate().unwrap()),
        issuer: "i".into(),
        audiences: Vec::new(),
        front_proxy_ca: None,
    };
    p.registry.set_virtuals(vec![Arc::new(Reviews { authn: Arc::new(authn), authorizer: authorizer.clone(), rbac })]);
    p.authenticator = Arc::new(Impersonating { inner: Arc::new(Tokens), authorizer: authorizer.clone() });
    p.authorizer = authorizer;
    let client = p.registry.client(triarch_registry::RequestContext::component("admin", None));
    let rule = |group: &str, resource: &str, names: Value| json!({"verbs": ["impersonate"], "apiGroups": [group], "resources": [resource], "resourceNames": names});
    let role = |name: &str, rules: Value| json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}, "rules": rules});
    let bind = |name: &str, subject: Value| {
        json!({"kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}, "subjects": [subject]})
    };
    let reviews =
        json!([{"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]}]);
    for object in [
        role(
            "act",
            json!([
                rule("", "users", json!(["alice"])),
                rule("", "groups", json!(["devs"])),
                rule("authentication.k8s.io", "uids", json!(["42"])),
                rule("authentication.k8s.io", "userextras/scopes", json!(["view"])),
            ]),
        ),
        bind("act", json!({"kind": "User", "name": "bob"})),
        role("ask", reviews),
        bind("ask", json!({"kind": "Group", "name": "system:authenticated"})),
    ] {
        client.create(object).await.unwrap();
    }
    let f = start(p);
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}).to_string();
    let ask = async |headers: &[(&str, &str)]| {
        let all = [&[("authorization", "Bearer bob"), JSON], headers].concat();
        f.json(request(Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &all, review.clone())).await
    };
    let (code, v) = ask(&[]).await;
    assert_eq!((code, &v["status"]["userInfo"]["username"]), (201, &json!("bob")));
    let (code, v) = ask(&[
        ("impersonate-user", "alice"),
        ("impersonate-group", "devs"),
        ("impersonate-uid", "42"),
        ("impersonate-extra-scopes", "view"),
    ])
    .await;
    let alice = json!({"username": "alice", "uid": "42", "groups": ["devs", "system:authenticated"], "extra": {"scopes": ["view"]}});
    assert_eq!((code, &v["status"]["userInfo"]), (201, &alice));
    for (headers, what, name) in [
        (vec![("impersonate-user", "root")], r#"resource "users" in API group """#, r#"users "root""#),
        (
            vec![("impersonate-user", "alice"), ("impersonate-group", "system:masters")],
            r#"resource "groups" in API group """#,
            r#"groups "system:masters""#,
        ),
        (
            vec![("impersonate-user", "alice"), ("impersonate-uid", "43")],
            r#"resource "uids" in API group "authentication.k8s.io""#,
            r#"uids.authentication.k8s.io "43""#,
        ),
        (
            vec![("impersonate-user", "alice"), ("impersonate-extra-scopes", "edit")],
            r#"resource "userextras/scopes" in API group "authentication.k8s.io""#,
            r#"userextras.authentication.k8s.io "edit""#,
        ),
    ] {
        let (code, v) = ask(&headers).await;
        let text = format!(r#"{name} is forbidden: User "bob" cannot impersonate {what} at the cluster scope"#);
        assert_eq!((code, v["message"].as_str()), (403, Some(text.as_str())));
    }
    let (code, v) = ask(&[("impersonate-group", "devs")]).await;
    assert_eq!((code, &v["reason"]), (400, &json!("BadRequest")), "{v}");
}
