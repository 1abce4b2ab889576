//! Seams to what answers requests without being stored.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use triarch_api::meta;
use triarch_api::status::Status;

use crate::{Kind, Registry, RequestContext, Target, WriteOptions};

/// Issues what an action subresource cannot make from the store alone
/// (TokenRequest): it gets the parent object and the validated request.
#[async_trait]
pub trait Issuer: Send + Sync + 'static {
    async fn issue(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        parent: &Value,
        request: Value,
    ) -> Result<Value, Status>;
}

/// Answers a kind that is not stored (reviews). `object` is decoded,
/// defaulted and validated; the answer is the whole object with its status.
#[async_trait]
pub trait Virtual: Send + Sync + 'static {
    /// The kinds that it answers, as `(group, kind)`.
    fn answers(&self, kind: &'static Kind) -> bool;
    async fn create(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        object: Value,
    ) -> Result<Value, Status>;
}

/// A Binding posted to its own collection is one posted to the pod that it names.
pub(crate) struct Bindings(pub Arc<Registry>);

#[async_trait]
impl Virtual for Bindings {
    fn answers(&self, kind: &'static Kind) -> bool {
        kind.group.is_empty() && kind.kind == "Binding"
    }

    async fn create(
        &self,
        ctx: &RequestContext,
        _kind: &'static Kind,
        namespace: &str,
        object: Value,
    ) -> Result<Value, Status> {
        let pods = self.0.kinds().get("", "v1", "pods").ok_or_else(Status::no_such_resource)?;
        let name = meta::name(&object).to_owned();
        let target = Target::object(pods, namespace, &name).with_subresource("binding");
        Ok(self.0.create(ctx, &target, object, &WriteOptions::default()).await?.into_value())
    }
}
