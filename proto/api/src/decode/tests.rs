use serde_json::json;

use super::*;
use crate::schema::lookup;

fn ty(name: &str) -> &'static Type {
    lookup(name).unwrap()
}

fn read(name: &str, text: &str) -> Result<Decoded, DecodeError> {
    json(ty(name), text.as_bytes(), Strictness::Strict, &Limits::default())
}

fn error(name: &str, text: &str) -> String {
    read(name, text).unwrap_err().to_string()
}

#[test]
fn unknown_and_duplicate_fields_are_listed_at_once_with_their_paths() {
    let d = read(
        "apps/v1.Deployment",
        r#"{"spec":{"foo":1,"replicas":1,"replicas":2,"template":{"spec":{"containers":[{"name":"a"},{"name":"b","imagee":"x"}]}}},
            "metadata":{"labels":{"a":"1","a":"2"}},"Spec":{}}"#,
    )
    .unwrap();
    assert_eq!(
        d.strict_message().unwrap(),
        r#"strict decoding error: unknown field "spec.foo", duplicate field "spec.replicas", unknown field "spec.template.spec.containers[1].imagee", duplicate field "metadata.labels.a", unknown field "Spec""#
    );
    assert_eq!(d.value["spec"]["replicas"], 2);
    assert!(d.value["spec"].get("foo").is_none());
    let loose = json(ty("apps/v1.Deployment"), br#"{"x":1}"#, Strictness::Ignore, &Limits::default()).unwrap();
    assert_eq!(loose.strict_errors, Vec::<String>::new());
}

#[test]
fn type_errors_read_as_gos_do() {
    assert_eq!(
        error("apps/v1.Deployment", r#"{"spec":{"replicas":"x"}}"#),
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    assert_eq!(
        error("apps/v1.Deployment", r#"{"spec":{"template":{"spec":{"containers":[{"image":3}]}}}}"#),
        "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type string"
    );
    assert_eq!(
        error("core/v1.Pod", r#"{"spec":{"containers":{}}}"#),
        "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"
    );
    assert_eq!(
        error("core/v1.Pod", r#"{"metadata":{"labels":{"a":1}}}"#),
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"
    );
    assert_eq!(
        error("core/v1.Pod", r#"{"spec":{"priority":3000000000}}"#),
        "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32"
    );
    assert_eq!(
        error("core/v1.Pod", r#"{"spec":{"volumes":[{"hostPath":{"path":3}}]}}"#),
        "json: cannot unmarshal number into Go struct field HostPathVolumeSource.spec.volumes.VolumeSource.hostPath.path of type string"
    );
    assert_eq!(
        error("core/v1.Pod", r#"{"kind":3}"#),
        "json: cannot unmarshal number into Go struct field Pod.TypeMeta.kind of type string"
    );
    assert_eq!(
        error("core/v1.Pod", r#"{"metadata":{"creationTimestamp":3}}"#),
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string"
    );
    assert_eq!(
        error("core/v1.Secret", r#"{"data":{"a":3}}"#),
        "json: cannot unmarshal number into Go struct field Secret.data of type []uint8"
    );
    assert_eq!(error("core/v1.Secret", r#"{"data":{"a":"YQ="}}"#), "illegal base64 data at input byte 3");
    assert_eq!(error("core/v1.Pod", "[]"), "json: cannot unmarshal array into Go value of type v1.Pod");
    assert!(
        error("core/v1.Pod", r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}"#)
            .starts_with("quantities must match the regular expression")
    );
    assert_eq!(error("core/v1.Secret", r#"{"data":{"a":"?"}}"#), "illegal base64 data at input byte 0");
}

#[test]
fn malformed_text_reads_as_gos_errors_do() {
    assert_eq!(error("core/v1.Pod", ""), "unexpected end of JSON input");
    assert_eq!(error("core/v1.Pod", "{"), "unexpected end of JSON input");
    assert_eq!(error("core/v1.Pod", "nope"), "invalid character 'o' in literal null (expecting 'u')");
    assert_eq!(error("core/v1.Pod", "]"), "invalid character ']' looking for beginning of value");
    assert_eq!(error("core/v1.Pod", r#"{"a":tru}"#), "invalid character '}' in literal true (expecting 'e')");
    assert_eq!(error("core/v1.Pod", r#"{"a":1,}"#), "invalid character '}' looking for beginning of object key string");
    assert_eq!(error("core/v1.Pod", r#"{"a":[1,]}"#), "invalid character ']' looking for beginning of value");
    assert_eq!(error("core/v1.Pod", "{\"a\":\"\n\"}"), "invalid character '\\n' in string literal");
    assert_eq!(error("core/v1.Pod", r#"{"a" 1}"#), "invalid character '1' after object key");
    assert_eq!(error("core/v1.Pod", "{} x"), "invalid character 'x' after top-level value");
}

#[test]
fn nulls_in_structs_are_as_good_as_absent() {
    let d = read("core/v1.Pod", r#"{"metadata":{"creationTimestamp":null,"name":"x"},"spec":null}"#).unwrap();
    assert_eq!(d.value, json!({"metadata": {"name": "x"}}));
}

#[test]
fn inputs_are_bounded_in_size_and_depth() {
    let deep = format!("{}{}", r#"{"a":"#.repeat(100_000), "1");
    let limits = Limits { max_bytes: 10 << 20, ..Limits::default() };
    assert_eq!(json_untyped(deep.as_bytes(), Strictness::Warn, &limits), Err(DecodeError::TooDeep));
    let small = Limits { max_bytes: 4, ..Limits::default() };
    assert_eq!(json_untyped(b"{    }", Strictness::Warn, &small), Err(DecodeError::TooLarge { limit: 4 }));
    // What is not kept may nest as deep as Go's parser goes.
    let nested = |n: usize| format!(r#"{{"x":{}1{}}}"#, "[".repeat(n), "]".repeat(n));
    let read = |n| json(ty("core/v1.ConfigMap"), nested(n).as_bytes(), Strictness::Warn, &limits);
    assert_eq!(read(9_999).unwrap().strict_errors, [r#"unknown field "x""#]);
    assert_eq!(read(10_000), Err(DecodeError::TooDeep));
    let yaml = format!("a: {}", "[".repeat(100_000));
    assert!(yaml_untyped(yaml.as_bytes(), Strictness::Warn, &limits).is_err());
}

#[test]
fn yaml_names_every_repeated_key() {
    let text =
        b"kind: ConfigMap\nmetadata:\n  name: a\n  name: b\n  labels: {x: y, 'x': z}\ndata:\n  k: a\n  k: b\n  k: c\n";
    let d = yaml(ty("core/v1.ConfigMap"), text, Strictness::Strict, &Limits::default()).unwrap();
    let text = [
        "yaml: unmarshal errors:",
        "line 4: key \"name\" already set in map",
        "line 5: key \"x\" already set in map",
        "line 8: key \"k\" already set in map",
        "line 9: key \"k\" already set in map",
    ];
    assert_eq!(d.strict_errors, [text.join("\n  ")]);
    assert_eq!((&d.value["metadata"]["name"], &d.value["data"]["k"]), (&json!("b"), &json!("c")));
    // Bounded, however many there are.
    let many = format!("data:\n{}", "  k: v\n".repeat(500));
    let d = yaml(ty("core/v1.ConfigMap"), many.as_bytes(), Strictness::Warn, &Limits::default()).unwrap();
    assert_eq!(d.strict_errors[0].lines().count(), 33);
}

#[test]
fn yaml_reports_repeated_keys_by_line_and_unknown_fields_by_path() {
    let text = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  name: b\ndata:\n  on: \"1\"\nextra: 1\n";
    let d = yaml(ty("core/v1.ConfigMap"), text, Strictness::Strict, &Limits::default()).unwrap();
    assert_eq!(
        d.strict_message().unwrap(),
        "strict decoding error: yaml: unmarshal errors:\n  line 5: key \"name\" already set in map, unknown field \"extra\""
    );
    assert_eq!(d.value["metadata"]["name"], "b");
    assert!(yaml_untyped(b"a: [", Strictness::Warn, &Limits::default()).unwrap_err().to_string().starts_with("yaml: "));
}

#[test]
fn a_hand_made_protobuf_message_is_read_by_field_number() {
    // metadata(1){name(1)="x"}, data(2){key "a", value "1"}, an unknown field 15.
    let raw = [&b"\x0a\x03\x0a\x01x"[..], b"\x12\x06\x0a\x01a\x12\x01\x31", b"\x78\x05"].concat();
    let d = protobuf(ty("core/v1.ConfigMap"), &raw, &Limits::default()).unwrap();
    assert_eq!(d.value, json!({"metadata": {"name": "x"}, "data": {"a": "1"}}));
    assert!(protobuf(ty("core/v1.ConfigMap"), &raw[..4], &Limits::default()).is_err());
}

#[test]
fn protobuf_keeps_every_shape_of_field() {
    let pod = json!({"metadata": {"name": "p", "creationTimestamp": "2024-01-01T00:00:00Z", "labels": {"a": "b"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "n", "uid": "u", "controller": true}],
            "managedFields": [{"manager": "m", "fieldsV1": {"f:a": {}}}]},
        "spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}], "priority": -5, "overhead": {"cpu": "10m"},
            "securityContext": {"supplementalGroups": [1, 2]},
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}},
                "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 3},
                "readinessProbe": {"tcpSocket": {"port": 80}}}]}});
    let mut want = pod.clone();
    crate::canon::value(ty("core/v1.Pod"), &mut want).unwrap();
    let raw = crate::protobuf::encode(ty("core/v1.Pod"), &pod);
    let mut got = protobuf(ty("core/v1.Pod"), &raw, &Limits::default()).unwrap().value;
    crate::canon::value(ty("core/v1.Pod"), &mut got).unwrap();
    assert_eq!(got, want);

    let event = json!({"metadata": {"name": "e"}, "eventTime": "2024-01-01T00:00:00.123456Z", "type": "Normal"});
    let raw = crate::protobuf::encode(ty("core/v1.Event"), &event);
    assert_eq!(protobuf(ty("core/v1.Event"), &raw, &Limits::default()).unwrap().value["eventTime"], event["eventTime"]);

    let review = json!({"spec": {"extra": {"k": ["a", "b"]}}});
    let t = ty("authorization/v1.SubjectAccessReview");
    let raw = crate::protobuf::encode(t, &review);
    assert_eq!(protobuf(t, &raw, &Limits::default()).unwrap().value["spec"]["extra"], review["spec"]["extra"]);
}

#[test]
fn an_envelope_opens_to_what_was_put_in() {
    let bytes = Bytes::from(crate::protobuf::envelope("apps/v1", "Deployment", b"raw"));
    let (meta, raw) = envelope(&bytes).unwrap();
    assert_eq!((meta.api_version.as_str(), meta.kind.as_str(), &raw[..]), ("apps/v1", "Deployment", &b"raw"[..]));
    assert!(envelope(&Bytes::from_static(b"nope")).is_err());
}

#[test]
fn type_meta_is_read_without_the_rest() {
    let m = type_meta(br#"{"spec":{"x":[1]},"kind":"A","apiVersion":"b/v1"}"#, &Limits::default()).unwrap();
    assert_eq!((m.kind.as_str(), m.api_version.as_str()), ("A", "b/v1"));
}
