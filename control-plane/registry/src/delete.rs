//! delete and deletecollection: preconditions, graceful deletion, finalizers,
//! and what the garbage collector is asked to do by finalizers of its own.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use triarch_api::meta;
use triarch_api::status::{ErrorList, FieldError, Status};
use triarch_env::Wall;
use triarch_mvcc::{Guard, Object, Op, Stored, Txn};

use crate::object_meta::{FOREGROUND, ORPHAN, remove_field, set_field};
use crate::registry::{MAX_ATTEMPTS, Outcome};
use crate::{
    Attributes, Body, DeleteOptions, DeleteRule, Kind, ListOptions, ListPage, Operation, Registry, RequestContext,
    Response, Served, Target, err,
};

/// Deletes of a collection in flight at once.
const CONCURRENCY: usize = 32;
/// Upstream's default for pods that name none.
const DEFAULT_GRACE: i64 = 30;

/// What a delete comes to.
enum Verdict {
    /// Deletion is under way already; nothing to write.
    Pending,
    /// The object stays for now, marked.
    Mark(Value),
    Remove,
}

impl Registry {
    pub async fn delete(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        options: &DeleteOptions,
    ) -> Result<Response, Status> {
        check_options(options)?;
        let kind = target.kind;
        let key = self.key(target)?;
        let mut fresh = false;
        for _ in 0..MAX_ATTEMPTS {
            let (stored, seen) = self.mvcc().get_with_revision(&key);
            let judged = match &stored {
                Some(stored) => self.judge_delete(ctx, target, stored, options).await,
                None => Err(err::not_found(kind, target.name)),
            };
            if !fresh && matches!(judged, Err(_) | Ok(Verdict::Pending)) {
                fresh = true;
                if self.barrier().await? > seen {
                    continue;
                }
            }
            let verdict = judged?;
            let stored = stored.expect("only a stored object is judged well");
            let (object, op, joined, removed) = match verdict {
                Verdict::Pending => return Ok(marked(options, Served::stored(kind, &stored))),
                Verdict::Mark(value) => {
                    let (object, _) = self.seal(kind, value)?;
                    if object.bytes == stored.object.bytes {
                        return Ok(marked(options, Served::stored(kind, &stored)));
                    }
                    (object.clone(), Op::Put(key.clone(), object), Txn::default(), false)
                }
                Verdict::Remove => {
                    let mut joined = Txn::default();
                    if let Some(allocate) = kind.allocate {
                        let old = Served::stored(kind, &stored).value();
                        allocate(&self.rules(ctx, None), None, Some(&old), &mut joined)?;
                    }
                    (stored.object.clone(), Op::Delete(key.clone()), joined, true)
                }
            };
            if options.dry_run {
                return Ok(self.deleted(target, options, object, stored.mod_revision, removed));
            }
            match self.propose(ctx, Guard::ModRevision(key.clone(), stored.mod_revision), op, joined).await? {
                Outcome::Done(revision) => return Ok(self.deleted(target, options, object, revision, removed)),
                Outcome::Lost { .. } => fresh = false,
            }
        }
        Err(err::modified(kind, target.name))
    }

    fn deleted(
        &self,
        target: &Target<'_>,
        options: &DeleteOptions,
        object: Object,
        revision: u64,
        removed: bool,
    ) -> Response {
        let kind = target.kind;
        if !removed {
            return marked(options, Served { kind, object, revision });
        }
        let as_status = matches!(kind.delete, DeleteRule::Status | DeleteRule::Finalized);
        Response::ok(if as_status {
            Body::Status(Status::success(err::resource(kind), target.name, &object.meta.uid))
        } else {
            Body::Object(Served { kind, object, revision })
        })
    }

    async fn judge_delete(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        stored: &Stored,
        options: &DeleteOptions,
    ) -> Result<Verdict, Status> {
        let kind = target.kind;
        check_preconditions(kind, target.name, stored, options)?;
        let old = Served::stored(kind, stored).value();
        let sent = options.to_value();
        let mut attributes = Attributes {
            kind,
            subresource: target.subresource,
            operation: Operation::Delete,
            namespace: target.namespace,
            name: target.name,
            object: None,
            touched: false,
            old: Some(&old),
            ctx,
            options: &sent,
            dry_run: options.dry_run,
            store: self.mvcc(),
            env: &self.env,
        };
        self.admission.admit(&mut attributes).await?;
        self.admission.validate(&attributes).await?;
        let now = self.env.wall();
        if kind.delete == DeleteRule::Finalized {
            return finalized(kind, target.name, old, now, options);
        }
        Ok(decide(kind, old, now, options))
    }

    async fn delete_listed(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        item: &Stored,
        options: &DeleteOptions,
    ) -> Result<Response, Status> {
        let target = Target::object(kind, item.key.namespace(), item.key.name());
        // A recreated object of the same name is not what was listed.
        let uid = options.uid.clone().or_else(|| Some(item.object.meta.uid.to_string()));
        self.delete(ctx, &target, &DeleteOptions { uid, ..options.clone() }).await
    }

    /// Deletes what a list with `list` matches, and answers with that list.
    pub async fn delete_collection(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<ListPage, Status> {
        check_options(options)?;
        let mut all = self.list(ctx, target, list).await?;
        let items = std::mem::take(&mut all.items);
        let one: Vec<BoxFuture<'_, Result<Response, Status>>> =
            items.iter().map(|item| self.delete_listed(ctx, target.kind, item, options).boxed()).collect();
        let mut results = futures::stream::iter(one).buffer_unordered(CONCURRENCY);
        let mut failed = None;
        while let Some(result) = results.next().await {
            match result {
                Ok(_) => {}
                Err(status) if status.is_not_found() => {}
                // Namespaces and recreated objects: already on their way.
                Err(status) if status.is_conflict() && options.uid.is_none() && options.resource_version.is_none() => {}
                Err(status) => failed = Some(status),
            }
        }
        drop(results);
        match failed {
            Some(status) => Err(status),
            None => Ok(ListPage { items, ..all }),
        }
    }
}

fn marked(options: &DeleteOptions, served: Served) -> Response {
    let code = if options.orphan_dependents == Some(false) { 202 } else { 200 };
    Response { code, body: Body::Object(served) }
}

fn check_options(o: &DeleteOptions) -> Result<(), Status> {
    let mut errors = ErrorList::new();
    if let Some(policy) = &o.propagation_policy {
        if o.orphan_dependents.is_some() {
            errors.push(FieldError::invalid(
                "propagationPolicy",
                policy.as_str(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if !["Foreground", "Background", "Orphan"].contains(&policy.as_str()) {
            errors.push(FieldError::not_supported(
                "propagationPolicy",
                policy.as_str(),
                &["Foreground", "Background", "Orphan", "nil"],
            ));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(("meta.k8s.io", "DeleteOptions"), "", &errors)) }
}

pub(crate) fn check_preconditions(
    kind: &'static Kind,
    name: &str,
    stored: &Stored,
    o: &DeleteOptions,
) -> Result<(), Status> {
    let have = &*stored.object.meta.uid;
    if let Some(uid) = o.uid.as_deref().filter(|uid| *uid != have) {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({have}). The object might have been deleted and then recreated"
        );
        return Err(Status::conflict((kind.group, kind.kind), name, why));
    }
    let have = stored.mod_revision.to_string();
    if let Some(rv) = o.resource_version.as_deref().filter(|rv| *rv != have) {
        let why = format!(
            "the ResourceVersion in the precondition ({rv}) does not match the ResourceVersion in record ({have}). The object might have been modified"
        );
        return Err(Status::conflict((kind.group, kind.kind), name, why));
    }
    Ok(())
}

/// The rule for everything but namespaces.
fn decide(kind: &Kind, old: Value, now: Wall, options: &DeleteOptions) -> Verdict {
    let mut value = old;
    let mut grace = 0;
    let mut graceful = false;
    if kind.delete == DeleteRule::Graceful {
        match shorten_or_start(&mut value, now, options) {
            Grace::Pending => return Verdict::Pending,
            Grace::Set(seconds) => (grace, graceful) = (seconds, true),
            Grace::Expired => {}
        }
    }
    let had: Vec<String> = meta::finalizers(&value).map(str::to_owned).collect();
    let wanted = collector_finalizers(&had, options);
    if wanted != had {
        set_finalizers(&mut value, &wanted);
    }
    if wanted.is_empty() {
        return if graceful && grace > 0 { Verdict::Mark(value) } else { Verdict::Remove };
    }
    if !graceful {
        mark(&mut value, now);
    }
    Verdict::Mark(value)
}

/// Sets deletionTimestamp, unless it is there and past, and no grace.
fn mark(value: &mut Value, now: Wall) {
    let stamp = now.rfc3339();
    if !meta::is_deleting(value) && meta::generation(value) > 0 {
        let next = meta::generation(value) + 1;
        set_field(value, "generation", next);
    }
    // RFC 3339 in UTC and whole seconds: text order is time order.
    if meta::deletion_timestamp(value).is_none_or(|t| t > stamp.as_str()) {
        set_field(value, "deletionTimestamp", stamp);
    }
    set_field(value, "deletionGracePeriodSeconds", 0);
}

enum Grace {
    Pending,
    Set(i64),
    /// It was deleted gracefully and its time is over.
    Expired,
}

/// Graceful deletion of a pod: starts it, or shortens what is under way.
fn shorten_or_start(value: &mut Value, now: Wall, options: &DeleteOptions) -> Grace {
    let asked = options.grace_period_seconds.map(|s| if s < 0 { 1 } else { s });
    if let Some(stamp) = meta::deletion_timestamp(value) {
        let have = meta::get_i64(value, "metadata.deletionGracePeriodSeconds").unwrap_or(0);
        if have == 0 {
            return Grace::Expired;
        }
        let Some(period) = asked.filter(|p| *p < have) else { return Grace::Pending };
        let started = stamp.parse::<jiff::Timestamp>().map_or(now.secs(), |t| t.as_second()) - have;
        let (mut end, mut period) = (started + period, period);
        if end < now.secs() {
            end = now.secs();
            period = period.min(1);
        }
        set_field(value, "deletionTimestamp", Wall::from_secs(end).rfc3339());
        set_field(value, "deletionGracePeriodSeconds", period);
        return Grace::Set(period);
    }
    let mut period =
        asked.or_else(|| meta::get_i64(value, "spec.terminationGracePeriodSeconds")).unwrap_or(DEFAULT_GRACE);
    let over = matches!(meta::str_or_empty(value, "status.phase"), "Succeeded" | "Failed");
    if over || meta::str_or_empty(value, "spec.nodeName").is_empty() {
        // Nobody runs it: there is nothing to wait for.
        period = 0;
    } else if period < 0 {
        period = 1;
    }
    let end = now + Duration::from_secs(u64::try_from(period).unwrap_or(0));
    set_field(value, "deletionTimestamp", end.rfc3339());
    set_field(value, "deletionGracePeriodSeconds", period);
    if meta::generation(value) > 0 {
        let next = meta::generation(value) + 1;
        set_field(value, "generation", next);
    }
    Grace::Set(period)
}

/// The finalizers with those that tell the garbage collector what to do.
fn collector_finalizers(had: &[String], o: &DeleteOptions) -> Vec<String> {
    let has = |name: &str| had.iter().any(|f| f == name);
    let (orphan, foreground) = match (o.orphan_dependents, o.propagation_policy.as_deref()) {
        (Some(orphan), _) => (orphan, false),
        (None, Some("Orphan")) => (true, false),
        (None, Some("Foreground")) => (false, true),
        (None, Some(_)) => (false, false),
        (None, None) => (has(ORPHAN), has(FOREGROUND)),
    };
    let mut out: Vec<String> = had.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    if orphan {
        out.push(ORPHAN.into());
    }
    if foreground {
        out.push(FOREGROUND.into());
    }
    let same = out.len() == had.len() && out.iter().all(|f| had.contains(f));
    if same { had.to_vec() } else { out }
}

fn set_finalizers(value: &mut Value, finalizers: &[String]) {
    if finalizers.is_empty() {
        remove_field(value, "finalizers");
    } else {
        set_field(value, "finalizers", json!(finalizers));
    }
}

/// Namespaces: Terminating until spec.finalizers is empty.
fn finalized(
    kind: &'static Kind,
    name: &str,
    old: Value,
    now: Wall,
    options: &DeleteOptions,
) -> Result<Verdict, Status> {
    let held = !meta::get_array(&old, "spec.finalizers").is_empty();
    if meta::is_deleting(&old) && held {
        return Err(err::conflict(
            kind,
            name,
            "The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will automatically be purged by the system.",
        ));
    }
    if !held {
        return Ok(decide(kind, old, now, options));
    }
    let mut value = old;
    set_field(&mut value, "deletionTimestamp", now.rfc3339());
    if meta::generation(&value) > 0 {
        let next = meta::generation(&value) + 1;
        set_field(&mut value, "generation", next);
    }
    meta::set(&mut value, "status.phase", "Terminating");
    let had: Vec<String> = meta::finalizers(&value).map(str::to_owned).collect();
    set_finalizers(&mut value, &collector_finalizers(&had, options));
    Ok(Verdict::Mark(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Kind = Kind { kind: "Pod", delete: DeleteRule::Graceful, ..Kind::BASE };
    const OTHER: Kind = Kind { kind: "ConfigMap", ..Kind::BASE };

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    #[test]
    fn a_running_pod_waits_its_grace_and_an_unscheduled_one_goes_at_once() {
        let now = Wall::from_secs(1_000);
        let pod = json!({"metadata": {"generation": 1}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 10}, "status": {"phase": "Running"}});
        let Verdict::Mark(v) = decide(&POD, pod.clone(), now, &DeleteOptions::default()) else { panic!("not marked") };
        assert_eq!(
            v["metadata"],
            json!({"generation": 2, "deletionTimestamp": "1970-01-01T00:16:50Z", "deletionGracePeriodSeconds": 10})
        );
        assert!(matches!(decide(&POD, v.clone(), now, &DeleteOptions::default()), Verdict::Pending));
        let Verdict::Mark(shorter) = decide(&POD, v.clone(), now, &grace(2)) else { panic!("not shortened") };
        assert_eq!(shorter["metadata"]["deletionTimestamp"], "1970-01-01T00:16:42Z");
        assert!(matches!(decide(&POD, v, now, &grace(0)), Verdict::Remove));
        assert!(matches!(
            decide(&POD, json!({"metadata": {}, "spec": {}}), now, &DeleteOptions::default()),
            Verdict::Remove
        ));
    }

    #[test]
    fn finalizers_hold_an_object_and_policies_add_theirs() {
        let now = Wall::from_secs(0);
        assert!(matches!(decide(&OTHER, json!({"metadata": {}}), now, &DeleteOptions::default()), Verdict::Remove));
        let held = json!({"metadata": {"finalizers": ["a/b"], "generation": 3}});
        let Verdict::Mark(v) = decide(&OTHER, held, now, &DeleteOptions::default()) else { panic!("not held") };
        assert_eq!(v["metadata"]["deletionGracePeriodSeconds"], 0);
        assert_eq!(v["metadata"]["generation"], 4);
        let policy = |p: &str| DeleteOptions { propagation_policy: Some(p.into()), ..DeleteOptions::default() };
        for (p, want) in [("Foreground", FOREGROUND), ("Orphan", ORPHAN)] {
            let Verdict::Mark(v) = decide(&OTHER, json!({"metadata": {}}), now, &policy(p)) else { panic!("{p}") };
            assert_eq!(v["metadata"]["finalizers"], json!([want]));
        }
        let waiting = json!({"metadata": {"finalizers": [FOREGROUND], "deletionTimestamp": "1970-01-01T00:00:00Z"}});
        assert!(matches!(decide(&OTHER, waiting, now, &policy("Background")), Verdict::Remove));
    }

    #[test]
    fn a_namespace_terminates_first_and_says_so_when_deleted_again() {
        let ns =
            json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let Ok(Verdict::Mark(v)) = finalized(&OTHER, "n", ns, Wall::from_secs(5), &DeleteOptions::default()) else {
            panic!("not marked")
        };
        assert_eq!(v["status"]["phase"], "Terminating");
        let Err(status) = finalized(&OTHER, "n", v, Wall::from_secs(6), &DeleteOptions::default()) else {
            panic!("no conflict")
        };
        assert_eq!(status.code, 409);
    }
}
