//! Byte streams between clients and what runs inside nodes: logs, exec,
//! attach, port-forward, and the HTTP proxy to pods and Services. All of them
//! go through the agent's tunnels, so any replica serves any of them.

mod http_proxy;
mod logs;
mod stream;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use http::Response;
use serde_json::Value;
use triarch_api::status::Status;
use triarch_apiserver::connect::{ConnectRequest, Connector};
use triarch_apiserver::respond::Body;
use triarch_gateway::TunnelHub;
use triarch_gateway::node_set;
use triarch_gateway::tunnels::TunnelError;
use triarch_registry::Registry;

/// See the module's text.
pub struct Connectors {
    pub registry: Arc<Registry>,
    pub hub: Arc<TunnelHub>,
}

#[async_trait]
impl Connector for Connectors {
    async fn connect(&self, request: ConnectRequest) -> Result<Response<Body>, Status> {
        match (request.kind.kind, request.subresource.as_str()) {
            ("Pod", "log") => logs::serve(self, request).await,
            ("Pod", "exec" | "attach" | "portforward") => stream::serve(self, request).await,
            ("Pod", "proxy") => http_proxy::pod(self, request).await,
            ("Service", "proxy") => http_proxy::service(self, request).await,
            (kind, sub) => Err(Status::service_unavailable(format!("{sub} of {kind} is not served"))),
        }
    }
}

impl Connectors {
    /// The pod as it is now, after a linearizable read point.
    async fn pod(&self, namespace: &str, name: &str) -> Result<Value, Status> {
        self.object("pods", namespace, name).await
    }

    async fn object(&self, resource: &'static str, namespace: &str, name: &str) -> Result<Value, Status> {
        let db = self.registry.db();
        db.read_barrier().await.map_err(|e| Status::service_unavailable(e.to_string()))?;
        let stored = db.mvcc().get(&triarch_mvcc::Key::new(resource, namespace, name));
        stored.map(|s| node_set::value(&s)).ok_or_else(|| Status::not_found(("", resource), name))
    }
}

pub(super) fn text<'a>(v: &'a Value, pointer: &str) -> &'a str {
    v.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Names of the pod's containers of every kind, ordinary ones first.
pub(super) fn containers(pod: &Value) -> Vec<String> {
    let list = |p: &str| pod.pointer(p).and_then(Value::as_array).cloned().unwrap_or_default();
    ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"]
        .iter()
        .flat_map(|p| list(p))
        .map(|c| text(&c, "/name").to_owned())
        .collect()
}

/// The container that a request means: the one it names, or the only one.
pub(super) fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let name = text(pod, "/metadata/name");
    if !asked.is_empty() {
        return if containers(pod).iter().any(|c| c == asked) {
            Ok(asked.to_owned())
        } else {
            Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
        };
    }
    let ordinary = pod.pointer("/spec/containers").and_then(Value::as_array).map_or(0, Vec::len);
    let all = containers(pod);
    match ordinary {
        1 => Ok(all[0].clone()),
        0 => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        n => {
            let inits = &all[n..];
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", all[..n].join(" "));
            if !inits.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", inits.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

pub(super) fn tunnel_status(e: TunnelError) -> Status {
    match e {
        TunnelError::Refused { code, reason, message } => {
            let mut s = match code {
                404 => Status::not_found(("", "pods"), ""),
                400 => Status::bad_request(""),
                _ => Status::internal(""),
            };
            if let Some(known) =
                ["NotFound", "BadRequest", "InternalError", "Forbidden", "Timeout"].into_iter().find(|r| *r == reason)
            {
                s.reason = known;
            }
            s.code = code;
            s.message = message;
            s
        }
        TunnelError::Overloaded => Status::too_many_requests(e.to_string(), 1),
        TunnelError::Timeout(_) => Status::timeout(e.to_string(), 1),
        TunnelError::NotConnected(_) | TunnelError::Broken => Status::service_unavailable(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_must_be_named_when_there_are_several() {
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let e = container(&two, "").unwrap_err();
        assert_eq!(
            e.message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(container(&two, "i").unwrap(), "i");
        assert_eq!(container(&two, "z").unwrap_err().message, "container z is not valid for pod p");
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, "").unwrap(), "a");
    }
}
