//! Seams to what answers requests without being stored.

use async_trait::async_trait;
use serde_json::Value;
use triarch_api::status::Status;

use crate::{Kind, RequestContext};

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
