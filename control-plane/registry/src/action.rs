//! Action subresources: binding, eviction, token.

use serde_json::Value;
use triarch_api::meta;
use triarch_api::status::Status;
use triarch_mvcc::{Guard, Stored};

use crate::delete::check_preconditions;
use crate::registry::{MAX_ATTEMPTS, Outcome};
use crate::{
    ActionContext, ActionOutcome, Attributes, Body, DeleteOptions, Operation, Registry, RequestContext, Response,
    Served, Target, WriteOptions, err, object_meta,
};

/// What actions answer.
const STATUS: &str = "meta/v1.Status";

type Action = fn(&ActionContext<'_>, Value) -> Result<ActionOutcome, Status>;

impl Registry {
    /// Runs an action against the present state of its parent until it is
    /// written on exactly the state that it saw.
    pub(crate) async fn act(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        action: Action,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Response, Status> {
        let kind = target.kind;
        let key = self.key(target)?;
        let schema =
            target.subresource.and_then(|s| kind.subresources.iter().find(|k| k.name == s)).map_or("", |s| s.schema);
        let mut body = body;
        let namespace = meta::namespace(&body);
        if !namespace.is_empty() && namespace != target.namespace {
            return Err(err::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if meta::name(&body).is_empty() {
            object_meta::set_field(&mut body, "name", target.name);
        }
        object_meta::set_field(&mut body, "namespace", target.namespace);
        let mut fresh = false;
        for _ in 0..MAX_ATTEMPTS {
            let (stored, seen) = self.mvcc().get_with_revision(&key);
            let decided = match &stored {
                Some(stored) => self.decide(ctx, target, action, stored, body.clone(), options).await,
                None => Err(err::not_found(kind, target.name)),
            };
            if decided.is_err() && !fresh {
                fresh = true;
                if self.barrier().await? > seen {
                    continue;
                }
            }
            let (parent, outcome) = decided?;
            let stored = stored.expect("only a stored object is acted on");
            match outcome {
                ActionOutcome::Issue { request } => {
                    let value = self.issuer()?.issue(ctx, kind, &parent, request).await?;
                    return Ok(Response { code: 201, body: Body::Value { schema, value } });
                }
                ActionOutcome::Delete { mut object, options: sent, answer, code } => {
                    let mut delete = DeleteOptions::from_value(&sent);
                    delete.dry_run |= options.dry_run;
                    check_preconditions(kind, target.name, &stored, &delete)?;
                    object_meta::keep(kind, &mut object, &parent);
                    let (object, _) = self.seal(kind, object)?;
                    if !delete.dry_run && object.bytes != stored.object.bytes {
                        let guard = Guard::ModRevision(key.clone(), stored.mod_revision);
                        match self.propose(ctx, guard, Self::put(&key, object), triarch_mvcc::Txn::default()).await? {
                            // The precondition was on the state before this write.
                            Outcome::Done(now) => {
                                delete.resource_version = delete.resource_version.map(|_| now.to_string());
                            }
                            Outcome::Lost { .. } => {
                                fresh = false;
                                continue;
                            }
                        }
                    }
                    delete.uid.get_or_insert_with(|| stored.object.meta.uid.to_string());
                    self.delete(ctx, &Target { subresource: None, ..*target }, &delete).await?;
                    return Ok(Response { code, body: Body::Value { schema: STATUS, value: answer } });
                }
                ActionOutcome::Update { mut object, answer, code } => {
                    object_meta::keep(kind, &mut object, &parent);
                    object_meta::bump_generation(kind.generation, &mut object, &parent);
                    let (object, _) = self.seal(kind, object)?;
                    let done = Response { code, body: Body::Value { schema: STATUS, value: answer } };
                    if options.dry_run || object.bytes == stored.object.bytes {
                        return Ok(done);
                    }
                    let guard = Guard::ModRevision(key.clone(), stored.mod_revision);
                    match self.propose(ctx, guard, Self::put(&key, object), triarch_mvcc::Txn::default()).await? {
                        Outcome::Done(_) => return Ok(done),
                        Outcome::Lost { .. } => fresh = false,
                    }
                }
            }
        }
        Err(err::modified(kind, target.name))
    }

    /// Admission and the action itself, against one state of the parent.
    async fn decide(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        action: Action,
        stored: &Stored,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<(Value, ActionOutcome), Status> {
        let parent = Served::stored(target.kind, stored).value();
        let mut attributes = Attributes {
            kind: target.kind,
            subresource: target.subresource,
            operation: Operation::Create,
            namespace: target.namespace,
            name: target.name,
            object: Some(&mut body),
            touched: false,
            old: Some(&parent),
            ctx,
            options: &Value::Null,
            dry_run: options.dry_run,
            store: self.mvcc(),
            env: &self.env,
        };
        self.admission.admit(&mut attributes).await?;
        self.admission.validate(&attributes).await?;
        let rules = self.rules(ctx, target.subresource);
        let context = ActionContext { rules: &rules, object: &parent, name: target.name, namespace: target.namespace };
        let outcome = action(&context, body)?;
        Ok((parent, outcome))
    }
}
