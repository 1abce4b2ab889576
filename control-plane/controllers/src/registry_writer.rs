//! Plans' writes through the registry: the same validation and admission as a
//! request, as the identity of a control-plane component, fenced by its epoch.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use triarch_api::status::Status;
use triarch_mvcc::Epoch;
use triarch_registry::{Client, Kind, KindTable, ListOptions, PatchType, Registry, RequestContext, Target};

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
        let c = &self.client;
        let value = match op {
            Op::Create { object, .. } => c.create(object.clone()).await,
            Op::Update { object, .. } => c.update(object.clone()).await,
            Op::UpdateSub { subresource, object, .. } => c.put(object.clone(), Some(subresource)).await,
            Op::Patch { resource, name, subresource, patch } => {
                let kind = self.kind(resource)?;
                c.patch(kind, &name.namespace, &name.name, PatchType::Merge, patch, *subresource).await
            }
            Op::Delete { resource, name, options } => {
                let kind = self.kind(resource)?;
                c.delete(kind, &name.namespace, &name.name, &delete_options(options)).await.map(|_| json!({}))
            }
            Op::DeleteAll { resource, namespace } => {
                self.delete_all(resource, namespace).await?;
                Ok(json!({}))
            }
            Op::Bind { name, uid, node } => c.bind(&name.namespace, &name.name, uid, node).await.map(|()| json!({})),
        };
        let value = value.map_err(error)?;
        let m = &value["metadata"];
        let revision = m["resourceVersion"].as_str().and_then(|v| v.trim().parse().ok()).unwrap_or_else(|| self.head());
        Ok(Written { revision, name: m["name"].as_str().unwrap_or_default().to_owned() })
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
