//! Golden cases: an object in, a defaulted object or field errors out.
//!
//! `golden/<resource>/<case>.json` has `input`, for an update also `old`, for a
//! view `subresource`, and one of `object` (what the result must contain; null
//! means absent), `errors` (every error, in order, as users read them) and
//! `refused` (a Status of another kind). A case of an action (`binding`,
//! `eviction`, `token`) has the parent as `old` and may have `stored`, the
//! objects that it can find; its `object` is what the action wants written or
//! issued.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use triarch_api::status::{ErrorList, Status};
use triarch_api::{canon, defaults, schema};
use triarch_env::{Env, TokioRuntime, Wall};
use triarch_kinds::KINDS;
use triarch_mvcc::{Db, Key, Limits, LocalDb, Op, Txn};
use triarch_registry::{ActionContext, ActionOutcome, Kind, RuleContext, StatusRule, SubresourceHandler, encode};

/// Kinds without rules of their own: nothing that a client sends is looked at.
const WITHOUT_RULES: &[&str] = &["selfsubjectreviews.authentication.k8s.io"];
/// Cases that every other kind, and every action, has at least.
const LEAST: usize = 5;

fn normalize(kind: &Kind, v: &mut Value) {
    let ty = schema::lookup(kind.schema).unwrap_or_else(|| panic!("no schema {}", kind.schema));
    canon::value(ty, v).unwrap_or_else(|e| panic!("{}: {e}", kind.kind));
    defaults::apply(ty, v);
    (kind.defaults)(v);
    canon::value(ty, v).unwrap_or_else(|e| panic!("{}: {e}", kind.kind));
}

/// A store with the objects of a case in it.
async fn store(objects: &Value) -> std::sync::Arc<LocalDb> {
    let db = LocalDb::new(Limits { exports: false, ..Limits::default() });
    for object in objects.as_array().into_iter().flatten() {
        let text = |field: &str| object[field].as_str().unwrap_or("").to_owned();
        let kind = KINDS.iter().find(|k| k.api_version() == text("apiVersion") && k.kind == text("kind"));
        let kind = kind.unwrap_or_else(|| panic!("no kind of {object}"));
        let mut object = object.clone();
        normalize(kind, &mut object);
        let at = |field: &str| object["metadata"][field].as_str().unwrap_or("");
        let key = Key::new(kind.resource, at("namespace"), at("name"));
        let put = Op::Put(key, encode::to_object(kind, &object).unwrap());
        db.commit(Txn { ops: vec![put], ..Txn::default() }).await.unwrap();
    }
    db
}

async fn run(kind: &Kind, case: &Value) -> Result<(Value, ErrorList), Status> {
    let env = Env::new(TokioRuntime::current());
    let db = store(&case["stored"]).await;
    let subresource = case["subresource"].as_str();
    let now = Wall::from_secs(1_700_000_000);
    let ctx = RuleContext { env: &env, now, store: db.mvcc(), user: "somebody", subresource };
    let mut errs = ErrorList::new();
    let handler =
        subresource.map(|name| kind.subresources.iter().find(|s| s.name == name).expect("a subresource").handler);
    let mut new = case["input"].clone();
    if let Some(SubresourceHandler::Action(action)) = handler {
        let mut parent = case["old"].clone();
        normalize(kind, &mut parent);
        let at = |field: &str| case["old"]["metadata"][field].as_str().unwrap_or("");
        let context = ActionContext { rules: &ctx, object: &parent, name: at("name"), namespace: at("namespace") };
        let object = match action(&context, new)? {
            ActionOutcome::Issue { request } => request,
            ActionOutcome::Update { object, .. } => object,
            ActionOutcome::Delete { object, options, .. } => json!({"object": object, "options": options}),
        };
        return Ok((object, errs));
    }
    normalize(kind, &mut new);
    let Some(old) = case.get("old") else {
        (kind.refuse)(&ctx, &new)?;
        (kind.prepare_create)(&ctx, &mut new);
        if kind.stored {
            let name = new["metadata"]["name"].as_str().unwrap_or("");
            for message in (kind.validate_name)(name, false) {
                errs.invalid_each("metadata.name", name, vec![message]);
            }
        }
        (kind.validate)(&ctx, &new, &mut errs);
        return Ok((new, errs));
    };
    let mut old = old.clone();
    normalize(kind, &mut old);
    if case["old"].get("status").is_none() {
        (kind.prepare_create)(&ctx, &mut old);
    }
    for v in [&mut new, &mut old] {
        v["metadata"]["resourceVersion"] = "7".into();
    }
    match handler {
        None => {
            (kind.prepare_update)(&ctx, &mut new, &old);
            (kind.validate)(&ctx, &new, &mut errs);
            (kind.validate_update)(&ctx, &new, &old, &mut errs);
        }
        Some(SubresourceHandler::Status) => {
            let rule: StatusRule = kind.status.expect("a kind with a status has a rule");
            new = rule.view(&new, &old);
            (rule.validate)(&ctx, &new, &old, &mut errs);
        }
        Some(SubresourceHandler::View { merge }) => {
            new = merge(&new, &old);
            (kind.validate_update)(&ctx, &new, &old, &mut errs);
        }
        Some(_) => panic!("only views, status and actions have golden cases"),
    }
    Ok((new, errs))
}

/// What `want` names must be in `have`; null means absent.
fn contains(have: &Value, want: &Value, at: &str, problems: &mut Vec<String>) {
    match (have, want) {
        (_, Value::Object(fields)) => {
            for (key, want) in fields {
                contains(have.get(key).unwrap_or(&Value::Null), want, &format!("{at}.{key}"), problems);
            }
        }
        (Value::Array(h), Value::Array(w)) if h.len() == w.len() => {
            for (i, (h, w)) in h.iter().zip(w).enumerate() {
                contains(h, w, &format!("{at}[{i}]"), problems);
            }
        }
        (h, w) if h == w => {}
        (h, w) => problems.push(format!("{at}: have {h}, want {w}")),
    }
}

#[tokio::test]
async fn every_golden_case_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut problems = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for dir in std::fs::read_dir(&root).unwrap().map(|d| d.unwrap().path()) {
        let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
        let kind = KINDS.iter().find(|k| k.group_resource() == name).unwrap_or_else(|| panic!("no kind {name}"));
        let mut cases: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path()).collect();
        cases.sort();
        for path in cases {
            let case: Value =
                serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            let mut found = Vec::new();
            let (object, errs, refused) = match run(kind, &case).await {
                Ok((object, errs)) => (object, errs, Value::Null),
                Err(status) => (Value::Null, ErrorList::new(), status.to_value()),
            };
            if let Some(want) = case.get("refused") {
                contains(&refused, want, "", &mut found);
            } else if !refused.is_null() {
                found.push(format!("refused: {refused}"));
            } else if let Some(want) = case.get("errors") {
                let want: Vec<&str> = want.as_array().unwrap().iter().map(|e| e.as_str().unwrap()).collect();
                let have: Vec<String> = errs.iter().map(ToString::to_string).collect();
                if have != want {
                    found.push(format!("errors\n    have {have:#?}\n    want {want:#?}"));
                }
            } else {
                assert!(case.get("object").is_some(), "{path:?} expects nothing");
                contains(&object, &case["object"], "", &mut found);
                found.extend(errs.iter().map(|e| format!("unexpected error {e}")));
            }
            problems.extend(found.into_iter().map(|p| format!("{}: {p}", path.strip_prefix(&root).unwrap().display())));
            let action = case["subresource"].as_str().filter(|s| ["binding", "eviction", "token"].contains(s));
            *counts.entry(action.map_or(name.clone(), |a| format!("{name}/{a}"))).or_default() += 1;
        }
    }
    let actions = KINDS.iter().flat_map(|k| {
        let actions = k.subresources.iter().filter(|s| matches!(s.handler, SubresourceHandler::Action(_)));
        actions.map(|s| format!("{}/{}", k.group_resource(), s.name))
    });
    let kinds = KINDS.iter().map(|k| k.group_resource()).filter(|n| !WITHOUT_RULES.contains(&n.as_str()));
    for what in kinds.chain(actions) {
        let count = counts.get(&what).copied().unwrap_or(0);
        if count < LEAST {
            problems.push(format!("{what} has {count} cases of {LEAST}"));
        }
    }
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
}
