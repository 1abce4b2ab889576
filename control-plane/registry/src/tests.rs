//! The verbs over a local store, with ConfigMaps and a small kind with a spec.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use triarch_api::meta;
use triarch_api::status::Status;
use triarch_env::{Env, TokioRuntime};
use triarch_mvcc::{CommitError, Committed, Db, Limits, LocalDb, Mvcc, Txn, TxnOutcome};

use crate::*;

static CONFIG_MAP: Kind = Kind {
    kind: "ConfigMap",
    list_kind: "ConfigMapList",
    plural: "configmaps",
    singular: "configmap",
    resource: "configmaps",
    schema: "core/v1.ConfigMap",
    delete: DeleteRule::Status,
    ..Kind::BASE
};

static DEPLOYMENT: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    list_kind: "DeploymentList",
    plural: "deployments",
    singular: "deployment",
    resource: "deployments.apps",
    schema: "apps/v1.Deployment",
    generation: GenerationRule::Spec,
    selectable: &[SelectableField {
        path: "spec.paused",
        get: |v| meta::get_bool(v, "spec.paused").unwrap_or(false).to_string(),
    }],
    status: Some(StatusRule { stored_metadata: &["labels", "annotations"], ..StatusRule::BASE }),
    prepare_create: |_, v| {
        v["status"] = json!({});
    },
    prepare_update: |_, new, old| {
        new["status"] = old["status"].clone();
    },
    validate: |_, v, errors| {
        if meta::get_i64(v, "spec.replicas").is_some_and(|n| n < 0) {
            errors.push(triarch_api::status::FieldError::invalid(
                "spec.replicas",
                v["spec"]["replicas"].clone(),
                "must be greater than or equal to 0",
            ));
        }
    },
    subresources: &[
        Subresource {
            name: "status",
            verbs: &[Verb::Get, Verb::Patch, Verb::Update],
            handler: SubresourceHandler::Status,
            response: ("apps", "v1", "Deployment"),
            schema: "apps/v1.Deployment",
        },
        Subresource {
            name: "scale",
            verbs: &[Verb::Get, Verb::Patch, Verb::Update],
            handler: SubresourceHandler::Scale {
                spec_replicas: "spec.replicas",
                status_replicas: "status.replicas",
                selector: |_| "a=b".into(),
            },
            response: ("autoscaling", "v1", "Scale"),
            schema: "autoscaling/v1.Scale",
        },
    ],
    ..Kind::BASE
};

fn registry() -> Arc<Registry> {
    let env = Env::new(TokioRuntime::current());
    Registry::new(LocalDb::new(Limits::default()), env, KindTable::new(&[&CONFIG_MAP, &DEPLOYMENT]), Arc::new(AdmitAll))
}

fn ctx() -> RequestContext {
    RequestContext::new(UserInfo::new("tester", &[]), "r1")
}

fn config(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"v": value}}, "data": {"k": value}})
}

async fn put(r: &Registry, name: &str, value: &str) -> Value {
    r.create(&ctx(), &Target::collection(&CONFIG_MAP, "ns"), config(name, value), &WriteOptions::default())
        .await
        .unwrap()
        .into_value()
}

fn rv(v: &Value) -> u64 {
    meta::resource_version(v).parse().unwrap()
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn create_fills_in_what_the_server_decides_and_refuses_a_second() {
    let r = registry();
    let v = put(&r, "a", "1").await;
    assert_eq!(
        (v["kind"].as_str(), v["apiVersion"].as_str(), meta::namespace(&v)),
        (Some("ConfigMap"), Some("v1"), "ns")
    );
    assert!(!meta::uid(&v).is_empty() && rv(&v) > 0 && v["metadata"]["creationTimestamp"].is_string());
    let again = r
        .create(&ctx(), &Target::collection(&CONFIG_MAP, "ns"), config("a", "2"), &WriteOptions::default())
        .await
        .unwrap_err();
    assert_eq!((again.code, again.message.as_str()), (409, "configmaps \"a\" already exists"));
    let wrong = json!({"metadata": {"name": "b", "namespace": "other"}});
    let refused =
        r.create(&ctx(), &Target::collection(&CONFIG_MAP, "ns"), wrong, &WriteOptions::default()).await.unwrap_err();
    assert_eq!(
        refused.message,
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    let drawn = json!({"metadata": {"generateName": "g-"}});
    let made = r
        .create(&ctx(), &Target::collection(&CONFIG_MAP, "ns"), drawn, &WriteOptions::default())
        .await
        .unwrap()
        .into_value();
    assert!(meta::name(&made).starts_with("g-") && meta::name(&made).len() == 7);
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    r.create(&ctx(), &Target::collection(&CONFIG_MAP, "ns"), config("dry", "1"), &dry).await.unwrap();
    assert!(r.get(&ctx(), &Target::object(&CONFIG_MAP, "ns", "dry"), "").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn an_update_of_an_old_revision_conflicts_and_one_that_changes_nothing_takes_no_revision() {
    let r = registry();
    let first = put(&r, "a", "1").await;
    let target = Target::object(&CONFIG_MAP, "ns", "a");
    let mut second = first.clone();
    second["data"]["k"] = "2".into();
    let second = r.update(&ctx(), &target, second, &WriteOptions::default()).await.unwrap().into_value();
    assert!(rv(&second) > rv(&first));
    let refused = r.update(&ctx(), &target, first.clone(), &WriteOptions::default()).await.unwrap_err();
    assert_eq!(
        refused.message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let same = r.update(&ctx(), &target, second.clone(), &WriteOptions::default()).await.unwrap().into_value();
    assert_eq!(same, second);
    assert_eq!(r.mvcc().revision(), rv(&second));
    let mut stolen = second.clone();
    stolen["metadata"]["uid"] = "other".into();
    assert!(
        r.update(&ctx(), &target, stolen, &WriteOptions::default())
            .await
            .unwrap_err()
            .message
            .contains("Precondition failed: UID in precondition: other")
    );
    let gone = r
        .update(&ctx(), &Target::object(&CONFIG_MAP, "ns", "x"), config("x", "1"), &WriteOptions::default())
        .await
        .unwrap_err();
    assert!(gone.is_not_found());
    let misnamed = r.update(&ctx(), &target, config("b", "1"), &WriteOptions::default()).await.unwrap_err();
    assert_eq!(misnamed.message, "the name of the object (b) does not match the name on the URL (a)");
}

#[tokio::test]
async fn a_change_of_status_alone_keeps_the_rest_and_answers_name_and_revision() {
    let r = registry();
    let collection = Target::collection(&DEPLOYMENT, "ns");
    let made = r.create(&ctx(), &collection, deployment("d"), &WriteOptions::default()).await.unwrap();
    let (name, first) = made.identity();
    let made = made.into_value();
    assert_eq!((name.as_str(), first), ("d", Some(rv(&made))));
    let target = Target::object(&DEPLOYMENT, "ns", "d");
    let change = |old: &Value| {
        let status = json!({"replicas": 3, "nonsense": 1, "conditions": null});
        Ok(json!({"metadata": old["metadata"], "spec": {"replicas": 9}, "status": status}))
    };
    let done = r.change_status(&ctx(), &target, &change, &WriteOptions::default()).await.unwrap();
    let (name, second) = done.identity();
    let done = done.into_value();
    assert_eq!((name.as_str(), second), ("d", Some(rv(&done))));
    assert!(second > first);
    assert_eq!((&done["status"], &done["spec"]), (&json!({"replicas": 3}), &made["spec"]));
    assert_eq!(meta::generation(&done), meta::generation(&made));
    let again = r.change_status(&ctx(), &target, &change, &WriteOptions::default()).await.unwrap();
    assert_eq!(again.identity().1, second, "nothing changed");
    let refuse = |_: &Value| Err(Status::not_found(("apps", "deployments"), "d"));
    assert!(r.change_status(&ctx(), &target, &refuse, &WriteOptions::default()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn generation_follows_the_spec_and_status_has_a_door_of_its_own() {
    let r = registry();
    let c = ctx();
    let made = r
        .create(&c, &Target::collection(&DEPLOYMENT, "ns"), deployment("d"), &WriteOptions::default())
        .await
        .unwrap()
        .into_value();
    assert_eq!(meta::generation(&made), 1);
    let target = Target::object(&DEPLOYMENT, "ns", "d");
    let mut status = made.clone();
    status["status"] = json!({"replicas": 1});
    status["spec"]["replicas"] = 9.into();
    status["metadata"]["labels"] = json!({"x": "y"});
    let after =
        r.update(&c, &target.with_subresource("status"), status, &WriteOptions::default()).await.unwrap().into_value();
    assert_eq!(
        (meta::generation(&after), &after["spec"]["replicas"], &after["status"]["replicas"]),
        (1, &json!(1), &json!(1))
    );
    assert!(meta::labels(&after).is_none());
    let patch = |text: &'static str| Bytes::from_static(text.as_bytes());
    let patched = r
        .patch(
            &c,
            &target,
            PatchType::Strategic,
            patch(r#"{"spec":{"replicas":3},"status":{"replicas":7}}"#),
            &WriteOptions::default(),
        )
        .await
        .unwrap()
        .into_value();
    assert_eq!((meta::generation(&patched), &patched["status"]["replicas"]), (2, &json!(1)));
    let scale = r.get(&c, &target.with_subresource("scale"), "").await.unwrap().into_value();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["selector"], rv(&scale)),
        (&json!(3), &json!("a=b"), rv(&patched))
    );
    let scaled = r
        .patch(
            &c,
            &target.with_subresource("scale"),
            PatchType::Merge,
            patch(r#"{"spec":{"replicas":5}}"#),
            &WriteOptions::default(),
        )
        .await
        .unwrap()
        .into_value();
    assert_eq!((scaled["kind"].as_str(), &scaled["spec"]["replicas"]), (Some("Scale"), &json!(5)));
    let bad = r
        .patch(&c, &target, PatchType::Merge, patch(r#"{"spec":{"replicas":-1}}"#), &WriteOptions::default())
        .await
        .unwrap_err();
    assert_eq!(
        bad.message,
        "Deployment.apps \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
    let strict = WriteOptions { field_validation: FieldValidation::Strict, ..WriteOptions::default() };
    let unknown = r.patch(&c, &target, PatchType::Merge, patch(r#"{"spec":{"foo":1}}"#), &strict).await.unwrap_err();
    assert!(unknown.code == 422 && unknown.message.contains("unknown field \"spec.foo\""), "{unknown}");
    let failed = r
        .patch(
            &c,
            &target,
            PatchType::Json,
            patch(r#"[{"op":"test","path":"/spec/replicas","value":1}]"#),
            &WriteOptions::default(),
        )
        .await
        .unwrap_err();
    assert_eq!(failed.code, 422);
}

#[tokio::test]
async fn pages_are_of_one_revision_and_a_selector_never_decodes() {
    let r = registry();
    for i in 0..5 {
        put(&r, &format!("c{i}"), if i % 2 == 0 { "even" } else { "odd" }).await;
    }
    let target = Target::collection(&CONFIG_MAP, "ns");
    let mut o = ListOptions { limit: 2, ..ListOptions::default() };
    let first = r.list(&ctx(), &target, &o).await.unwrap();
    assert_eq!((first.items.len(), first.remaining), (2, Some(3)));
    put(&r, "c9", "late").await;
    o.continue_token = first.continue_token.clone();
    let second = r.list(&ctx(), &target, &o).await.unwrap();
    assert_eq!((second.revision, second.items[0].key.name()), (first.revision, "c2"));
    o.continue_token = second.continue_token;
    let third = r.list(&ctx(), &target, &o).await.unwrap();
    assert_eq!((third.items.len(), third.continue_token.as_str()), (1, ""));
    let selected = ListOptions { label_selector: "v=even".into(), limit: 2, ..ListOptions::default() };
    let page = r.list(&ctx(), &target, &selected).await.unwrap();
    assert_eq!((page.items.len(), page.remaining, page.continue_token.is_empty()), (2, None, false));
    let rest = r.list(&ctx(), &target, &ListOptions { continue_token: page.continue_token, ..selected }).await.unwrap();
    assert_eq!(rest.items.iter().map(|s| s.key.name().to_owned()).collect::<Vec<_>>(), ["c4"]);
    let by_name = ListOptions { field_selector: "metadata.name=c3".into(), ..ListOptions::default() };
    assert_eq!(r.list(&ctx(), &target, &by_name).await.unwrap().items.len(), 1);
    let unknown = ListOptions { field_selector: "data.k=1".into(), ..ListOptions::default() };
    assert_eq!(
        r.list(&ctx(), &target, &unknown).await.unwrap_err().message,
        "\"data.k\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
    let text: Vec<u8> = r.list(&ctx(), &target, &by_name).await.unwrap().into_chunks().flatten().collect();
    let list: Value = serde_json::from_slice(&text).unwrap();
    assert!(
        list["items"][0].get("kind").is_none()
            && list["kind"] == "ConfigMapList"
            && list["items"][0]["data"]["k"] == "odd"
    );
    let future = ListOptions { resource_version: "999999".into(), ..ListOptions::default() };
    let refused = r.list(&ctx(), &target, &future).await.unwrap_err();
    assert_eq!((refused.code, refused.message.starts_with("Timeout: Too large resource version: 999999")), (504, true));
}

#[tokio::test]
async fn an_expired_continue_token_offers_one_that_goes_on() {
    let r = registry();
    for i in 0..3 {
        put(&r, &format!("c{i}"), "x").await;
    }
    let target = Target::collection(&CONFIG_MAP, "ns");
    let first = r.list(&ctx(), &target, &ListOptions { limit: 1, ..ListOptions::default() }).await.unwrap();
    put(&r, "c5", "x").await;
    let head = put(&r, "c6", "x").await;
    let compact = triarch_mvcc::Txn { ops: vec![triarch_mvcc::Op::Compact(rv(&head))], ..Default::default() };
    r.db().commit(compact).await.unwrap();
    let next = ListOptions { limit: 1, continue_token: first.continue_token, ..ListOptions::default() };
    let expired = r.list(&ctx(), &target, &next).await.unwrap_err();
    assert_eq!((expired.code, expired.reason), (410, "Expired"));
    assert!(expired.to_value()["metadata"]["continue"].is_string());
    let on = r
        .list(
            &ctx(),
            &target,
            &ListOptions { limit: 1, continue_token: expired.continue_token, ..ListOptions::default() },
        )
        .await
        .unwrap();
    assert_eq!((on.items[0].key.name(), on.revision), ("c1", r.mvcc().revision()));
}

async fn take(w: &mut Watch) -> Vec<String> {
    let events = tokio::time::timeout(Duration::from_secs(5), w.next(100)).await.unwrap().unwrap().unwrap();
    events
        .iter()
        .map(|e| match e {
            WatchEvent::Object { change, served, .. } => {
                format!("{} {} {}", change.as_str(), meta::name(&served.value()), served.revision)
            }
            WatchEvent::Bookmark { revision, initial_events_end } => {
                format!("BOOKMARK {revision} {initial_events_end}")
            }
        })
        .collect()
}

#[tokio::test]
async fn a_watch_starts_with_what_is_there_and_leaving_the_selector_is_a_deletion() {
    let r = registry();
    let a = put(&r, "a", "x").await;
    let target = Target::collection(&CONFIG_MAP, "ns");
    let o = ListOptions {
        label_selector: "v=x".into(),
        allow_watch_bookmarks: true,
        send_initial_events: Some(true),
        resource_version_match: RevisionMatch::NotOlderThan,
        ..ListOptions::default()
    };
    let mut w = r.watch(&ctx(), &target, &o).await.unwrap();
    assert_eq!(take(&mut w).await, [format!("ADDED a {}", rv(&a))]);
    assert_eq!(take(&mut w).await, [format!("BOOKMARK {} true", rv(&a))]);
    put(&r, "b", "other").await;
    let mut changed = a.clone();
    changed["metadata"]["labels"]["v"] = "y".into();
    let changed = r
        .update(&ctx(), &Target::object(&CONFIG_MAP, "ns", "a"), changed, &WriteOptions::default())
        .await
        .unwrap()
        .into_value();
    let events = tokio::time::timeout(Duration::from_secs(5), w.next(100)).await.unwrap().unwrap().unwrap();
    let WatchEvent::Object { change: Change::Deleted, served, .. } = &events[0] else { panic!("{events:?}") };
    // The object as it was, at the revision at which it left.
    assert_eq!((served.value()["data"]["k"].as_str(), rv(&served.value())), (Some("x"), rv(&changed)));
    let from = ListOptions { resource_version: rv(&a).to_string(), ..ListOptions::default() };
    let mut w = r.watch(&ctx(), &target, &from).await.unwrap();
    let seen = take(&mut w).await;
    assert!(seen[0].starts_with("ADDED b") && seen[1].starts_with("MODIFIED a"), "{seen:?}");
    r.delete(&ctx(), &Target::object(&CONFIG_MAP, "ns", "b"), &DeleteOptions::default()).await.unwrap();
    assert_eq!(take(&mut w).await, [format!("DELETED b {}", r.mvcc().revision())]);
    let ends = ListOptions {
        resource_version: r.mvcc().revision().to_string(),
        timeout_seconds: Some(0),
        ..ListOptions::default()
    };
    assert!(r.watch(&ctx(), &target, &ends).await.unwrap().next(1).await.is_none());
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_is_expired() {
    let r = registry();
    let a = put(&r, "a", "x").await;
    let b = put(&r, "b", "x").await;
    let compact = triarch_mvcc::Txn { ops: vec![triarch_mvcc::Op::Compact(rv(&b))], ..Default::default() };
    r.db().commit(compact).await.unwrap();
    let o = ListOptions { resource_version: (rv(&a)).to_string(), ..ListOptions::default() };
    let expired = r.watch(&ctx(), &Target::collection(&CONFIG_MAP, "ns"), &o).await.unwrap_err();
    assert_eq!((expired.code, expired.reason), (410, "Expired"));
}

#[tokio::test]
async fn deletes_check_preconditions_and_collections_go_page_by_page() {
    let r = registry();
    let target = Target::object(&CONFIG_MAP, "ns", "a");
    let a = put(&r, "a", "x").await;
    let wrong = DeleteOptions { uid: Some("other".into()), ..DeleteOptions::default() };
    assert!(r.delete(&ctx(), &target, &wrong).await.unwrap_err().is_conflict());
    let done = r
        .delete(&ctx(), &target, &DeleteOptions { uid: Some(meta::uid(&a).into()), ..DeleteOptions::default() })
        .await
        .unwrap()
        .into_value();
    assert_eq!((done["status"].as_str(), done["details"]["kind"].as_str()), (Some("Success"), Some("configmaps")));
    assert!(r.delete(&ctx(), &target, &DeleteOptions::default()).await.unwrap_err().is_not_found());
    let held = json!({"metadata": {"name": "h", "finalizers": ["x.io/y"]}});
    let c = Target::collection(&CONFIG_MAP, "ns");
    r.create(&ctx(), &c, held, &WriteOptions::default()).await.unwrap();
    let h = Target::object(&CONFIG_MAP, "ns", "h");
    let marked = r.delete(&ctx(), &h, &DeleteOptions::default()).await.unwrap().into_value();
    assert!(meta::is_deleting(&marked));
    let again = r.create(&ctx(), &c, config("h", "1"), &WriteOptions::default()).await.unwrap_err();
    assert_eq!(again.message, "object is being deleted: configmaps \"h\" already exists");
    let mut released = marked;
    released["metadata"]["finalizers"] = json!([]);
    r.update(&ctx(), &h, released, &WriteOptions::default()).await.unwrap();
    assert!(r.get(&ctx(), &h, "").await.unwrap_err().is_not_found());
    for i in 0..40 {
        put(&r, &format!("c{i}"), if i < 30 { "go" } else { "stay" }).await;
    }
    let go = ListOptions { label_selector: "v=go".into(), ..ListOptions::default() };
    assert_eq!(r.delete_collection(&ctx(), &c, &go, &DeleteOptions::default()).await.unwrap().items.len(), 30);
    assert_eq!(r.list(&ctx(), &c, &ListOptions::default()).await.unwrap().items.len(), 10);
}

#[tokio::test]
async fn bodies_are_decoded_as_strictly_as_asked() {
    let expected = decode::Expected { schema: "core/v1.ConfigMap", group: "", version: "v1", kind: "ConfigMap" };
    let read = |text: &'static str, how| {
        decode::body(&ctx(), &expected, decode::MediaType::Json, &Bytes::from_static(text.as_bytes()), how)
    };
    let text = r#"{"kind":"ConfigMap","apiVersion":"v1","foo":1,"data":{"a":"b"}}"#;
    let strict = read(text, FieldValidation::Strict).unwrap_err();
    assert_eq!(
        strict.message,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"foo\""
    );
    assert!(read(text, FieldValidation::Ignore).unwrap().get("foo").is_none());
    let c = ctx();
    decode::body(&c, &expected, decode::MediaType::Json, &Bytes::from_static(text.as_bytes()), FieldValidation::Warn)
        .unwrap();
    assert_eq!(c.warnings(), ["unknown field \"foo\""]);
    let other = read(r#"{"kind":"Pod","apiVersion":"v1"}"#, FieldValidation::Warn).unwrap_err();
    assert!(other.message.starts_with("Pod in version \"v1\" cannot be handled as a ConfigMap"), "{other}");
    let version = read(r#"{"kind":"ConfigMap","apiVersion":"v2"}"#, FieldValidation::Warn).unwrap_err();
    assert_eq!(version.message, "the API version in the data (v2) does not match the expected API version (v1)");
    assert_eq!(
        read(r#"{"kind":"ConfigMap","apiVersion":"v1","data":{"a":1}}"#, FieldValidation::Warn).unwrap_err().code,
        400
    );
    assert!(
        read("{", FieldValidation::Warn)
            .unwrap_err()
            .message
            .starts_with("the object provided is unrecognized (must be of type ConfigMap)")
    );
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let r = registry();
    put(&r, "a", "x").await;
    let client = r.client(ctx());
    let writes = (0..10)
        .map(|i| Write::Patch {
            kind: &CONFIG_MAP,
            namespace: "ns".into(),
            name: "a".into(),
            how: PatchType::Merge,
            patch: json!({"data": {format!("k{i}"): "v"}}),
            subresource: None,
        })
        .collect();
    assert!(client.batch(writes).await.iter().all(Result::is_ok));
    let got = client.get(&CONFIG_MAP, "ns", "a").await.unwrap();
    assert_eq!(got["data"].as_object().unwrap().len(), 11);
}

/// A store that forgets the outcomes of its first commits, made or not.
struct Forgetful {
    inner: Arc<LocalDb>,
    applies: bool,
    left: std::sync::atomic::AtomicUsize,
}

#[async_trait::async_trait]
impl Db for Forgetful {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        use std::sync::atomic::Ordering::Relaxed;
        if self.left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_err() {
            return self.inner.commit(txn).await;
        }
        if self.applies {
            self.inner.commit(txn).await?;
        }
        Ok(Committed { outcome: TxnOutcome::Expired, revision: self.inner.mvcc().revision() })
    }

    async fn read_barrier(&self) -> Result<u64, CommitError> {
        self.inner.read_barrier().await
    }

    async fn wait_revision(&self, revision: u64, timeout: Duration) -> bool {
        self.inner.wait_revision(revision, timeout).await
    }

    fn mvcc(&self) -> &Arc<Mvcc> {
        self.inner.mvcc()
    }
}

#[tokio::test]
async fn a_write_whose_outcome_is_forgotten_is_told_by_the_object_itself() {
    for applies in [true, false] {
        let db = Arc::new(Forgetful {
            inner: LocalDb::new(Limits::default()),
            applies,
            left: std::sync::atomic::AtomicUsize::new(0),
        });
        let forget = |n| db.left.store(n, std::sync::atomic::Ordering::Relaxed);
        let env = Env::new(TokioRuntime::current());
        let r = Registry::new(db.clone(), env, KindTable::new(&[&CONFIG_MAP]), Arc::new(AdmitAll));
        forget(1);
        let made = put(&r, "a", "1").await;
        let target = Target::object(&CONFIG_MAP, "ns", "a");
        let stored = r.get(&ctx(), &target, "").await.unwrap().into_value();
        assert_eq!(made, stored, "applies {applies}");
        forget(2);
        let mut changed = made.clone();
        changed["data"]["k"] = "2".into();
        let updated = r.update(&ctx(), &target, changed, &WriteOptions::default()).await.unwrap().into_value();
        assert_eq!(updated, r.get(&ctx(), &target, "").await.unwrap().into_value());
        // Once each, however often it was sent.
        assert_eq!(rv(&updated), rv(&made) + 1, "applies {applies}");
        forget(1);
        r.delete(&ctx(), &target, &DeleteOptions::default()).await.unwrap();
        assert!(r.get(&ctx(), &target, "").await.unwrap_err().is_not_found());
    }
}
