//! The registry from inside the process: what controllers, the scheduler and
//! the gateway write through. The same validation and admission as a request.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use triarch_api::meta;
use triarch_api::status::Status;

use crate::{
    Body, DeleteOptions, FieldValidation, Kind, ListOptions, ListPage, PatchType, Registry, RequestContext, Response,
    Target, Transform, WriteOptions, err,
};

/// Writes of a batch in flight at once; they are proposed concurrently, and so
/// share entries of the log.
const BATCH: usize = 64;

/// One write of a batch.
#[derive(Clone, Debug)]
pub enum Write {
    Create(Value),
    Update(Value),
    UpdateStatus(Value),
    /// PUT of a subresource that shows the object.
    Put(Value, &'static str),
    Patch {
        kind: &'static Kind,
        namespace: String,
        name: String,
        how: PatchType,
        patch: Value,
        subresource: Option<&'static str>,
    },
    Delete {
        kind: &'static Kind,
        namespace: String,
        name: String,
        options: DeleteOptions,
    },
    Bind {
        namespace: String,
        pod: String,
        uid: String,
        node: String,
    },
}

/// A registry with an identity.
#[derive(Clone)]
pub struct Client {
    registry: Arc<Registry>,
    ctx: RequestContext,
}

impl Registry {
    /// A client that acts as `ctx.user` and is fenced by `ctx.epoch`.
    pub fn client(self: &Arc<Self>, ctx: RequestContext) -> Client {
        Client { registry: self.clone(), ctx }
    }
}

impl Client {
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub fn context(&self) -> &RequestContext {
        &self.ctx
    }

    /// By `apiVersion` and `kind`, e.g. `("apps/v1", "Deployment")`.
    pub fn kind(&self, api_version: &str, kind: &str) -> Result<&'static Kind, Status> {
        let found = self.registry.kinds().by_type(api_version, kind);
        found.ok_or_else(|| err::internal(format!("no kind {kind} in {api_version}")))
    }

    fn kind_of(&self, object: &Value) -> Result<&'static Kind, Status> {
        self.kind(meta::api_version(object), meta::kind(object))
    }

    /// A context of its own for each write, so that warnings of one do not reach another.
    fn fresh(&self) -> RequestContext {
        self.ctx.fresh()
    }

    fn options(&self) -> WriteOptions {
        WriteOptions {
            field_manager: self.ctx.user.name.clone(),
            field_validation: FieldValidation::Ignore,
            dry_run: false,
        }
    }

    /// A linearizable get.
    pub async fn get(&self, kind: &'static Kind, namespace: &str, name: &str) -> Result<Value, Status> {
        Ok(self.registry.get(&self.ctx, &Target::object(kind, namespace, name), "").await?.into_value())
    }

    pub async fn list(&self, kind: &'static Kind, namespace: &str, options: &ListOptions) -> Result<ListPage, Status> {
        self.registry.list(&self.ctx, &Target::collection(kind, namespace), options).await
    }

    pub async fn create(&self, object: Value) -> Result<Value, Status> {
        Ok(self.created(object).await?.into_value())
    }

    async fn created(&self, object: Value) -> Result<Response, Status> {
        let kind = self.kind_of(&object)?;
        let namespace = meta::namespace(&object).to_owned();
        let target = Target::collection(kind, &namespace);
        self.registry.create(&self.fresh(), &target, object, &self.options()).await
    }

    pub async fn update(&self, object: Value) -> Result<Value, Status> {
        self.put(object, None).await
    }

    pub async fn update_status(&self, object: Value) -> Result<Value, Status> {
        self.put(object, Some("status")).await
    }

    /// PUT of any subresource that shows the object (`status`, `finalize`, `approval`).
    pub async fn put(&self, object: Value, subresource: Option<&str>) -> Result<Value, Status> {
        Ok(self.replaced(object, subresource).await?.into_value())
    }

    async fn replaced(&self, object: Value, subresource: Option<&str>) -> Result<Response, Status> {
        let kind = self.kind_of(&object)?;
        let (namespace, name) = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
        let target = Target { kind, subresource, namespace: &namespace, name: &name };
        self.registry.update(&self.fresh(), &target, object, &self.options()).await
    }

    /// Writes the status that `change` makes of the present object; see
    /// [`Registry::change_status`].
    pub async fn change_status(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        change: Transform<'_>,
    ) -> Result<Response, Status> {
        let target = Target::object(kind, namespace, name);
        self.registry.change_status(&self.fresh(), &target, change, &self.options()).await
    }

    pub async fn patch(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        how: PatchType,
        patch: &Value,
        subresource: Option<&str>,
    ) -> Result<Value, Status> {
        Ok(self.patched(kind, namespace, name, how, patch, subresource).await?.into_value())
    }

    async fn patched(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        how: PatchType,
        patch: &Value,
        subresource: Option<&str>,
    ) -> Result<Response, Status> {
        let target = Target { kind, subresource, namespace, name };
        let body = Bytes::from(patch.to_string());
        self.registry.patch(&self.fresh(), &target, how, body, &self.options()).await
    }

    pub async fn delete(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Value, Status> {
        Ok(self.deleted(kind, namespace, name, options).await?.into_value())
    }

    async fn deleted(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Response, Status> {
        self.registry.delete(&self.fresh(), &Target::object(kind, namespace, name), options).await
    }

    /// POST to an action subresource (`eviction`, `token`, `binding`).
    pub async fn post(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: Value,
    ) -> Result<Value, Status> {
        let target = Target { kind, subresource: Some(subresource), namespace, name };
        Ok(self.registry.create(&self.fresh(), &target, body, &self.options()).await?.into_value())
    }

    /// Binds a pod to a node; `uid` (may be empty) is the pod that was looked at.
    pub async fn bind(&self, namespace: &str, pod: &str, uid: &str, node: &str) -> Result<(), Status> {
        let pods = self.kind("v1", "Pod")?;
        let mut metadata = json!({"name": pod, "namespace": namespace});
        if !uid.is_empty() {
            metadata["uid"] = uid.into();
        }
        let target = json!({"kind": "Node", "name": node});
        let body = json!({"kind": "Binding", "apiVersion": "v1", "metadata": metadata, "target": target});
        self.post(pods, namespace, pod, "binding", body).await.map(drop)
    }

    pub async fn write(&self, write: Write) -> Result<Value, Status> {
        Ok(self.respond(write).await?.into_value())
    }

    /// [`Client::write`] for who does not need the object: it is not decoded.
    pub async fn respond(&self, write: Write) -> Result<Response, Status> {
        match write {
            Write::Create(v) => self.created(v).await,
            Write::Update(v) => self.replaced(v, None).await,
            Write::UpdateStatus(v) => self.replaced(v, Some("status")).await,
            Write::Put(v, subresource) => self.replaced(v, Some(subresource)).await,
            Write::Patch { kind, namespace, name, how, patch, subresource } => {
                self.patched(kind, &namespace, &name, how, &patch, subresource).await
            }
            Write::Delete { kind, namespace, name, options } => self.deleted(kind, &namespace, &name, &options).await,
            Write::Bind { namespace, pod, uid, node } => {
                self.bind(&namespace, &pod, &uid, &node).await?;
                Ok(Response::ok(Body::Value { schema: "", value: Value::Null }))
            }
        }
    }

    /// Independent writes, proposed concurrently; the results are in order.
    pub async fn batch(&self, writes: Vec<Write>) -> Vec<Result<Value, Status>> {
        let each: Vec<BoxFuture<'_, Result<Value, Status>>> =
            writes.into_iter().map(|w| self.write(w).boxed()).collect();
        futures::stream::iter(each).buffered(BATCH).collect().await
    }
}
