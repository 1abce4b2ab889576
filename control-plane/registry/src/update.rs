//! update, and the loop that update, patch, scale and actions share: read,
//! change, judge, propose under the revision that was read, and again when
//! somebody else's write came first.

use serde_json::Value;
use triarch_api::meta;
use triarch_api::status::{ErrorList, FieldError, Status};
use triarch_mvcc::{Guard, Object, Op, Stored, Txn};

use crate::create::created;
use crate::registry::{MAX_ATTEMPTS, Outcome};
use crate::{
    Attributes, Body, DeleteRule, Kind, Operation, Registry, RequestContext, Response, Served, StatusRule,
    SubresourceHandler, Target, WriteOptions, encode, err, object_meta, scale, served,
};

/// Makes the new state from the present one (kind, apiVersion and
/// resourceVersion included). Called again when the write is retried.
pub type Transform<'a> = &'a (dyn Fn(&Value) -> Result<Value, Status> + Send + Sync);

/// Through which door an update comes.
#[derive(Clone, Copy)]
pub(crate) enum View {
    Whole,
    Status,
    /// The change answers the metadata and the new status only.
    StatusOnly,
    Merge(fn(&Value, &Value) -> Value),
}

/// What an evaluated update comes to.
enum Verdict {
    Nothing,
    Put {
        object: Object,
        joined: Txn,
    },
    /// The last finalizer is gone from an object that was being deleted.
    Remove {
        object: Object,
        joined: Txn,
    },
}

impl Registry {
    /// PUT of an object or of a subresource.
    pub async fn update(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Response, Status> {
        let kind = target.kind;
        let view = match self.handler(target)? {
            None => View::Whole,
            Some(SubresourceHandler::Status) => View::Status,
            Some(SubresourceHandler::View { merge }) => View::Merge(merge),
            Some(SubresourceHandler::Scale { spec_replicas, status_replicas, selector }) => {
                object_meta::check_name(target.namespace, target.name, &body)?;
                // The parent is in normal form, and a number changes nothing about that.
                let change = move |parent: &Value| scale::into_parent(parent, &body, spec_replicas);
                let response = self.change(ctx, target, View::Whole, &change, options).await?;
                return Ok(as_scale(response, spec_replicas, status_replicas, selector));
            }
            Some(_) => return Err(Status::method_not_supported(err::resource(kind), "update")),
        };
        object_meta::check_name(target.namespace, target.name, &body)?;
        object_meta::place(kind, target.namespace, &mut body)?;
        served::set_type(&mut body, kind);
        encode::normalize(kind, &mut body)?;
        let change = |_: &Value| Ok(body.clone());
        match self.change(ctx, target, view, &change, options).await {
            Err(status)
                if status.is_not_found()
                    && kind.create_on_update
                    && target.subresource.is_none()
                    && !missing_namespace(&status, kind) =>
            {
                self.create_by_update(ctx, target, body.clone(), options).await
            }
            done => done,
        }
    }

    async fn create_by_update(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Response, Status> {
        object_meta::remove_field(&mut body, "resourceVersion");
        let draft = self.draft(ctx, target, &body, options).await?;
        if options.dry_run {
            return Ok(Response { code: 201, body: Body::Value { schema: target.kind.schema, value: draft.value } });
        }
        let put = Op::Put(draft.key.clone(), draft.object.clone());
        match self.propose(ctx, Guard::Absent(draft.key), put, draft.joined).await? {
            Outcome::Done(revision) => Ok(created(target.kind, draft.object, revision)),
            Outcome::Lost { .. } => Err(err::modified(target.kind, target.name)),
        }
    }

    /// Writes the status that `change` makes of the present object: it answers
    /// an object with the metadata that it was given and the new status, and
    /// nothing else is decoded, defaulted or compared.
    pub async fn change_status(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        change: Transform<'_>,
        options: &WriteOptions,
    ) -> Result<Response, Status> {
        let target = Target { subresource: Some("status"), ..*target };
        match self.handler(&target)? {
            Some(SubresourceHandler::Status) => self.change(ctx, &target, View::StatusOnly, change, options).await,
            _ => Err(Status::method_not_supported(err::resource(target.kind), "update")),
        }
    }

    /// The loop. Negative answers are given only by a memory that is known to
    /// be current: a replica that lags reads again first.
    pub(crate) async fn change(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        view: View,
        change: Transform<'_>,
        options: &WriteOptions,
    ) -> Result<Response, Status> {
        let kind = target.kind;
        let key = self.key(target)?;
        let mut fresh = false;
        for _ in 0..MAX_ATTEMPTS {
            let (stored, seen) = self.mvcc().get_with_revision(&key);
            let judged = match &stored {
                Some(stored) => self.judge(ctx, target, view, stored, change, options).await,
                None => Err(err::not_found(kind, target.name)),
            };
            if !fresh && matches!(judged, Err(_) | Ok(Verdict::Nothing)) {
                fresh = true;
                if self.barrier().await? > seen {
                    continue;
                }
            }
            let verdict = judged?;
            let stored = stored.expect("only a stored object is judged well");
            let (object, op, joined) = match verdict {
                Verdict::Nothing => return Ok(Response::ok(Body::Object(Served::stored(kind, &stored)))),
                Verdict::Put { object, joined } => (object.clone(), Op::Put(key.clone(), object), joined),
                Verdict::Remove { object, joined } => (object, Op::Delete(key.clone()), joined),
            };
            if options.dry_run {
                return Ok(Response::ok(Body::Object(Served { kind, object, revision: stored.mod_revision })));
            }
            match self.propose(ctx, Guard::ModRevision(key.clone(), stored.mod_revision), op, joined).await? {
                Outcome::Done(revision) => return Ok(Response::ok(Body::Object(Served { kind, object, revision }))),
                Outcome::Lost { .. } => fresh = false,
            }
        }
        Err(err::modified(kind, target.name))
    }

    /// Everything between reading and proposing.
    async fn judge(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        view: View,
        stored: &Stored,
        change: Transform<'_>,
        options: &WriteOptions,
    ) -> Result<Verdict, Status> {
        let kind = target.kind;
        let old = Served::stored(kind, stored).value();
        let mut value = change(&old)?;
        if let View::StatusOnly = view {
            encode::normalize_status(kind, &mut value)?;
            value = kind.status.unwrap_or(StatusRule::BASE).view(&value, &old);
            (kind.defaults)(&mut value);
        }
        object_meta::check_name(target.namespace, target.name, &value)?;
        check_identity(kind, target.name, &value, stored)?;
        let name = target.name;
        let mut attributes = Attributes {
            kind,
            subresource: target.subresource,
            operation: Operation::Update,
            namespace: target.namespace,
            name,
            object: Some(&mut value),
            touched: false,
            old: Some(&old),
            ctx,
            options: &Value::Null,
            dry_run: options.dry_run,
            store: self.mvcc(),
            env: &self.env,
        };
        self.admission.admit(&mut attributes).await?;
        if attributes.touched {
            encode::normalize(kind, &mut value)?;
        }
        let mut joined = Txn::default();
        {
            let rules = self.rules(ctx, target.subresource);
            let mut errors = ErrorList::new();
            match view {
                View::Whole => {
                    object_meta::keep(kind, &mut value, &old);
                    (kind.prepare_update)(&rules, &mut value, &old);
                    object_meta::bump_generation(kind.generation, &mut value, &old);
                    object_meta::validate_update(kind, &value, &old, &mut errors);
                    (kind.validate)(&rules, &value, &mut errors);
                    (kind.validate_update)(&rules, &value, &old, &mut errors);
                }
                View::Status | View::StatusOnly => {
                    let rule = kind.status.unwrap_or(StatusRule::BASE);
                    if let View::Status = view {
                        value = rule.view(&value, &old);
                    }
                    object_meta::keep(kind, &mut value, &old);
                    object_meta::validate_update(kind, &value, &old, &mut errors);
                    (rule.validate)(&rules, &value, &old, &mut errors);
                }
                View::Merge(merge) => {
                    value = merge(&value, &old);
                    object_meta::keep(kind, &mut value, &old);
                    object_meta::bump_generation(kind.generation, &mut value, &old);
                    object_meta::validate_update(kind, &value, &old, &mut errors);
                    (kind.validate_update)(&rules, &value, &old, &mut errors);
                }
            }
            if !errors.is_empty() {
                return Err(err::invalid(kind, name, &errors));
            }
            for warning in (kind.warnings)(&value, Some(&old)) {
                ctx.warn(warning);
            }
            if let (Some(allocate), View::Whole) = (kind.allocate, view) {
                allocate(&rules, Some(&mut value), Some(&old), &mut joined)?;
            }
        }
        let attributes = Attributes {
            kind,
            subresource: target.subresource,
            operation: Operation::Update,
            namespace: target.namespace,
            name,
            object: Some(&mut value),
            touched: false,
            old: Some(&old),
            ctx,
            options: &Value::Null,
            dry_run: options.dry_run,
            store: self.mvcc(),
            env: &self.env,
        };
        self.admission.validate(&attributes).await?;
        let (object, value) = self.seal(kind, value)?;
        if finished(kind, &value, &old) {
            let mut joined = Txn::default();
            if let Some(allocate) = kind.allocate {
                allocate(&self.rules(ctx, None), None, Some(&old), &mut joined)?;
            }
            return Ok(Verdict::Remove { object, joined });
        }
        if object.bytes == stored.object.bytes && joined.ops.is_empty() {
            return Ok(Verdict::Nothing);
        }
        Ok(Verdict::Put { object, joined })
    }
}

/// uid and resourceVersion against the stored object.
fn check_identity(kind: &'static Kind, name: &str, value: &Value, stored: &Stored) -> Result<(), Status> {
    let (uid, have) = (meta::uid(value), &*stored.object.meta.uid);
    if !uid.is_empty() && uid != have {
        return Err(err::conflict(
            kind,
            name,
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"),
        ));
    }
    let text = meta::resource_version(value);
    let asked = if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    match asked {
        Some(0) if kind.unconditional_update => Ok(()),
        Some(0) => {
            let mut errors = ErrorList::new();
            errors.push(FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update"));
            Err(Status::invalid((kind.group, kind.plural), name, &errors))
        }
        Some(n) if n == stored.mod_revision => Ok(()),
        Some(_) => Err(err::modified(kind, name)),
        None => {
            let mut errors = ErrorList::new();
            let detail = format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
            errors.push(FieldError::invalid("metadata.resourceVersion", text, detail));
            Err(Status::invalid((kind.group, kind.plural), name, &errors))
        }
    }
}

/// Whether an update leaves nothing that holds back a deletion under way.
fn finished(kind: &Kind, value: &Value, old: &Value) -> bool {
    let grace = meta::get_i64(old, "metadata.deletionGracePeriodSeconds").unwrap_or(0);
    let held = kind.delete == DeleteRule::Finalized && !meta::get_array(value, "spec.finalizers").is_empty();
    meta::is_deleting(old) && meta::finalizers(value).next().is_none() && grace == 0 && !held
}

/// Create-on-update must not answer for a namespace that is not there.
fn missing_namespace(status: &Status, kind: &Kind) -> bool {
    status.details.as_ref().is_some_and(|d| d.kind == "namespaces") && kind.plural != "namespaces"
}

pub(crate) fn as_scale(response: Response, spec: &str, status: &str, selector: fn(&Value) -> String) -> Response {
    let code = response.code;
    let value = scale::from_parent(&response.into_value(), spec, status, selector);
    Response { code, body: Body::Value { schema: scale::SCHEMA, value } }
}
