//! Bad input: for each sort of it the exact Status that clients get, and that
//! nothing is left of the request.

mod common;

use bytes::Bytes;
use common::*;
use http::Method;
use http_body_util::Full;
use serde_json::{Value, json};
use triarch_mvcc::{Op, Txn};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON: (&str, &str) = ("content-type", "application/json");

type Sent = http::Request<Full<Bytes>>;

/// A Status; `details` is left out when it is null.
fn failure(code: u16, reason: &str, message: &str, details: Value) -> Value {
    let mut v = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    if !details.is_null() {
        v["details"] = details;
    }
    v
}

fn bad(message: &str) -> Value {
    failure(400, "BadRequest", message, Value::Null)
}

/// `Kind.group "name" is invalid: field: body` with its one cause.
fn invalid(kind: &str, group: &str, name: &str, reason: &str, field: &str, body: &str) -> Value {
    let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    let mut details = json!({"kind": kind, "causes": [{"reason": reason, "message": body, "field": field}]});
    for (key, v) in [("group", group), ("name", name)] {
        if !v.is_empty() {
            details[key] = v.into();
        }
    }
    failure(422, "Invalid", &format!("{qualified} {name:?} is invalid: {field}: {body}"), details)
}

fn post(body: impl Into<Bytes>) -> Sent {
    request(Method::POST, MAPS, &[JSON], body)
}

fn get(path: &str) -> Sent {
    request(Method::GET, path, &[], "")
}

async fn expect(f: &Fixture, cases: Vec<(&str, Sent, Value)>) {
    for (what, request, want) in cases {
        let label = format!("{what}: {} {}", request.method(), request.uri());
        let (code, have) = f.json(request).await;
        assert_eq!(have, want, "{label}");
        assert_eq!(u64::from(code), want["code"].as_u64().unwrap(), "{label}");
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_told_where_they_go_wrong() {
    let f = fixture();
    let unknown = |why: &str| bad(&format!("the object provided is unrecognized (must be of type ConfigMap): {why}"));
    let no_type = |why: &str| unknown(&format!("couldn't get version/kind; json parse error: {why}"));
    let cannot = |why: &str| bad(&format!("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: {why}"));
    let deep = format!("{{\"metadata\":{{\"name\":\"deep\"}},\"x\":{}", "[".repeat(20_000));
    let go = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let yaml = |body: &'static str| request(Method::POST, MAPS, &[("content-type", "application/yaml")], body);
    let protobuf = |body: &'static [u8]| {
        request(Method::POST, MAPS, &[("content-type", "application/vnd.kubernetes.protobuf")], body)
    };
    let too_large = failure(413, "RequestEntityTooLarge", "Request entity is too large: limit is 3145728", Value::Null);
    let types = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let patches = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";
    expect(
        &f,
        vec![
            ("nothing", post(""), no_type("unexpected end of JSON input (<empty>)")),
            ("half an object", post("{"), no_type("unexpected end of JSON input ({)")),
            (
                "no JSON",
                post("{\"metadata\": {\"name\": nonsense}}"),
                no_type("invalid character 'o' in literal null (expecting 'u') ({\"metadata\": {\"name\": nonsense ...)"),
            ),
            ("binary", post(&b"\x01\x02"[..]), no_type("invalid character '\\x01' looking for beginning of value (0102)")),
            (
                "a string",
                post("\"x\""),
                no_type(&format!("json: cannot unmarshal string into Go value of type {go} (227822)")),
            ),
            (
                "a list",
                post("[]"),
                no_type(&format!("json: cannot unmarshal array into Go value of type {go} (5b5d)")),
            ),
            (
                "a kind that is a number",
                post(r#"{"kind":1}"#),
                no_type("json: cannot unmarshal number into Go struct field .kind of type string ({\"kind\":1})"),
            ),
            ("too deep", post(deep), no_type("exceeded max depth ({\"metadata\":{\"name\":\"deep\"},\"x ...)")),
            ("too large", post(vec![b' '; 3 * 1024 * 1024 + 1]), too_large),
            (
                "a wrong type",
                post(r#"{"metadata":{"name":"x"},"data":{"a":1}}"#),
                cannot("json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
            ),
            (
                "a wrong container",
                post(r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":[]}"#),
                cannot("json: cannot unmarshal array into Go struct field ConfigMap.metadata of type v1.ObjectMeta"),
            ),
            (
                "another kind",
                post(r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"x"}}"#),
                bad("Deployment in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Deployment) to (core.ConfigMap): unknown conversion"),
            ),
            (
                "another version",
                post(r#"{"kind":"ConfigMap","apiVersion":"v2","metadata":{"name":"x"}}"#),
                bad("the API version in the data (v2) does not match the expected API version (v1)"),
            ),
            (
                "a strict decoder",
                request(Method::POST, &format!("{MAPS}?fieldValidation=Strict"), &[JSON], r#"{"metadata":{"name":"x","lables":{}},"Data":{}}"#),
                cannot("strict decoding error: unknown field \"metadata.lables\", unknown field \"Data\""),
            ),
            ("broken YAML", yaml("a: [1"), {
                let (_, have) = f.json(yaml("a: [1")).await;
                // The parser's own words follow; the place is upstream's.
                let text = have["message"].as_str().unwrap_or_default().to_owned();
                assert!(text.starts_with("the object provided is unrecognized (must be of type ConfigMap): yaml: line "), "{have}");
                bad(&text)
            }),
            ("broken protobuf", protobuf(b"k8s\0\xff\xff"), unknown("unexpected EOF (6b387300ffff)")),
            (
                "no protobuf",
                protobuf(b"abc"),
                unknown("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (616263)"),
            ),
            (
                "a media type of nobody",
                request(Method::POST, MAPS, &[("content-type", "text/x")], "x"),
                failure(415, "UnsupportedMediaType", types, Value::Null),
            ),
            (
                "a patch that is none",
                request(Method::PATCH, &format!("{MAPS}/a"), &[JSON], "{}"),
                failure(415, "UnsupportedMediaType", patches, Value::Null),
            ),
            (
                "only protobuf will do",
                request(Method::GET, MAPS, &[("accept", "application/vnd.kubernetes.protobuf")], ""),
                failure(
                    406,
                    "NotAcceptable",
                    "only the following media types are accepted: application/json",
                    Value::Null,
                ),
            ),
        ],
    )
    .await;
    assert_eq!(f.get(MAPS).await.1["items"], json!([]), "nothing was left");
    // What nobody keeps may nest: it is reported as unknown, not refused.
    let deep = format!("{{\"metadata\":{{\"name\":\"deep\"}},\"x\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let made = f.send(post(deep)).await;
    assert_eq!(made.status(), 201);
    assert_eq!(made.headers()["warning"], "299 - \"unknown field \\\"x\\\"\"");
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_told_apart() {
    let f = fixture();
    let no_method = || {
        failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", json!({}))
    };
    let no_resource = || failure(404, "NotFound", "the server could not find the requested resource", json!({}));
    let on = |method: Method, path: &str| request(method, path, &[JSON], "{}");
    expect(
        &f,
        vec![
            ("create in all namespaces", on(Method::POST, "/api/v1/configmaps"), no_method()),
            ("update a collection", on(Method::PUT, MAPS), no_method()),
            ("create by name", on(Method::POST, &format!("{MAPS}/a")), no_method()),
            ("delete all namespaces", on(Method::DELETE, "/api/v1/namespaces"), no_method()),
            ("read a review", get("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"), no_method()),
            ("options", on(Method::OPTIONS, MAPS), no_method()),
            ("no such resource", get("/api/v1/namespaces/default/widgets"), no_resource()),
            ("no such subresource", get(&format!("{MAPS}/a/scale")), no_resource()),
            ("no namespace in the path", get("/api/v1/configmaps/a"), no_resource()),
            ("a namespace too many", get("/api/v1/namespaces/default/nodes"), no_resource()),
            (
                "no such object",
                get(&format!("{MAPS}/a")),
                failure(404, "NotFound", "configmaps \"a\" not found", json!({"name": "a", "kind": "configmaps"})),
            ),
            (
                "no such object of a group",
                get("/apis/apps/v1/namespaces/default/deployments/a"),
                failure(
                    404,
                    "NotFound",
                    "deployments.apps \"a\" not found",
                    json!({"name": "a", "group": "apps", "kind": "deployments"}),
                ),
            ),
            (
                "a name that is none",
                get(&format!("{MAPS}/..%2Fsecrets")),
                bad("Name parameter invalid: \"../secrets\": may not contain '/'"),
            ),
            (
                "a percent sign",
                get(&format!("{MAPS}/a%25b")),
                bad("Name parameter invalid: \"a%b\": may not contain '%'"),
            ),
        ],
    )
    .await;
    for path in
        ["/apis/nobody.example.com/v1/widgets", "/apis/apps/v99/deployments", "/apis/nobody.example.com", "/nope"]
    {
        assert_eq!(f.get(path).await, (404, "404 page not found\n".into()), "{path}");
    }
}

#[tokio::test]
async fn options_that_make_no_sense_are_named() {
    let f = fixture();
    let options =
        |kind: &str, reason: &str, field: &str, body: &str| invalid(kind, "meta.k8s.io", "", reason, field, body);
    let list = |query: &str| get(&format!("{MAPS}?{query}"));
    let create =
        |query: &str| request(Method::POST, &format!("{MAPS}?{query}"), &[JSON], r#"{"metadata":{"name":"x"}}"#);
    let forbidden = |text: &str| {
        options("ListOptions", "FieldValueForbidden", "resourceVersionMatch", &format!("Forbidden: {text}"))
    };
    expect(
        &f,
        vec![
            ("labels", list("labelSelector=a%20in"), bad("unable to parse requirement: found '' expected: '('")),
            ("labels", list("labelSelector=a%20b"), bad("unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt")),
            (
                "a label that is none",
                list("labelSelector=a%3D-"),
                bad("unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"),
            ),
            ("fields", list("fieldSelector=a"), bad("invalid selector: 'a'; can't understand 'a'")),
            (
                "a field that is not selectable",
                list("fieldSelector=data.a%3Db"),
                bad("\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
            ),
            (
                "a field that pods do not offer",
                get(&format!("{PODS}?fieldSelector=spec.hostname%3Db")),
                bad("field label not supported: spec.hostname"),
            ),
            ("limit", list("limit=x"), bad("strconv.ParseInt: parsing \"x\": invalid syntax")),
            ("limit", list("limit=99999999999999999999"), bad("strconv.ParseInt: parsing \"99999999999999999999\": value out of range")),
            ("time", list("timeoutSeconds=1s"), bad("strconv.ParseInt: parsing \"1s\": invalid syntax")),
            ("continue", list("continue=x"), bad("invalid continue token: continue key is not valid: illegal base64 data at input byte 0")),
            ("continue", list("continue=ab%25"), bad("invalid continue token: continue key is not valid: illegal base64 data at input byte 2")),
            (
                "fieldValidation",
                create("fieldValidation=Loose"),
                options("CreateOptions", "FieldValueNotSupported", "fieldValidation", "Unsupported value: \"Loose\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""),
            ),
            (
                "dryRun",
                create("dryRun=Some"),
                options("CreateOptions", "FieldValueNotSupported", "dryRun", "Unsupported value: [\"Some\"]: supported values: \"All\""),
            ),
            (
                "dryRun of a delete",
                request(Method::DELETE, &format!("{MAPS}/a?dryRun=Some"), &[], ""),
                options("DeleteOptions", "FieldValueNotSupported", "dryRun", "Unsupported value: [\"Some\"]: supported values: \"All\""),
            ),
            (
                "fieldManager",
                create(&format!("fieldManager={}", "m".repeat(129))),
                options("CreateOptions", "FieldValueTooLong", "fieldManager", "Too long: may not be more than 128 bytes"),
            ),
            (
                "match of nothing",
                list("resourceVersionMatch=Exact"),
                forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"),
            ),
            (
                "exactly any",
                list("resourceVersionMatch=Exact&resourceVersion=0"),
                forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
            ),
            (
                "a match that is none",
                list("resourceVersionMatch=Older&resourceVersion=1"),
                options("ListOptions", "FieldValueNotSupported", "resourceVersionMatch", "Unsupported value: \"Older\": supported values: \"Exact\", \"NotOlderThan\", \"\""),
            ),
            (
                "initial events of a list",
                list("sendInitialEvents=true"),
                options("ListOptions", "FieldValueForbidden", "sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list"),
            ),
            (
                "initial events without a match",
                list("watch=1&sendInitialEvents=true"),
                forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
            ),
            (
                "a match without initial events",
                list("watch=1&resourceVersion=1&resourceVersionMatch=NotOlderThan"),
                forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"),
            ),
            (
                "propagation",
                request(Method::DELETE, &format!("{MAPS}/a?propagationPolicy=Sideways"), &[], ""),
                options("DeleteOptions", "FieldValueNotSupported", "propagationPolicy", "Unsupported value: \"Sideways\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""),
            ),
        ],
    )
    .await;
    assert_eq!(f.get(MAPS).await.1["items"], json!([]));
}

#[tokio::test]
async fn names_and_revisions_that_disagree_are_refused() {
    let f = fixture();
    let (_, first) = f.post(MAPS, &config_map("a", "1")).await;
    let put = |name: &str, v: &Value| request(Method::PUT, &format!("{MAPS}/{name}"), &[JSON], v.to_string());
    let mut newer = first.clone();
    newer["data"]["k"] = "2".into();
    let (code, newer) = f.json(put("a", &newer)).await;
    assert_eq!(code, 200);
    let details = json!({"name": "a", "kind": "configmaps"});
    let (mut stale, mut reborn, mut odd) = (first.clone(), newer.clone(), newer.clone());
    stale["data"]["k"] = "3".into();
    reborn["metadata"]["uid"] = "other".into();
    odd["metadata"]["resourceVersion"] = "x".into();
    let uid = newer["metadata"]["uid"].as_str().unwrap();
    let mut elsewhere = newer.clone();
    elsewhere["metadata"]["namespace"] = "other".into();
    let mut versioned = config_map("b", "1");
    versioned["metadata"]["resourceVersion"] = "5".into();
    let delete = |body: Value| request(Method::DELETE, &format!("{MAPS}/a"), &[JSON], body.to_string());
    let precondition = |what: Value| json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": what});
    let conflict = |kind: &str, why: &str| {
        let message = format!("Operation cannot be fulfilled on {kind} \"a\": {why}");
        failure(409, "Conflict", &message, json!({"name": "a", "kind": kind}))
    };
    let rv = newer["metadata"]["resourceVersion"].as_str().unwrap();
    expect(
        &f,
        vec![
            (
                "an old revision",
                put("a", &stale),
                conflict("configmaps", "the object has been modified; please apply your changes to the latest version and try again"),
            ),
            (
                "another uid",
                put("a", &reborn),
                conflict("configmaps", &format!("Precondition failed: UID in precondition: other, UID in object meta: {uid}")),
            ),
            (
                "another name",
                put("b", &newer),
                bad("the name of the object (a) does not match the name on the URL (b)"),
            ),
            (
                "no name",
                put("a", &json!({"data": {}})),
                bad("the name of the object (a based on URL) was undeterminable: name must be provided"),
            ),
            (
                "another namespace",
                put("a", &elsewhere),
                bad("the namespace of the object (other) does not match the namespace on the request (default)"),
            ),
            (
                "created elsewhere",
                post(json!({"metadata": {"name": "b", "namespace": "other"}}).to_string()),
                bad("the namespace of the provided object does not match the namespace sent on the request"),
            ),
            (
                "there already",
                post(config_map("a", "1").to_string()),
                failure(409, "AlreadyExists", "configmaps \"a\" already exists", details.clone()),
            ),
            (
                "a name that is none",
                post(r#"{"metadata":{"name":"NO"}}"#),
                invalid("ConfigMap", "", "NO", "FieldValueInvalid", "metadata.name", "Invalid value: \"NO\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"),
            ),
            (
                "no name at all",
                post("{}"),
                invalid("ConfigMap", "", "", "FieldValueRequired", "metadata.name", "Required value: name or generateName is required"),
            ),
            (
                "deleted by another uid",
                delete(precondition(json!({"uid": "other"}))),
                conflict("ConfigMap", &format!("the UID in the precondition (other) does not match the UID in record ({uid}). The object might have been deleted and then recreated")),
            ),
            (
                "deleted by an old revision",
                delete(precondition(json!({"resourceVersion": "1"}))),
                conflict("ConfigMap", &format!("the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({rv}). The object might have been modified")),
            ),
        ],
    )
    .await;
    let (code, _) = f.json(put("a", &odd)).await;
    assert_eq!(code, 422);
    let (code, v) = f.json(post(versioned.to_string())).await;
    assert_eq!(
        (code, v["message"].as_str()),
        (500, Some("resourceVersion should not be set on objects to be created"))
    );
    assert_eq!(f.get(&format!("{MAPS}/a")).await.1, newer, "nothing was changed");
}

#[tokio::test]
async fn revisions_that_are_gone_or_to_come_say_how_to_go_on() {
    let f = fixture();
    for name in ["a", "b", "c"] {
        f.post(MAPS, &config_map(name, "1")).await;
    }
    let (_, page) = f.get(&format!("{MAPS}?limit=1")).await;
    let (old, token) = (&page["metadata"]["resourceVersion"], page["metadata"]["continue"].as_str().unwrap());
    f.post(MAPS, &config_map("d", "1")).await;
    let head = f.registry.mvcc().revision();
    f.registry.db().commit(Txn { ops: vec![Op::Compact(head)], ..Txn::default() }).await.unwrap();
    let old = old.as_str().unwrap();
    let gone = failure(410, "Expired", "The resourceVersion for the provided list is too old.", Value::Null);
    expect(&f, vec![("gone", get(&format!("{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")), gone)]).await;
    let (code, mut expired) = f.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    let next = expired["metadata"]["continue"].as_str().expect("a token that goes on").to_owned();
    expired["metadata"] = json!({});
    let text = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
    assert_eq!((code, expired), (410, failure(410, "Expired", text, Value::Null)));
    let (code, rest) = f.get(&format!("{MAPS}?continue={next}")).await;
    let names: Vec<&str> =
        rest["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!((code, names), (200, vec!["b", "c", "d"]));
    let future = head + 1_000;
    let text = format!("Timeout: Too large resource version: {future}, current: {head}");
    let details = json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    });
    let too_large = failure(504, "Timeout", &text, details);
    expect(&f, vec![("to come", get(&format!("{MAPS}?resourceVersion={future}")), too_large)]).await;
    let continued = get(&format!("{MAPS}?continue={next}&resourceVersion=5"));
    let text = "specifying resource version is not allowed when using continue";
    expect(&f, vec![("both", continued, bad(text))]).await;
}
