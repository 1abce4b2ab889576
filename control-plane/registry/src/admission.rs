//! The seam to admission: what a plugin chain sees of a write.
//!
//! The chain itself is in `triarch-admission`. Mutation runs before defaults
//! are applied a second time and before validation; validation runs on what
//! will be stored.

use async_trait::async_trait;
use serde_json::Value;
use triarch_api::status::Status;
use triarch_env::Env;
use triarch_mvcc::Mvcc;

use crate::{Kind, RequestContext};

/// What the request does, in admission's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// One admission request.
pub struct Attributes<'a> {
    pub kind: &'static Kind,
    pub subresource: Option<&'a str>,
    pub operation: Operation,
    /// Empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// May be empty on create with `generateName`.
    pub name: &'a str,
    /// The object as sent and defaulted (the body of an action for `Action`
    /// subresources); `None` on delete.
    pub(crate) object: Option<&'a mut Value>,
    /// Whether a plugin asked for the object to change it.
    pub(crate) touched: bool,
    /// The stored object; `None` on create.
    pub old: Option<&'a Value>,
    pub ctx: &'a RequestContext,
    /// DeleteOptions on delete, else Null.
    pub options: &'a Value,
    pub dry_run: bool,
    pub store: &'a Mvcc,
    pub env: &'a Env,
}

impl Attributes<'_> {
    pub fn object(&self) -> Option<&Value> {
        self.object.as_deref()
    }

    /// For plugins that change it: what was defaulted before is defaulted again.
    pub fn object_mut(&mut self) -> Option<&mut Value> {
        self.touched = true;
        self.object.as_deref_mut()
    }
}

/// The plugin chain.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// May change `attrs.object`. Called again when a write is retried on a
    /// conflict, with what was sent.
    async fn admit(&self, attrs: &mut Attributes<'_>) -> Result<(), Status>;

    /// Sees the final object and changes nothing.
    async fn validate(&self, _attrs: &Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }
}

/// Admits everything: for tests and for stores without a cluster around them.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmitAll;

#[async_trait]
impl Admission for AdmitAll {
    async fn admit(&self, _attrs: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }
}
