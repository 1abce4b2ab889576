//! Admission: what a write must pass besides its kind's own rules.
//!
//! [`PLUGINS`] is the visible list, in the order in which plugins run: first all
//! of them may change the object, then, on the final object, all of them may
//! refuse it. One file each; each decides from the request and this replica's
//! memory, and does no IO. A refusal is a `Status` in upstream's words.

mod certificate_approval;
mod certificate_signing;
mod certificate_subject_restriction;
mod csr_identity;
mod default_toleration_seconds;
mod namespace_lifecycle;
mod node_restriction;
mod service_account;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use triarch_api::meta;
use triarch_api::status::Status;
use triarch_kinds::value::str_at;
use triarch_registry::{Admission, Attributes, Authorizer, AuthzAttributes};

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

    /// A permission that the user must have besides; asked with the final object.
    fn requires(&self, _attrs: &Attributes<'_>) -> Option<Requirement> {
        None
    }
}

/// One of these must be allowed, or the write is refused so.
pub struct Requirement {
    pub any_of: Vec<AuthzAttributes>,
    pub refusal: Status,
}

/// Every plugin, in order.
pub static PLUGINS: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &csr_identity::CertificateSigningRequestIdentity,
    &default_toleration_seconds::DefaultTolerationSeconds,
    &certificate_approval::CertificateApproval,
    &certificate_signing::CertificateSigning,
    &certificate_subject_restriction::CertificateSubjectRestriction,
];

/// The chain over [`PLUGINS`].
pub struct Chain {
    authorizer: Arc<dyn Authorizer>,
}

impl Chain {
    /// `authorizer` answers what plugins require of the user.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Chain {
        Chain { authorizer }
    }

    async fn ask(&self, attrs: &Attributes<'_>, required: Requirement) -> Result<(), Status> {
        for question in &required.any_of {
            if self.authorizer.authorize(&attrs.ctx.user, question).await.allowed() {
                return Ok(());
            }
        }
        Err(required.refusal)
    }
}

#[async_trait]
impl Admission for Chain {
    async fn admit(&self, attrs: &mut Attributes<'_>) -> Result<(), Status> {
        PLUGINS.iter().try_for_each(|plugin| plugin.admit(attrs))
    }

    async fn validate(&self, attrs: &Attributes<'_>) -> Result<(), Status> {
        for plugin in PLUGINS {
            plugin.validate(attrs)?;
            if let Some(required) = plugin.requires(attrs) {
                self.ask(attrs, required).await?;
            }
        }
        Ok(())
    }
}

/// Whether the request is about this subresource of a certificate request.
fn request_view(attrs: &Attributes<'_>, subresource: &str) -> bool {
    attrs.kind.group == "certificates.k8s.io"
        && attrs.kind.plural == "certificatesigningrequests"
        && attrs.subresource == Some(subresource)
}

fn signer(request: &Value) -> &str {
    str_at(request, &["spec", "signerName"])
}

/// `verb` on the signer itself, or on all signers of its domain.
fn signer_requirement(verb: &str, signer: &str, refusal: Status) -> Requirement {
    let domain = signer.split('/').next().unwrap_or_default();
    let ask = |name: String| AuthzAttributes {
        verb: verb.into(),
        resource_request: true,
        group: "certificates.k8s.io".into(),
        version: "*".into(),
        resource: "signers".into(),
        name,
        ..AuthzAttributes::default()
    };
    Requirement { any_of: vec![ask(signer.to_owned()), ask(format!("{domain}/*"))], refusal }
}

/// `pods "x" is forbidden: why`.
fn forbidden(attrs: &Attributes<'_>, why: impl std::fmt::Display) -> Status {
    let object = attrs.object();
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
