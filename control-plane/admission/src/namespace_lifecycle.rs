//! NamespaceLifecycle: objects live in namespaces that exist and stay; the
//! system's own namespaces are not deleted.

use triarch_api::status::Status;
use triarch_kinds::stored;
use triarch_kinds::value::str_at;
use triarch_registry::{Attributes, Operation};

use crate::{Plugin, forbidden};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn admit(&self, attrs: &mut Attributes<'_>) -> Result<(), Status> {
        let is_namespace = attrs.kind.group.is_empty() && attrs.kind.plural == "namespaces";
        if is_namespace && attrs.operation == Operation::Delete && IMMORTAL.contains(&attrs.name) {
            return Err(forbidden(attrs, "this namespace may not be deleted"));
        }
        if !attrs.kind.namespaced() || attrs.namespace.is_empty() || attrs.operation == Operation::Delete {
            return Ok(());
        }
        if attrs.kind.plural == "localsubjectaccessreviews" {
            return Ok(());
        }
        let Some(namespace) = stored::get(attrs.store, "namespaces", "", attrs.namespace) else {
            return Err(Status::not_found(("", "namespaces"), attrs.namespace));
        };
        if attrs.operation != Operation::Create || str_at(&namespace, &["status", "phase"]) != "Terminating" {
            return Ok(());
        }
        let name = attrs.namespace;
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let message = format!("namespace {name} is being terminated");
        Err(forbidden(attrs, why).cause("NamespaceTerminating", &message, "metadata.namespace"))
    }
}
