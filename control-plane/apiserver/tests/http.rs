//! What clients see: codes, texts, headers, forms and bodies.

mod common;

use bytes::Bytes;
use common::*;
use http::Method;
use serde_json::{Value, json};
use triarch_apiserver::audit::{Audit, AuditConfig};
use triarch_apiserver::{Check, Limits};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn who_is_not_known_is_401_and_who_may_not_is_403_in_upstreams_words() {
    let f = fixture();
    let as_user = |token: &'static str| [("authorization", token)];
    let (code, v) = f.json(request(Method::GET, MAPS, &as_user("Bearer bad"), "")).await;
    assert_eq!((code, v["reason"].as_str(), v["message"].as_str()), (401, Some("Unauthorized"), Some("Unauthorized")));
    let (code, v) = f.json(request(Method::GET, MAPS, &as_user("Bearer bob"), "")).await;
    let text = r#"configmaps is forbidden: User "bob" cannot list resource "configmaps" in API group "" in the namespace "default""#;
    assert_eq!((code, v["message"].as_str()), (403, Some(text)));
    // Without credentials it is system:anonymous who asks.
    let (code, v) = f.json(request(Method::GET, "/metrics", &as_user(""), "")).await;
    assert_eq!(
        (code, v["message"].as_str()),
        (403, Some(r#"forbidden: User "system:anonymous" cannot get path "/metrics""#))
    );
    assert_eq!(f.json(request(Method::GET, "/version", &as_user(""), "")).await.1["gitVersion"], "v1.37.0+triarch");
}

#[tokio::test]
async fn bad_input_is_refused_by_name_and_leaves_nothing() {
    let f = fixture();
    let post = |kind: &'static str, body: Bytes| request(Method::POST, MAPS, &[("content-type", kind)], body);
    let cases: Vec<(_, u16, &str)> = vec![
        (
            post("text/x", Bytes::from_static(b"x")),
            415,
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
        (
            post("application/json", Bytes::from_static(b"{")),
            400,
            "the object provided is unrecognized (must be of type ConfigMap)",
        ),
        (
            post("application/json", Bytes::from(vec![b'a'; 3 * 1024 * 1024 + 1])),
            413,
            "Request entity is too large: limit is 3145728",
        ),
        (
            post("application/json", Bytes::from("{\"data\":".repeat(200_000))),
            400,
            "the object provided is unrecognized",
        ),
        (
            post("application/json", Bytes::from_static(br#"{"metadata":{"name":"x"},"data":{"a":1}}"#)),
            400,
            "json: cannot unmarshal number into Go struct field",
        ),
        (
            post("application/vnd.kubernetes.protobuf", Bytes::from_static(b"k8s\0\xff\xff")),
            400,
            "the object provided is unrecognized",
        ),
        (
            post("application/json", Bytes::from_static(br#"{"metadata":{"name":"NO"}}"#)),
            422,
            "ConfigMap \"NO\" is invalid: metadata.name: Invalid value: \"NO\": a lowercase RFC 1123 subdomain",
        ),
        (
            request(Method::GET, MAPS, &[("accept", "application/vnd.kubernetes.protobuf")], ""),
            406,
            "only the following media types are accepted: application/json",
        ),
        (
            request(Method::POST, "/api/v1/configmaps", &[], "{}"),
            405,
            "the server does not allow this method on the requested resource",
        ),
        (request(Method::PUT, MAPS, &[], "{}"), 405, "the server does not allow this method on the requested resource"),
        (
            request(Method::GET, &format!("{MAPS}?limit=x"), &[], ""),
            400,
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (request(Method::GET, &format!("{MAPS}?continue=x"), &[], ""), 400, "continue key is not valid"),
        (request(Method::GET, &format!("{MAPS}?fieldSelector=a%3Db"), &[], ""), 400, "is not a known field selector"),
        (
            request(Method::GET, &format!("{MAPS}?labelSelector=a%3D%3D%3Db"), &[], ""),
            400,
            "unable to parse requirement",
        ),
        (
            request(Method::PATCH, &format!("{MAPS}/x"), &[("content-type", "application/apply-patch+yaml")], "{}"),
            415,
            "application/strategic-merge-patch+json (server-side apply is not served yet",
        ),
    ];
    for (request, want, text) in cases {
        let label = format!("{} {}", request.method(), request.uri());
        let (code, v) = f.json(request).await;
        assert_eq!(code, want, "{label}: {v}");
        assert!(v["message"].as_str().unwrap_or_default().contains(text), "{label}: {v}");
        assert_eq!(v["kind"], "Status");
    }
    assert_eq!(f.get("/nope").await, (404, "404 page not found\n".into()));
    assert_eq!(f.get("/api/v1/namespaces/default/widgets").await.0, 404);
    assert_eq!(f.get(MAPS).await.1["items"], json!([]));
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_errors_or_warnings_as_asked() {
    let f = fixture();
    let body =
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"foo":1,"data":{"k":"1"},"data":{"k":"2"}}"#;
    let send =
        |query: &str| request(Method::POST, &format!("{MAPS}?{query}"), &[("content-type", "application/json")], body);
    let (code, v) = f.json(send("fieldValidation=Strict")).await;
    let text = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"foo\", duplicate field \"data\"";
    assert_eq!((code, v["message"].as_str()), (400, Some(text)));
    let warned = f.send(send("fieldValidation=Warn&dryRun=All")).await;
    assert_eq!(warned.status(), 201);
    let warnings: Vec<&str> = warned.headers().get_all("warning").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(warnings, ["299 - \"unknown field \\\"foo\\\"\"", "299 - \"duplicate field \\\"data\\\"\""]);
    assert!(f.send(send("fieldValidation=Ignore&dryRun=All")).await.headers().get("warning").is_none());
    assert_eq!(f.get(&format!("{MAPS}/a")).await.0, 404, "a dry run stores nothing");
}

#[tokio::test]
async fn json_yaml_and_protobuf_bodies_make_the_same_object() {
    let f = fixture();
    let ty = triarch_api::schema::lookup("core/v1.ConfigMap").unwrap();
    let value = config_map("p", "1");
    let raw = triarch_api::protobuf::encode(ty, &value);
    let protobuf = triarch_api::protobuf::envelope("v1", "ConfigMap", &raw);
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\n  labels: {v: '1'}\ndata:\n  k: '1'\n";
    let (code, first) = f.post(MAPS, &config_map("j", "1")).await;
    assert_eq!(code, 201);
    let sent = |kind: &'static str, body: Vec<u8>| request(Method::POST, MAPS, &[("content-type", kind)], body);
    let (code, second) = f.json(sent("application/vnd.kubernetes.protobuf", protobuf)).await;
    assert_eq!(code, 201, "{second}");
    let (code, third) = f.json(sent("application/yaml", yaml.into())).await;
    assert_eq!(code, 201, "{third}");
    assert_eq!((&first["data"], &first["metadata"]["labels"]), (&second["data"], &second["metadata"]["labels"]));
    assert_eq!((&first["data"], &first["metadata"]["labels"]), (&third["data"], &third["metadata"]["labels"]));
}

#[tokio::test]
async fn an_object_has_its_table_its_metadata_and_an_indented_form() {
    let f = fixture();
    f.post(MAPS, &config_map("a", "1")).await;
    let form = |accept: &str, path: &str| request(Method::GET, path, &[("accept", accept)], "");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let (_, v) = f.json(form(table, MAPS)).await;
    assert_eq!((v["kind"].as_str(), v["rows"][0]["cells"][0].as_str()), (Some("Table"), Some("a")));
    assert_eq!(v["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let (_, v) = f.json(form(table, &format!("{MAPS}/a?includeObject=Object"))).await;
    assert_eq!(v["rows"][0]["object"]["data"]["k"], "1");
    let (_, v) = f.json(form(table, &format!("{MAPS}?includeObject=None"))).await;
    assert!(v["rows"][0]["object"].is_null());
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let (_, v) = f.json(form(partial, MAPS)).await;
    assert_eq!(
        (v["kind"].as_str(), v["items"][0]["metadata"]["name"].as_str()),
        (Some("PartialObjectMetadataList"), Some("a"))
    );
    assert!(v["items"][0].get("data").is_none());
    let curl = f.send(request(Method::GET, MAPS, &[("user-agent", "curl/8")], "")).await;
    assert!(bytes(curl).await.starts_with(b"{\n  \"kind\": \"ConfigMapList\",\n"));
    let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let only_table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"), ("content-type", "application/json")];
    let (code, _) = f
        .json(request(
            Method::POST,
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            &only_table,
            review.to_string(),
        ))
        .await;
    assert_eq!(code, 406);
}

#[tokio::test]
async fn patches_scale_and_status_go_through_their_own_doors() {
    let f = fixture();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let (code, made) = f.post(path, &deployment).await;
    assert_eq!((code, &made["spec"]["replicas"], &made["spec"]["revisionHistoryLimit"]), (201, &json!(1), &json!(10)));
    let patch = |sub: &str, kind: &str, body: &'static str| {
        request(Method::PATCH, &format!("{path}/d{sub}"), &[("content-type", kind)], body)
    };
    let strategic = r#"{"spec":{"template":{"spec":{"containers":[{"name":"x","image":"y"}]}}}}"#;
    let (code, v) = f.json(patch("", "application/strategic-merge-patch+json", strategic)).await;
    assert_eq!((code, v["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len)), (200, Some(2)));
    let (_, v) = f.json(patch("/scale", "application/merge-patch+json", r#"{"spec":{"replicas":4}}"#)).await;
    assert_eq!((v["kind"].as_str(), &v["spec"]["replicas"]), (Some("Scale"), &json!(4)));
    let (_, v) = f
        .json(patch("/status", "application/merge-patch+json", r#"{"status":{"replicas":4},"spec":{"replicas":9}}"#))
        .await;
    assert_eq!((&v["status"]["replicas"], &v["spec"]["replicas"]), (&json!(4), &json!(4)));
    let (code, _) =
        f.json(patch("", "application/json-patch+json", r#"[{"op":"test","path":"/spec/replicas","value":1}]"#)).await;
    assert_eq!(code, 422);
    let (code, v) = f
        .json(request(
            Method::DELETE,
            &format!("{path}/d"),
            &[("content-type", "application/json")],
            r#"{"kind":"DeleteOptions","apiVersion":"apps/v1","propagationPolicy":"Foreground"}"#,
        ))
        .await;
    assert_eq!((code, &v["metadata"]["finalizers"]), (200, &json!(["foregroundDeletion"])));
}

#[tokio::test]
async fn discovery_says_the_same_in_both_forms_and_answers_304() {
    let f = fixture();
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")];
    let mut aggregated = Vec::new();
    for path in ["/api", "/apis"] {
        let r = f.send(request(Method::GET, path, &accept, "")).await;
        assert_eq!(r.headers()["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
        let etag = r.headers()["etag"].to_str().unwrap().to_owned();
        let again = f.send(request(Method::GET, path, &[accept[0], ("if-none-match", &etag)], "")).await;
        assert_eq!(again.status(), 304);
        let v = body(r).await;
        for group in v["items"].as_array().unwrap() {
            for version in group["versions"].as_array().unwrap() {
                for r in version["resources"].as_array().unwrap() {
                    let name = |sub: &str| {
                        format!(
                            "{}/{}/{}{sub}",
                            group["metadata"]["name"].as_str().unwrap_or(""),
                            version["version"].as_str().unwrap(),
                            r["resource"].as_str().unwrap()
                        )
                    };
                    aggregated.push(name(""));
                    let subs = r["subresources"].as_array().cloned().unwrap_or_default();
                    aggregated.extend(subs.iter().map(|s| name(&format!("/{}", s["subresource"].as_str().unwrap()))));
                }
            }
        }
    }
    let mut legacy = Vec::new();
    let mut versions = vec![("/api/v1".to_owned(), "/v1".to_owned())];
    for group in f.get("/apis").await.1["groups"].as_array().unwrap() {
        let version = group["preferredVersion"]["groupVersion"].as_str().unwrap();
        versions.push((format!("/apis/{version}"), version.to_owned()));
    }
    for (path, prefix) in versions {
        let (code, v) = f.get(&path).await;
        assert_eq!(code, 200, "{path}");
        legacy.extend(
            v["resources"].as_array().unwrap().iter().map(|r| format!("{prefix}/{}", r["name"].as_str().unwrap())),
        );
    }
    aggregated.sort();
    legacy.sort();
    assert_eq!(aggregated, legacy);
    assert!(legacy.contains(&"apps/v1/deployments/scale".to_owned()));
}

#[tokio::test]
async fn openapi_documents_are_addressed_by_hash_and_say_who_validates() {
    let f = fixture();
    let (_, root) = f.get("/openapi/v3").await;
    let paths = root["paths"].as_object().unwrap();
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/apps/v1"));
    for path in ["api/v1", "apis/apps/v1"] {
        let url = paths[path]["serverRelativeURL"].as_str().unwrap();
        let r = f.send(request(Method::GET, url, &[], "")).await;
        assert_eq!((r.status().as_u16(), r.headers()["cache-control"].to_str().unwrap()), (200, "public, immutable"));
        assert!(body(r).await["components"]["schemas"].as_object().unwrap().len() > 10);
        let stale = f.send(request(Method::GET, &format!("/openapi/v3/{path}?hash=00"), &[], "")).await;
        assert_eq!((stale.status().as_u16(), stale.headers()["location"].to_str().unwrap()), (301, url));
    }
    let (_, v2) = f.get("/openapi/v2").await;
    let patch = v2["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"].clone();
    let parameters: Vec<&str> =
        patch["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    assert!(parameters.contains(&"fieldValidation") && parameters.contains(&"dryRun"), "{parameters:?}");
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let r = f.send(request(Method::GET, "/openapi/v2", &[("accept", protobuf)], "")).await;
    assert!(r.headers()["content-type"].to_str().unwrap().contains("protobuf"));
}

#[tokio::test]
async fn health_metrics_and_audit_tell_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let mut p = parts();
    p.audit = Audit::open(AuditConfig { path: path.clone(), max_bytes: 1 << 20, max_files: 1 }).unwrap();
    p.checks.push(Check::new("caught-up", false, || Err("behind".into())));
    let f = start(p);
    let (code, text) = f.get("/readyz?verbose").await;
    assert_eq!(
        (code, text.as_str()),
        (500, Some("[+]ping ok\n[+]store ok\n[-]caught-up failed: reason withheld\nreadyz check failed\n"))
    );
    assert_eq!(f.get("/livez").await, (200, "ok".into()));
    let r = f
        .send(request(
            Method::POST,
            MAPS,
            &[("content-type", "application/json"), ("audit-id", "my-id"), ("user-agent", "test/1")],
            config_map("a", "1").to_string(),
        ))
        .await;
    assert_eq!(r.headers()["audit-id"], "my-id");
    assert!(r.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
    let (_, text) = f.get("/metrics").await;
    let wanted = r#"apiserver_request_total{verb="create",group="",version="v1",resource="configmaps",subresource="",code="201"} 1"#;
    assert!(text.as_str().unwrap().contains(wanted), "{text}");
    drop(f);
    let mut event = Value::Null;
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let log = std::fs::read_to_string(&path).unwrap();
        let found = log.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).find(|e| e["auditID"] == "my-id");
        if let Some(found) = found {
            event = found;
            break;
        }
    }
    assert_eq!(
        (event["verb"].as_str(), event["user"]["username"].as_str(), &event["responseStatus"]["code"]),
        (Some("create"), Some("admin"), &json!(201))
    );
    assert_eq!(event["objectRef"], json!({"resource": "configmaps", "apiVersion": "v1", "namespace": "default"}));
    assert_eq!(
        (event["sourceIPs"][0].as_str(), event["userAgent"].as_str(), event["level"].as_str()),
        (Some("192.0.2.1"), Some("test/1"), Some("Metadata"))
    );
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_when_to_come_back() {
    let mut p = parts();
    p.limits = Limits { inflight_mutating: 0, ..Limits::default() };
    let f = start(p);
    let r = f.send(request(Method::POST, MAPS, &[], "{}")).await;
    assert_eq!((r.status().as_u16(), r.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(f.get(MAPS).await.0, 200, "reads have a limit of their own");
}
