//! Just enough of an API server for controllers to run against one memory:
//! optimistic concurrency, uids, generated names, generations, finalizers,
//! binding. No validation, no defaults.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use triarch_mvcc::{
    Db, Guard, Key, Limits, ListRequest, LocalDb, Mvcc, Object, Op as StoreOp, Prefix, RV_SLOT_LEN, Txn, TxnOutcome,
};

use crate::{Op, WriteError, Writer, Written, resources};

/// See the module's text.
pub struct FakeApi {
    db: Arc<LocalDb>,
    serial: AtomicU64,
    /// Refuses what it answers an error for, before anything is written.
    refuse: Mutex<Option<Box<dyn FnMut(&Op) -> Option<WriteError> + Send>>>,
    log: Mutex<Vec<Op>>,
}

impl FakeApi {
    pub fn new() -> Arc<FakeApi> {
        Arc::new(FakeApi {
            db: LocalDb::new(Limits::default()),
            serial: AtomicU64::new(1),
            refuse: Mutex::new(None),
            log: Mutex::default(),
        })
    }

    pub fn mvcc(&self) -> &Arc<Mvcc> {
        self.db.mvcc()
    }

    pub fn refuse(&self, f: impl FnMut(&Op) -> Option<WriteError> + Send + 'static) {
        *self.refuse.lock() = Some(Box::new(f));
    }

    /// Every write that was tried.
    pub fn log(&self) -> Vec<Op> {
        self.log.lock().clone()
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let s = self.mvcc().get(&Key::new(resource, namespace, name))?;
        crate::world::parse(&s.object, s.mod_revision).ok()
    }

    pub fn list(&self, resource: &str) -> Vec<Value> {
        let all =
            self.mvcc().list(&ListRequest { prefix: Prefix::resource(resource), after: None, limit: 0, at: None });
        let items = all.map(|l| l.items).unwrap_or_default();
        items.iter().filter_map(|s| crate::world::parse(&s.object, s.mod_revision).ok()).collect()
    }

    /// Creates an object as a user would.
    pub async fn create(&self, resource: &'static str, object: Value) {
        self.write(&Op::Create { resource, object }).await.expect("a test's object is created");
    }

    /// Changes an object's status, as a kubelet would, or its spec, as a user would.
    pub async fn edit(&self, resource: &'static str, namespace: &str, name: &str, patch: Value) {
        let name = crate::Name::new(namespace, name);
        self.write(&Op::Patch { resource, name, subresource: None, patch }).await.expect("a test's patch fits");
    }

    async fn commit(&self, guard: Guard, key: Key, value: Option<Value>) -> Result<u64, WriteError> {
        let op = match value {
            Some(v) => StoreOp::Put(key, object(v)),
            None => StoreOp::Delete(key),
        };
        let done = self.db.commit(Txn { guards: vec![guard], ops: vec![op], epoch: None }).await;
        match done.map(|d| d.outcome) {
            Ok(TxnOutcome::Committed { revisions }) => Ok(revisions.first().copied().unwrap_or(0)),
            Ok(TxnOutcome::GuardFailed { .. }) => Err(WriteError::Conflict("changed meanwhile".into())),
            other => Err(WriteError::Other(format!("{other:?}"))),
        }
    }

    /// Reads, changes and writes back under the read revision.
    async fn change(
        &self,
        key: Key,
        f: impl FnOnce(&mut Value) -> Result<(), WriteError> + Send,
    ) -> Result<u64, WriteError> {
        let Some(s) = self.mvcc().get(&key) else { return Err(WriteError::NotFound(format!("{key:?} not found"))) };
        let mut v: Value =
            crate::world::parse(&s.object, s.mod_revision).map_err(|e| WriteError::Other(e.to_string()))?;
        let before = v["spec"].clone();
        f(&mut v)?;
        if v["spec"] != before {
            v["metadata"]["generation"] = json!(v["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        let guard = Guard::ModRevision(key.clone(), s.mod_revision);
        let gone = !v["metadata"]["deletionTimestamp"].is_null()
            && v["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        self.commit(guard, key, (!gone).then_some(v)).await
    }
}

fn object(mut v: Value) -> Object {
    if let Some(m) = v.as_object_mut() {
        m.remove("apiVersion");
        m.remove("kind");
    }
    const MARK: &str = "\"####################\"";
    v["metadata"]["resourceVersion"] = json!(MARK.trim_matches('"'));
    let mut o = super::stored(&v);
    let text = String::from_utf8(o.bytes.to_vec()).expect("JSON is UTF-8");
    o.slot = text.find(MARK).map(|i| i as u32);
    o.bytes = text.replace(MARK, &" ".repeat(RV_SLOT_LEN)).into();
    o
}

fn check(found: &Value, wanted: &Value, what: &str) -> Result<(), WriteError> {
    match (found.as_str(), wanted.as_str()) {
        (Some(f), Some(w)) if !w.is_empty() && f.trim() != w.trim() => {
            Err(WriteError::Conflict(format!("{what}: {w} is not {f}")))
        }
        _ => Ok(()),
    }
}

/// RFC 7386.
fn merge_patch(into: &mut Value, patch: &Value) {
    let Value::Object(p) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (k, v) in p {
        if v.is_null() {
            into.as_object_mut().expect("made an object above").remove(k);
        } else {
            merge_patch(&mut into[k], v);
        }
    }
}

#[async_trait]
impl Writer for FakeApi {
    async fn write(&self, op: &Op) -> Result<Written, WriteError> {
        self.log.lock().push(op.clone());
        if let Some(error) = self.refuse.lock().as_mut().and_then(|f| f(op)) {
            return Err(error);
        }
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let key_of = |resource: &str, v: &Value| {
            Key::new(resource, &text(&v["metadata"]["namespace"]), &text(&v["metadata"]["name"]))
        };
        let n = self.serial.fetch_add(1, Ordering::Relaxed);
        let (name, revision) = match op {
            Op::Create { resource, object } => {
                let mut v = object.clone();
                if let Some(prefix) = v["metadata"]["generateName"].as_str() {
                    v["metadata"]["name"] = json!(format!("{prefix}{n:05}"));
                }
                v["metadata"]["uid"] = json!(format!("{n:08x}-0000-4000-8000-000000000000"));
                v["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
                v["metadata"]["generation"] = json!(1);
                let key = key_of(resource, &v);
                let name = text(&v["metadata"]["name"]);
                let done = self.commit(Guard::Absent(key.clone()), key, Some(v)).await;
                (
                    name.clone(),
                    done.map_err(|_| WriteError::AlreadyExists(format!("{resource} \"{name}\" already exists")))?,
                )
            }
            Op::Update { resource, object } => {
                let done = self.change(key_of(resource, object), |v| {
                    check(
                        &v["metadata"]["resourceVersion"],
                        &object["metadata"]["resourceVersion"],
                        "resourceVersion",
                    )?;
                    *v = object.clone();
                    Ok(())
                });
                (text(&object["metadata"]["name"]), done.await?)
            }
            Op::UpdateSub { resource, subresource, object } => {
                let done = self.change(key_of(resource, object), |v| {
                    check(
                        &v["metadata"]["resourceVersion"],
                        &object["metadata"]["resourceVersion"],
                        "resourceVersion",
                    )?;
                    let part = if *subresource == "finalize" { "spec" } else { "status" };
                    v[part] = object[part].clone();
                    Ok(())
                });
                (text(&object["metadata"]["name"]), done.await?)
            }
            Op::Patch { resource, name, patch, .. } => {
                let done = self.change(Key::new(resource, &name.namespace, &name.name), |v| {
                    check(&v["metadata"]["uid"], &patch["metadata"]["uid"], "uid")?;
                    check(&v["metadata"]["resourceVersion"], &patch["metadata"]["resourceVersion"], "resourceVersion")?;
                    merge_patch(v, patch);
                    Ok(())
                });
                (name.name.to_string(), done.await?)
            }
            Op::Delete { resource, name, options } => {
                let done = self.change(Key::new(resource, &name.namespace, &name.name), |v| {
                    check(&v["metadata"]["uid"], &json!(options.uid), "uid")?;
                    check(&v["metadata"]["resourceVersion"], &json!(options.resource_version), "resourceVersion")?;
                    let extra = match options.propagation {
                        Some("Foreground") => Some("foregroundDeletion"),
                        Some("Orphan") => Some("orphan"),
                        _ => None,
                    };
                    if let Some(f) = extra {
                        match v["metadata"]["finalizers"].as_array_mut() {
                            Some(list) if list.iter().any(|x| x == f) => {}
                            Some(list) => list.push(json!(f)),
                            None => v["metadata"]["finalizers"] = json!([f]),
                        }
                    }
                    v["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                    Ok(())
                });
                done.await?;
                (name.name.to_string(), self.mvcc().revision())
            }
            Op::DeleteAll { resource, namespace } => {
                for v in self.list(resource).iter().filter(|v| v["metadata"]["namespace"] == **namespace) {
                    let name = crate::Name::new(namespace, text(&v["metadata"]["name"]));
                    let done = self.change(Key::new(resource, namespace, &name.name), |v| {
                        v["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                        Ok(())
                    });
                    done.await?;
                }
                (String::new(), self.mvcc().revision())
            }
            Op::Bind { name, uid, node } => {
                let done = self.change(Key::new(resources::PODS, &name.namespace, &name.name), |v| {
                    check(&v["metadata"]["uid"], &json!(uid), "uid")?;
                    if v["spec"]["nodeName"].is_string() {
                        return Err(WriteError::Conflict(format!("pod {} is already assigned to node", name.name)));
                    }
                    v["spec"]["nodeName"] = json!(node);
                    Ok(())
                });
                (name.name.to_string(), done.await?)
            }
        };
        Ok(Written { revision, name })
    }
}
