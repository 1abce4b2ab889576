//! Plans' writes through the registry: the same validation and admission as a
//! request, as the identity of a control-plane component, fenced by its epoch.

use std::sync::Arc;

use async_trait::async_trait;
use triarch_api::status::Status;
use triarch_mvcc::Epoch;
use triarch_registry::{
    Client, Kind, KindTable, ListOptions, PatchType, Registry, RequestContext, Target, Write as ClientWrite,
};

use crate::{DeleteOptions, KindInfo, Kinds, Op, WriteError, Writer, Written};

/// Objects of a page of [`Op::DeleteAll`].
const PAGE: usize = 500;
/// Pages of one [`Op::DeleteAll`]; the controller asks again for the rest.
const PAGES: usize = 20;

/// A [`Writer`] over a registry.
pub struct RegistryWriter {
    client: Client,
}

impl RegistryWriter {
    /// `component`: `system:kube-controller-manager`, `system:kube-scheduler`.
    /// With an epoch every write is refused once that leadership has ended.
    pub fn new(registry: &Arc<Registry>, component: &str, epoch: Option<Epoch>) -> RegistryWriter {
        let mut ctx = RequestContext::component(component, epoch);
        // The control plane's own components are not anybody's users.
        let mut user = (*ctx.user).clone();
        user.groups.push("system:masters".into());
        ctx.user = Arc::new(user);
        RegistryWriter { client: registry.client(ctx) }
    }

    fn kind(&self, resource: &str) -> Result<&'static Kind, WriteError> {
        let found = self.client.registry().kinds().by_resource(resource);
        found.ok_or_else(|| WriteError::Other(format!("no kind is stored as {resource}")))
    }

    /// Everything that was committed before this call is at or below it.
    fn head(&self) -> u64 {
        self.client.registry().mvcc().revision()
    }

    async fn delete_all(&self, resource: &str, namespace: &str) -> Result<(), WriteError> {
        let kind = self.kind(resource)?;
        let mut list = ListOptions { limit: PAGE, resource_version: String::new(), ..ListOptions::default() };
        for _ in 0..PAGES {
            let target = Target::collection(kind, namespace);
            let options = triarch_registry::DeleteOptions::default();
            let ctx = self.client.context().fresh();
            let page = self.client.registry().delete_collection(&ctx, &target, &list, &options).await.map_err(error)?;
            if page.continue_token.is_empty() {
                break;
            }
            list.continue_token = page.continue_token;
        }
        Ok(())
    }
}

#[async_trait]
impl Writer for RegistryWriter {
    async fn write(&self, op: &Op) -> Result<Written, WriteError> {
        let (namespace, name) =
            op.name().map_or_else(Default::default, |n| (n.namespace.to_string(), n.name.to_string()));
        let deletes = matches!(op, Op::Delete { .. });
        let write = match op {
            Op::Create { object, .. } => ClientWrite::Create(object.clone()),
            Op::Update { object, .. } => ClientWrite::Update(object.clone()),
            Op::UpdateSub { subresource, object, .. } => ClientWrite::Put(object.clone(), subresource),
            Op::Patch { resource, subresource, patch, .. } => ClientWrite::Patch {
                kind: self.kind(resource)?,
                namespace,
                name,
                how: PatchType::Merge,
                patch: patch.clone(),
                subresource: *subresource,
            },
            Op::Delete { resource, options, .. } => {
                ClientWrite::Delete { kind: self.kind(resource)?, namespace, name, options: delete_options(options) }
            }
            Op::DeleteAll { resource, namespace } => {
                self.delete_all(resource, namespace).await?;
                return Ok(Written { revision: self.head(), name: String::new() });
            }
            Op::Bind { uid, node, .. } => {
                ClientWrite::Bind { namespace, pod: name, uid: uid.clone(), node: node.clone() }
            }
        };
        let (name, revision) = self.client.respond(write).await.map_err(error)?.identity();
        // A deletion's answer is the object as it was: its own revision may be older.
        let revision = revision.filter(|_| !deletes).unwrap_or_else(|| self.head());
        Ok(Written { revision, name })
    }
}

fn delete_options(o: &DeleteOptions) -> triarch_registry::DeleteOptions {
    triarch_registry::DeleteOptions {
        grace_period_seconds: o.grace_period_seconds,
        uid: o.uid.clone(),
        resource_version: o.resource_version.clone(),
        propagation_policy: o.propagation.map(str::to_owned),
        ..triarch_registry::DeleteOptions::default()
    }
}

fn error(s: Status) -> WriteError {
    let terminating = s.details.iter().flat_map(|d| &d.causes).any(|c| c.reason == "NamespaceTerminating");
    match s.reason {
        _ if terminating => WriteError::NamespaceTerminating(s.message),
        "NotFound" => WriteError::NotFound(s.message),
        "AlreadyExists" => WriteError::AlreadyExists(s.message),
        "Conflict" => WriteError::Conflict(s.message),
        _ => WriteError::Other(s.message),
    }
}

/// The stored kinds of a registry, as controllers need them.
pub fn kinds_of(table: &KindTable) -> Kinds {
    Kinds::new(
        table
            .iter()
            .filter(|k| k.stored)
            .map(|k| KindInfo {
                api_version: k.api_version(),
                kind: k.kind,
                resource: k.resource,
                plural: k.plural,
                namespaced: k.namespaced(),
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_reason_and_cause() {
        assert!(matches!(error(Status::not_found(("", "pods"), "a")), WriteError::NotFound(_)));
        assert!(matches!(error(Status::conflict(("", "pods"), "a", "x")), WriteError::Conflict(_)));
        assert!(matches!(error(Status::already_exists(("", "pods"), "a")), WriteError::AlreadyExists(_)));
        let dying = Status::forbidden(("", "pods"), "a", "x").cause("NamespaceTerminating", "x", "metadata.namespace");
        assert!(matches!(error(dying), WriteError::NamespaceTerminating(_)));
        assert!(matches!(error(Status::internal("x")), WriteError::Other(_)));
    }
}
