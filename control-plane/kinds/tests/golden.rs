//! Golden cases: an object in, a defaulted object or field errors out.
//!
//! `golden/<resource>/<case>.json` has `input`, for an update also `old`, for a
//! view `subresource`, and one of `object` (what the result must contain; null
//! means absent) and `errors` (every error, in order, as users read them).

use std::path::Path;

use serde_json::Value;
use triarch_api::status::ErrorList;
use triarch_api::{canon, defaults, schema};
use triarch_env::{Env, TokioRuntime, Wall};
use triarch_kinds::KINDS;
use triarch_mvcc::{Limits, Mvcc};
use triarch_registry::{Kind, RuleContext, SubresourceHandler};

fn normalize(kind: &Kind, v: &mut Value) {
    let ty = schema::lookup(kind.schema).unwrap_or_else(|| panic!("no schema {}", kind.schema));
    canon::value(ty, v).unwrap_or_else(|e| panic!("{}: {e}", kind.kind));
    defaults::apply(ty, v);
    (kind.defaults)(v);
    canon::value(ty, v).unwrap_or_else(|e| panic!("{}: {e}", kind.kind));
}

fn run(kind: &Kind, case: &Value) -> (Value, ErrorList) {
    let env = Env::new(TokioRuntime::current());
    let store = Mvcc::new(Limits { exports: false, ..Limits::default() });
    let subresource = case["subresource"].as_str();
    let ctx =
        RuleContext { env: &env, now: Wall::from_secs(1_700_000_000), store: &store, user: "somebody", subresource };
    let mut errs = ErrorList::new();
    let mut new = case["input"].clone();
    normalize(kind, &mut new);
    let Some(old) = case.get("old") else {
        (kind.prepare_create)(&ctx, &mut new);
        for message in (kind.validate_name)(new["metadata"]["name"].as_str().unwrap_or(""), false) {
            errs.invalid_each("metadata.name", new["metadata"]["name"].as_str().unwrap_or(""), vec![message]);
        }
        (kind.validate)(&ctx, &new, &mut errs);
        return (new, errs);
    };
    let mut old = old.clone();
    normalize(kind, &mut old);
    if case["old"].get("status").is_none() {
        (kind.prepare_create)(&ctx, &mut old);
    }
    for v in [&mut new, &mut old] {
        v["metadata"]["resourceVersion"] = "7".into();
    }
    let handler =
        subresource.map(|name| kind.subresources.iter().find(|s| s.name == name).expect("a subresource").handler);
    match handler {
        None => {
            (kind.prepare_update)(&ctx, &mut new, &old);
            (kind.validate)(&ctx, &new, &mut errs);
            (kind.validate_update)(&ctx, &new, &old, &mut errs);
        }
        Some(SubresourceHandler::Status) => {
            let rule = kind.status.expect("a kind with a status has a rule");
            (rule.validate)(&ctx, &new, &old, &mut errs);
        }
        Some(SubresourceHandler::View { merge }) => {
            new = merge(&new, &old);
            (kind.validate_update)(&ctx, &new, &old, &mut errs);
        }
        Some(_) => panic!("only views and status have golden cases"),
    }
    (new, errs)
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
    let (mut count, mut problems) = (0, Vec::new());
    for dir in std::fs::read_dir(&root).unwrap().map(|d| d.unwrap().path()) {
        let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
        let kind = KINDS.iter().find(|k| k.group_resource() == name).unwrap_or_else(|| panic!("no kind {name}"));
        let mut cases: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path()).collect();
        cases.sort();
        for path in cases {
            let case: Value =
                serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            let (object, errs) = run(kind, &case);
            let mut found = Vec::new();
            if let Some(want) = case.get("errors") {
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
            count += 1;
        }
    }
    assert!(count >= 60, "only {count} cases were found");
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
}
