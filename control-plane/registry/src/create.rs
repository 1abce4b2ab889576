//! create.

use serde_json::Value;
use triarch_api::meta;
use triarch_api::status::{ErrorList, Status};
use triarch_mvcc::{Guard, Key, Object, Revision, Txn};

use crate::registry::{MAX_ATTEMPTS, Outcome};
use crate::{
    Attributes, Body, Kind, Operation, Registry, RequestContext, Response, Served, SubresourceHandler, Target,
    WriteOptions, encode, err, object_meta, served,
};

/// Generated names that are taken are drawn again so often.
const MAX_NAMES: usize = 8;

impl Registry {
    /// Creates `body`, or for an action subresource does what it says.
    pub async fn create(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Response, Status> {
        match self.handler(target)? {
            None => {}
            Some(SubresourceHandler::Action(action)) => return self.act(ctx, target, action, body, options).await,
            Some(_) => return Err(Status::method_not_supported(err::resource(target.kind), "create")),
        }
        let kind = target.kind;
        object_meta::place(kind, target.namespace, &mut body)?;
        served::set_type(&mut body, kind);
        encode::normalize(kind, &mut body)?;
        if !kind.stored {
            return self.answer(ctx, target, body, options).await;
        }
        if meta::resource_version(&body).parse::<u64>().is_ok_and(|rv| rv != 0) {
            let message = "resourceVersion should not be set on objects to be created".to_owned();
            return Err(Status { reason: "", message, details: None, ..err::internal("") });
        }
        let (mut fresh, mut names) = (false, 0);
        for _ in 0..MAX_ATTEMPTS {
            let seen = self.mvcc().revision();
            let draft = match self.draft(ctx, target, &body, options).await {
                Ok(draft) => draft,
                Err(_) if !fresh && self.barrier().await? > seen => {
                    // It was judged by a memory that lagged behind: once more.
                    fresh = true;
                    continue;
                }
                Err(status) => return Err(status),
            };
            if options.dry_run {
                if self.mvcc().get(&draft.key).is_some() {
                    return Err(self.exists(kind, &draft.key));
                }
                return Ok(Response { code: 201, body: Body::Value { schema: kind.schema, value: draft.value } });
            }
            match self
                .propose(
                    ctx,
                    Guard::Absent(draft.key.clone()),
                    Self::put(&draft.key, draft.object.clone()),
                    draft.joined,
                )
                .await?
            {
                Outcome::Done(revision) => return Ok(created(kind, draft.object, revision)),
                Outcome::Lost { own: false } => {}
                Outcome::Lost { own: true } if draft.generated => {
                    names += 1;
                    if names == MAX_NAMES {
                        return Err(Status::generate_name_conflict(err::resource(kind), draft.key.name(), 1));
                    }
                }
                Outcome::Lost { own: true } => return Err(self.exists(kind, &draft.key)),
            }
        }
        Err(Status::server_timeout(err::resource(kind), "create", 1))
    }

    /// Everything up to the proposal, against this replica's memory.
    pub(crate) async fn draft(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        body: &Value,
        options: &WriteOptions,
    ) -> Result<Draft, Status> {
        let kind = target.kind;
        let mut value = body.clone();
        let generated = object_meta::generate_name(&self.env, &mut value);
        object_meta::fill(kind, &self.env, self.env.wall(), &mut value);
        let name = meta::name(&value).to_owned();
        let mut attributes = Attributes {
            kind,
            subresource: None,
            operation: Operation::Create,
            namespace: target.namespace,
            name: &name,
            object: Some(&mut value),
            touched: false,
            old: None,
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
            let rules = self.rules(ctx, None);
            (kind.refuse)(&rules, &value)?;
            (kind.prepare_create)(&rules, &mut value);
            let mut errors = ErrorList::new();
            object_meta::validate(kind, &value, &mut errors);
            (kind.validate)(&rules, &value, &mut errors);
            if !errors.is_empty() {
                return Err(err::invalid(kind, meta::name(&value), &errors));
            }
            for warning in (kind.warnings)(&value, None) {
                ctx.warn(warning);
            }
            if let Some(allocate) = kind.allocate {
                allocate(&rules, Some(&mut value), None, &mut joined)?;
            }
        }
        let attributes = Attributes {
            kind,
            subresource: None,
            operation: Operation::Create,
            namespace: target.namespace,
            name: &name,
            object: Some(&mut value),
            touched: false,
            old: None,
            ctx,
            options: &Value::Null,
            dry_run: options.dry_run,
            store: self.mvcc(),
            env: &self.env,
        };
        self.admission.validate(&attributes).await?;
        let (object, value) = self.seal(kind, value)?;
        let key = self.key(&Target { name: &name, ..*target })?;
        Ok(Draft { key, object, value, joined, generated })
    }

    /// The stored object of a value; also the value in its final form.
    pub(crate) fn seal(&self, kind: &'static Kind, mut value: Value) -> Result<(Object, Value), Status> {
        encode::canonicalize(encode::schema_of(kind.schema)?, kind, &mut value)?;
        let storage = self.storage_kind(kind);
        let object = match kind.to_storage {
            None => encode::to_object(storage, &value)?,
            Some(convert) => encode::to_object(storage, &convert(value.clone()))?,
        };
        Ok((object, value))
    }

    fn exists(&self, kind: &'static Kind, key: &Key) -> Status {
        let mut status = Status::already_exists(err::resource(kind), key.name());
        if self.mvcc().get(key).is_some_and(|s| s.object.meta.deleting) {
            status.message = format!("object is being deleted: {}", status.message);
        }
        status
    }

    /// A kind that is answered and not kept.
    async fn answer(
        &self,
        ctx: &RequestContext,
        target: &Target<'_>,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Response, Status> {
        let kind = target.kind;
        let name = meta::name(&body).to_owned();
        let mut attributes = Attributes {
            kind,
            subresource: None,
            operation: Operation::Create,
            namespace: target.namespace,
            name: &name,
            object: Some(&mut body),
            touched: false,
            old: None,
            ctx,
            options: &Value::Null,
            dry_run: options.dry_run,
            store: self.mvcc(),
            env: &self.env,
        };
        self.admission.admit(&mut attributes).await?;
        {
            let rules = self.rules(ctx, None);
            (kind.refuse)(&rules, &body)?;
            (kind.prepare_create)(&rules, &mut body);
            let mut errors = ErrorList::new();
            (kind.validate)(&rules, &body, &mut errors);
            if !errors.is_empty() {
                return Err(err::invalid(kind, &name, &errors));
            }
        }
        let answers =
            self.virtual_for(kind).ok_or_else(|| Status::method_not_supported(err::resource(kind), "create"))?;
        let value = answers.create(ctx, kind, target.namespace, body).await?;
        Ok(Response { code: 201, body: Body::Value { schema: kind.schema, value } })
    }
}

/// A create that is ready to be proposed.
pub(crate) struct Draft {
    pub key: Key,
    pub object: Object,
    pub value: Value,
    pub joined: Txn,
    /// The name was drawn here.
    pub generated: bool,
}

pub(crate) fn created(kind: &'static Kind, object: Object, revision: Revision) -> Response {
    Response { code: 201, body: Body::Object(Served { kind, object, revision }) }
}
