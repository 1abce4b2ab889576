use serde_json::json;

use super::*;
use crate::schema::lookup;

fn canon(ty: &str, v: Value) -> Value {
    let mut v = v;
    value(lookup(ty).unwrap(), &mut v).unwrap();
    v
}

fn text(ty: &str, v: Value) -> String {
    String::from_utf8(to_json(lookup(ty).unwrap(), &v)).unwrap()
}

#[test]
fn a_deployment_gets_upstreams_order_and_emit_rules() {
    let v = json!({"status": {}, "spec": {"selector": {"matchLabels": {"b": "1", "a": "2"}}, "replicas": 0,
        "template": {"spec": {"containers": []}}}, "metadata": {"name": "x", "labels": {}, "annotations": null},
        "kind": "Deployment", "apiVersion": "apps/v1", "nonsense": 1});
    assert_eq!(
        text("apps/v1.Deployment", v),
        r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"x"},"spec":{"replicas":0,"selector":{"matchLabels":{"a":"2","b":"1"}},"template":{"metadata":{},"spec":{"containers":null}},"strategy":{}},"status":{}}"#
    );
}

#[test]
fn quantities_times_and_bytes_have_one_spelling() {
    let v = canon(
        "core/v1.Pod",
        json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1000m", "memory": "0.1Gi"}}}]},
            "status": {"startTime": "2024-01-01T01:00:00.5+01:00"}}),
    );
    assert_eq!(v["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "1", "memory": "107374182400m"}));
    assert_eq!(v["status"]["startTime"], "2024-01-01T00:00:00Z");
    let v = canon("core/v1.Secret", json!({"data": {"a": "aGVs\nbG8=", "b": null}}));
    assert_eq!(v["data"], json!({"a": "aGVsbG8=", "b": ""}));
}

#[test]
fn structs_that_are_not_pointers_are_always_written() {
    let t = text("core/v1.Event", json!({"metadata": {"name": "e"}, "involvedObject": {}}));
    assert_eq!(
        t,
        r#"{"metadata":{"name":"e"},"involvedObject":{},"source":{},"firstTimestamp":null,"lastTimestamp":null,"type":"","eventTime":null,"reportingComponent":"","reportingInstance":""}"#
            .replace(r#""type":"","#, "")
    );
    let v = canon("core/v1.ResourceFieldSelector", json!({"resource": "limits.cpu"}));
    assert_eq!(v, json!({"resource": "limits.cpu", "divisor": "0"}));
}

#[test]
fn stored_bytes_start_at_metadata_and_have_a_slot() {
    let ty = lookup("core/v1.ConfigMap").unwrap();
    let v = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"k": "<v>"},
        "metadata": {"name": "c", "uid": "u", "resourceVersion": "7", "generation": 1}});
    let c = stored(ty, &v).unwrap();
    let text = String::from_utf8(c.bytes.clone()).unwrap();
    let gap = " ".repeat(SLOT_LEN);
    assert_eq!(
        text,
        format!(
            r#""metadata":{{"name":"c","uid":"u","resourceVersion":{gap},"generation":1}},"data":{{"k":"\u003cv\u003e"}}}}"#
        )
    );
    assert_eq!(&text[c.slot as usize..c.slot as usize + SLOT_LEN], gap);
    assert!(text[..c.metadata_end as usize].ends_with("\"generation\":1}"));
}

#[test]
fn a_custom_resource_is_sorted_after_its_metadata() {
    let c = custom_stored(&json!({"spec": {"b": 1.0, "a": [null, {}]}, "aa": 1, "kind": "X",
        "metadata": {"creationTimestamp": null, "name": "x"}}))
    .unwrap();
    let text = String::from_utf8(c.bytes).unwrap();
    assert_eq!(
        text.replace(&" ".repeat(SLOT_LEN), "_"),
        r#""metadata":{"name":"x","resourceVersion":_},"aa":1,"spec":{"a":[null,{}],"b":1}}"#
    );
}

#[test]
fn what_is_not_of_the_type_is_refused_by_path() {
    let mut v = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}});
    let e = value(lookup("core/v1.Pod").unwrap(), &mut v).unwrap_err();
    assert_eq!(e.path, "spec.containers[0].resources.limits[cpu]");
    assert!(stored(lookup("core/v1.Pod").unwrap(), &v).is_err());
}

#[test]
fn floats_and_strings_are_spelled_as_go_spells_them() {
    let t = |v| String::from_utf8(any_to_json(&v)).unwrap();
    assert_eq!(t(json!([1.0, 0.5, 1e21, 1e-7, -0.25])), "[1,0.5,1e+21,1e-7,-0.25]");
    assert_eq!(t(json!("a\u{2028}&\u{1}é€")), "\"a\\u2028\\u0026\\u0001é€\"");
}

mod generated {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A value of that kind, good or sloppy (nulls, empties, odd spellings).
    fn of(kind: &Kind, depth: u32) -> BoxedStrategy<Value> {
        let pick = |xs: &'static [&'static str]| proptest::sample::select(xs).prop_map(Value::from).boxed();
        let good = match kind {
            Kind::String => pick(&["", "a", "Always", "x<y>&\"\u{2028}"]),
            Kind::Bool => any::<bool>().prop_map(Value::from).boxed(),
            Kind::Int32 | Kind::Int64 => proptest::sample::select(&[0, 1, -7, 8080][..]).prop_map(Value::from).boxed(),
            Kind::Float64 => proptest::sample::select(&[0.0, 1.0, 0.5, 1e30][..]).prop_map(Value::from).boxed(),
            Kind::Bytes => pick(&["", "aGVsbG8=", "YQ==\n"]),
            Kind::Quantity => prop_oneof![
                pick(&["1000m", "1024Mi", "0.1Gi", "0", "1e3", "-1.5", "1n"]),
                Just(json!(3)),
                Just(json!(1.5))
            ]
            .boxed(),
            Kind::Time | Kind::MicroTime => {
                pick(&["2024-01-01T01:00:00.123456789+01:00", "0001-01-01T00:00:00Z", "2024-01-01T00:00:00Z"])
            }
            Kind::IntOrString => prop_oneof![pick(&["25%", "http"]), Just(json!(80))].boxed(),
            Kind::Raw(Raw::Json) => prop_oneof![Just(json!({"b": [1.0, null], "a": "x"})), Just(json!(3))].boxed(),
            Kind::Raw(_) => prop_oneof![Just(json!({"type": "string", "minimum": 1.0})), Just(json!(true))].boxed(),
            Kind::Items => of(&Kind::List(&Kind::String), depth),
            Kind::List(elem) => match depth {
                0 => Just(json!([])).boxed(),
                _ => proptest::collection::vec(of(elem, depth - 1), 0..3).prop_map(Value::from).boxed(),
            },
            Kind::Map(elem) => match depth {
                0 => Just(json!({})).boxed(),
                _ => proptest::collection::btree_map("[a-c]", of(elem, depth - 1), 0..3)
                    .prop_map(|m| Value::Object(m.into_iter().collect()))
                    .boxed(),
            },
            Kind::Struct(ty) => structure(ty, depth),
        };
        prop_oneof![9 => good, 1 => Just(Value::Null)].boxed()
    }

    fn structure(ty: &'static Type, depth: u32) -> BoxedStrategy<Value> {
        if depth == 0 {
            return Just(json!({})).boxed();
        }
        // A few fields at a time: types are wide.
        let indexes = proptest::collection::btree_set(0..ty.fields.len().max(1), 0..5);
        indexes
            .prop_flat_map(move |set| {
                let fields = set.into_iter().filter_map(move |i| ty.fields.get(i));
                let each: Vec<_> =
                    fields.map(|f| of(&f.kind, depth - 1).prop_map(move |v| (f.name.to_string(), v))).collect();
                each.prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
            })
            .boxed()
    }

    fn objects() -> Vec<&'static Type> {
        crate::schema::all().iter().filter(|t| t.is_object()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn canon_of_canon_is_canon(
            (ty, v) in proptest::sample::select(objects()).prop_flat_map(|t| (Just(t), structure(t, 7)))
        ) {
            let mut once = v.clone();
            value(ty, &mut once).unwrap();
            let mut twice = once.clone();
            value(ty, &mut twice).unwrap();
            prop_assert_eq!(&once, &twice);
            // Writing is the same canon: sloppy or canonical, the bytes are equal …
            let bytes = to_json(ty, &v);
            prop_assert_eq!(&bytes, &to_json(ty, &once));
            // … and they read back as the canonical value.
            let mut back: Value = serde_json::from_slice(&bytes).unwrap();
            value(ty, &mut back).unwrap();
            prop_assert_eq!(to_json(ty, &back), bytes);
            prop_assert_eq!(stored(ty, &v).unwrap(), stored(ty, &once).unwrap());
        }
    }
}
