//! Admission: what a write must pass besides its kind's own rules.
//!
//! [`PLUGINS`] is the visible list, in the order in which plugins run: first all
//! of them may change the object, then, on the final object, all of them may
//! refuse it. One file each; each decides from the request and this replica's
//! memory, and does no IO. A refusal is a `Status` in upstream's words.

mod csr_identity;
mod default_toleration_seconds;
mod namespace_lifecycle;
mod node_restriction;
mod service_account;

use async_trait::async_trait;
use serde_json::Value;
use triarch_api::meta;
use triarch_api::status::Status;
use triarch_registry::{Admission, Attributes};

/// One plugin.
pub trait Plugin: Send + Sync {
    /// As upstream names it.
    fn name(&self) -> &'static str;

    /// May change the object.
    fn admit(&self, _attrs: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// Sees the final object.
    fn validate(&self, _attrs: &Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }
}

/// Every plugin, in order.
pub static PLUGINS: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &csr_identity::CertificateSigningRequestIdentity,
    &default_toleration_seconds::DefaultTolerationSeconds,
];

/// The chain over [`PLUGINS`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Chain;

#[async_trait]
impl Admission for Chain {
    async fn admit(&self, attrs: &mut Attributes<'_>) -> Result<(), Status> {
        PLUGINS.iter().try_for_each(|plugin| plugin.admit(attrs))
    }

    async fn validate(&self, attrs: &Attributes<'_>) -> Result<(), Status> {
        PLUGINS.iter().try_for_each(|plugin| plugin.validate(attrs))
    }
}

/// `pods "x" is forbidden: why`.
fn forbidden(attrs: &Attributes<'_>, why: impl std::fmt::Display) -> Status {
    let object = attrs.object.as_deref();
    let from_object = |get: fn(&Value) -> &str| object.map_or("", get);
    let name = [attrs.name, from_object(meta::name), from_object(meta::generate_name), "Unknown"]
        .into_iter()
        .find(|n| !n.is_empty())
        .unwrap_or_default();
    Status::forbidden((attrs.kind.group, attrs.kind.plural), name, why)
}

/// Whether the request is about this resource itself, not a subresource of it.
fn is(attrs: &Attributes<'_>, group: &str, plural: &str) -> bool {
    attrs.kind.group == group && attrs.kind.plural == plural && attrs.subresource.is_none()
}
