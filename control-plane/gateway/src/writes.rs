//! What an agent may change, and how: its node, its pods' status, their final
//! removal, its events. Every write goes through the registry as the node's
//! own user, after the check that the object is the node's.

use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use triarch_api::status::Status;
use triarch_mvcc::Key;
use triarch_registry::{Client, DeleteOptions, Registry, RequestContext, UserInfo, Write};
use triarch_rpc::node::PodStatusUpdate;

use crate::node_set::value;

/// How often a status is written again after somebody else's write came first.
const ATTEMPTS: usize = 5;
/// Events of one batch; what exceeds it is dropped, as events may be.
const MAX_EVENTS: usize = 256;

/// The registry as one node's user.
pub struct NodeWriter {
    node: String,
    client: Client,
    registry: Arc<Registry>,
    /// The NodeStatus as the agent last said it.
    said: Mutex<Option<Value>>,
}

fn name(v: &Value, field: &str) -> String {
    v.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl NodeWriter {
    pub fn new(registry: &Arc<Registry>, node: &str) -> NodeWriter {
        let user = UserInfo::new(format!("system:node:{node}"), &[triarch_auth::NODES, triarch_auth::AUTHENTICATED]);
        let client = registry.client(RequestContext::new(user, format!("node-{node}")));
        NodeWriter { node: node.to_owned(), client, registry: registry.clone(), said: Mutex::default() }
    }

    fn current(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.registry.mvcc().get(&Key::new(resource, namespace, name)).map(|s| value(&s))
    }

    /// Creates the Node, or merges into it what an agent owns: labels and
    /// annotations that it reports; then its status.
    pub async fn register(&self, node: Value) -> Result<(), Status> {
        if name(&node, "name") != self.node {
            return Err(Status::forbidden(("", "nodes"), &name(&node, "name"), "an agent registers its own node only"));
        }
        let mut wanted = node.clone();
        wanted["kind"] = "Node".into();
        wanted["apiVersion"] = "v1".into();
        match self.client.create(wanted.clone()).await {
            Ok(_) => {}
            Err(s) if s.is_already_exists() => {
                let patch = json!({"metadata": {
                    "labels": node.pointer("/metadata/labels").cloned().unwrap_or(json!({})),
                    "annotations": node.pointer("/metadata/annotations").cloned().unwrap_or(json!({})),
                }});
                let kind = self.client.kind("v1", "Node")?;
                let how = triarch_registry::PatchType::Merge;
                self.client.patch(kind, "", &self.node, how, &patch, None).await?;
            }
            Err(s) => return Err(s),
        }
        match node.get("status") {
            Some(status) => self.node_status(status).await,
            None => Ok(()),
        }
    }

    /// Merges the reported NodeStatus into the Node's: top-level fields that
    /// the agent names are its own, capacity entries that others added
    /// (extended resources patched in) stay.
    pub async fn node_status(&self, status: &Value) -> Result<(), Status> {
        *self.said.lock() = Some(status.clone());
        self.retry(|| {
            Box::pin(async {
                let mut node = match self.current("nodes", "", &self.node) {
                    Some(n) => n,
                    None => self.client.get(self.client.kind("v1", "Node")?, "", &self.node).await?,
                };
                merge_node_status(&mut node["status"], status);
                self.client.update_status(node).await.map(drop)
            })
        })
        .await
    }

    /// Whether node lifecycle has said of this node that nothing is known of it.
    pub fn given_up(&self) -> bool {
        let Some(node) = self.current("nodes", "", &self.node) else { return false };
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "Unknown")
    }

    /// Writes once more what the agent last said: it says things only once,
    /// and cannot know that somebody else has written over them since.
    pub async fn node_status_again(&self) {
        let said = self.said.lock().clone();
        if let Some(status) = said
            && let Err(s) = self.node_status(&status).await
        {
            tracing::debug!(node = %self.node, message = %s.message, "node status not written again");
        }
    }

    /// Writes a pod's status, and removes the pod when the agent says that
    /// nothing of it is left and it is being deleted.
    ///
    /// `Ok(Some(reason))`: refused for good; the agent need not send it again.
    pub async fn pod_status(&self, update: &PodStatusUpdate) -> Result<Option<String>, Status> {
        let status: Value = match serde_json::from_slice(&update.status_json) {
            Ok(v @ Value::Object(_)) => v,
            _ => return Ok(Some("the status is not a JSON object".into())),
        };
        let mut refused = None;
        let kind = self.client.kind("v1", "Pod")?;
        let change = |pod: &Value| {
            if !self.is_mine(pod, update) {
                return Err(gone(update));
            }
            let status = keep_conditions_of_others(&pod["status"], status.clone());
            Ok(json!({"kind": "Pod", "apiVersion": "v1", "metadata": pod["metadata"], "status": status}))
        };
        let written = self.client.change_status(kind, &update.namespace, &update.name, &change).await.map(drop);
        match written {
            Ok(()) => {}
            Err(s) if s.is_not_found() => refused = Some(s.message.clone()),
            Err(s) if s.code == 422 || s.code == 403 => refused = Some(s.message.clone()),
            Err(s) => return Err(s),
        }
        if update.terminated {
            let Some(pod) = self.mine(update) else { return Ok(refused) };
            if pod.pointer("/metadata/deletionTimestamp").is_some() {
                let options = DeleteOptions {
                    grace_period_seconds: Some(0),
                    uid: Some(update.uid.clone()),
                    ..DeleteOptions::default()
                };
                match self.client.delete(kind, &update.namespace, &update.name, &options).await {
                    Err(s) if !s.is_not_found() && !s.is_conflict() => return Err(s),
                    _ => {}
                }
            }
        }
        Ok(refused)
    }

    /// The pod of the update, when it still is the one meant and is ours.
    fn mine(&self, update: &PodStatusUpdate) -> Option<Value> {
        self.current("pods", &update.namespace, &update.name).filter(|pod| self.is_mine(pod, update))
    }

    fn is_mine(&self, pod: &Value, update: &PodStatusUpdate) -> bool {
        let text = |p: &str| pod.pointer(p).and_then(Value::as_str);
        text("/spec/nodeName") == Some(&self.node) && text("/metadata/uid") == Some(&update.uid)
    }

    /// Creates events, or replaces the earlier ones of the same name. Events
    /// are a courtesy: what cannot be written is dropped and logged.
    pub async fn events(&self, batch: Vec<bytes::Bytes>) {
        for raw in batch.into_iter().take(MAX_EVENTS) {
            let Ok(mut event) = serde_json::from_slice::<Value>(&raw) else { continue };
            event["kind"] = "Event".into();
            event["apiVersion"] = "v1".into();
            let written = match self.client.respond(Write::Create(event.clone())).await {
                Err(s) if s.is_already_exists() => {
                    if let Some(m) = event["metadata"].as_object_mut() {
                        m.remove("resourceVersion");
                    }
                    self.client.respond(Write::Update(event)).await
                }
                other => other,
            };
            if let Err(s) = written {
                tracing::debug!(node = %self.node, message = %s.message, "event dropped");
            }
        }
    }

    /// A token for a pod of this node, bound to it.
    pub async fn token(&self, r: &triarch_rpc::node::TokenRequest) -> Result<(String, i64), Status> {
        let pod = self.current("pods", &r.namespace, &r.pod_name);
        let field =
            |p: &str| pod.as_ref().and_then(|v| v.pointer(p)).and_then(Value::as_str).unwrap_or_default().to_owned();
        if field("/spec/nodeName") != self.node || field("/metadata/uid") != r.pod_uid {
            let why = format!("pod {} is not bound to node {}", r.pod_name, self.node);
            return Err(Status::forbidden(("", "serviceaccounts"), &r.service_account, why));
        }
        let account = field("/spec/serviceAccountName");
        if account != r.service_account {
            let why = format!("pod {} runs as {account:?}", r.pod_name);
            return Err(Status::forbidden(("", "serviceaccounts"), &r.service_account, why));
        }
        let mut spec = json!({
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": r.pod_name, "uid": r.pod_uid},
            "audiences": r.audiences,
        });
        if r.expiration_seconds > 0 {
            spec["expirationSeconds"] = r.expiration_seconds.into();
        }
        let body = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec});
        let kind = self.client.kind("v1", "ServiceAccount")?;
        let answer = self.client.post(kind, &r.namespace, &r.service_account, "token", body).await?;
        let token = answer.pointer("/status/token").and_then(Value::as_str).unwrap_or_default().to_owned();
        let seconds = answer.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(3600);
        Ok((token, self.registry.env().wall().secs() + seconds))
    }

    /// Boxed, so that the caller's borrows do not make its future's type
    /// depend on a lifetime.
    async fn retry<'a>(&self, write: impl Fn() -> BoxFuture<'a, Result<(), Status>>) -> Result<(), Status> {
        let mut last = Ok(());
        for _ in 0..ATTEMPTS {
            last = write().await;
            match &last {
                // This replica may be behind: the read point brings it up.
                Err(s) if s.is_conflict() => {
                    let _reached = self.registry.db().read_barrier().await;
                }
                _ => return last,
            }
        }
        last
    }
}

fn gone(update: &PodStatusUpdate) -> Status {
    Status::not_found(("", "pods"), &update.name)
}

/// Takes the agent's fields over; in maps of quantities keeps entries that the
/// agent does not name.
fn merge_node_status(current: &mut Value, reported: &Value) {
    if !current.is_object() {
        *current = json!({});
    }
    for (key, new) in reported.as_object().into_iter().flatten() {
        match (key.as_str(), current.get_mut(key)) {
            ("capacity" | "allocatable", Some(Value::Object(old))) => {
                for (k, v) in new.as_object().into_iter().flatten() {
                    old.insert(k.clone(), v.clone());
                }
            }
            ("conditions", Some(Value::Array(old))) => {
                for c in new.as_array().into_iter().flatten() {
                    match old.iter_mut().find(|o| o["type"] == c["type"]) {
                        Some(o) => *o = c.clone(),
                        None => old.push(c.clone()),
                    }
                }
            }
            _ => current[key] = new.clone(),
        }
    }
}

/// Conditions that the agent does not report (readiness gates, DisruptionTarget
/// of another component) stay as they are.
fn keep_conditions_of_others(current: &Value, mut reported: Value) -> Value {
    let theirs: Vec<Value> = current["conditions"].as_array().cloned().unwrap_or_default();
    let mut mine: Vec<Value> = reported["conditions"].as_array().cloned().unwrap_or_default();
    for c in theirs {
        if !mine.iter().any(|m| m["type"] == c["type"]) {
            mine.push(c);
        }
    }
    if !mine.is_empty() {
        reported["conditions"] = mine.into();
    }
    for field in ["nominatedNodeName", "qosClass", "resourceClaimStatuses"] {
        if reported.get(field).is_none()
            && let Some(v) = current.get(field)
        {
            reported[field] = v.clone();
        }
    }
    reported
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_and_conditions_that_others_added_survive_the_agents_report() {
        let mut current =
            json!({"capacity": {"cpu": "1", "example.com/x": "5"}, "conditions": [{"type": "Mine", "status": "True"}]});
        merge_node_status(
            &mut current,
            &json!({"capacity": {"cpu": "2"}, "conditions": [{"type": "Ready", "status": "True"}]}),
        );
        assert_eq!(current["capacity"], json!({"cpu": "2", "example.com/x": "5"}));
        assert_eq!(current["conditions"].as_array().unwrap().len(), 2);

        let pod = json!({"conditions": [{"type": "DisruptionTarget"}, {"type": "Ready", "status": "False"}], "qosClass": "Burstable"});
        let merged = keep_conditions_of_others(&pod, json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!(merged["conditions"][0]["status"], "True");
        assert_eq!(merged["conditions"][1]["type"], "DisruptionTarget");
        assert_eq!(merged["qosClass"], "Burstable");
    }
}
