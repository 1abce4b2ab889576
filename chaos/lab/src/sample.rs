//! The sample application: a Deployment with a ConfigMap volume and a
//! readiness probe, behind a Service.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{LabError, Result};
use crate::images::WEB_IMAGE;
use crate::kube::KubeClient;

/// Port of the Service.
pub const SERVICE_PORT: u16 = 80;
/// The first pods need their sandbox, their volumes and one good probe.
const TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// What is applied, in order.
pub fn objects(replicas: u32) -> Vec<Value> {
    let labels = json!({"app": "web"});
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": "default"},
        "data": {"message": "Hello from Triarch"},
    });
    let container = json!({
        "name": "web", "image": WEB_IMAGE,
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [
            {"name": "VERSION", "value": "1"},
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}],
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default", "labels": labels},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "volumes": [{"name": "config", "configMap": {"name": "web"}}]},
            },
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default", "labels": labels},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http"}]},
    });
    vec![config, deployment, service]
}

/// Applies it; gives the Service's address.
pub async fn apply(client: &KubeClient, replicas: u32) -> Result<String> {
    let mut address = String::new();
    for object in objects(replicas) {
        let what = format!("{} {}", object["kind"], object["metadata"]["name"]);
        let made = client.ensure(&object).await.map_err(|e| LabError::new("sample", format!("{what}: {e}")))?;
        if let Some(ip) = made["spec"]["clusterIP"].as_str() {
            address = ip.to_owned();
        }
    }
    if address.is_empty() { Err(LabError::new("sample", "the Service has no address")) } else { Ok(address) }
}

/// Waits until a Deployment has as many ready pods as it wants.
pub async fn wait_available(client: &KubeClient, namespace: &str, name: &str, limit: Duration) -> Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
    let end = Instant::now() + limit;
    loop {
        let seen = client.get(&path).await;
        if let Ok(d) = &seen
            && settled(d)
        {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(LabError::new("sample", why_not(client, namespace, name, seen).await));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits as long as the sample may take.
pub async fn wait(client: &KubeClient) -> Result<()> {
    wait_available(client, "default", "web", TIMEOUT).await
}

/// All replicas are of the newest template, available, and no old one is left.
pub fn settled(deployment: &Value) -> bool {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let number = |v: &Value| v.as_i64().unwrap_or(0);
    let wanted = number(&spec["replicas"]);
    number(&status["observedGeneration"]) >= number(&deployment["metadata"]["generation"])
        && number(&status["updatedReplicas"]) == wanted
        && number(&status["availableReplicas"]) == wanted
        && number(&status["replicas"]) == wanted
}

/// What the pods' containers and conditions say.
async fn why_not(
    client: &KubeClient,
    namespace: &str,
    name: &str,
    seen: Result<Value, crate::kube::KubeError>,
) -> String {
    let mut said = match seen {
        Ok(d) => format!(
            "deployment {name}: {} of {} available",
            d["status"]["availableReplicas"].as_i64().unwrap_or(0),
            d["spec"]["replicas"]
        ),
        Err(e) => format!("deployment {name}: {e}"),
    };
    for pod in client.list(&format!("/api/v1/namespaces/{namespace}/pods?limit=20")).await.unwrap_or_default() {
        let waiting = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        let waiting: Vec<String> = waiting
            .filter_map(|c| c["state"]["waiting"].as_object())
            .map(|w| {
                format!("{} {}", w.get("reason").unwrap_or(&Value::Null), w.get("message").unwrap_or(&Value::Null))
            })
            .collect();
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let conditions: Vec<String> = conditions
            .filter(|c| c["status"] == "False" && c["message"].is_string())
            .map(|c| format!("{}: {}", c["type"], c["message"]))
            .collect();
        let phase = pod["status"]["phase"].as_str().unwrap_or("Unknown");
        said += &format!("; pod {} {phase} {} {}", pod["metadata"]["name"], waiting.join(", "), conditions.join(", "));
    }
    // A pod says only that no node takes it; why is the nodes' to say.
    for node in client.list("/api/v1/nodes?limit=20").await.unwrap_or_default() {
        if let Some(why) = unwilling(&node) {
            said += &format!("; node {} {why}", node["metadata"]["name"]);
        }
    }
    said.chars().take(2000).collect()
}

/// Why a node takes no pods: its taints, and the conditions that are not as they should be.
fn unwilling(node: &Value) -> Option<String> {
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    let taints: Vec<&str> = taints.filter_map(|t| t["key"].as_str()).collect();
    if taints.is_empty() {
        return None;
    }
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let wrong: Vec<String> = conditions
        .filter(|c| (c["type"] == "Ready") != (c["status"] == "True"))
        .map(|c| {
            format!(
                "{}={} {}",
                c["type"].as_str().unwrap_or_default(),
                c["status"].as_str().unwrap_or_default(),
                c["message"]
            )
        })
        .collect();
    Some(format!("has the taints {} ({})", taints.join(", "), wrong.join(", ")))
}

/// Asks `http://127.0.0.1:PORT/` until it answers 200; gives the page.
pub async fn wait_answer(port: u16, limit: Duration) -> Result<String> {
    let end = Instant::now() + limit;
    loop {
        let last = match page(port).await {
            Ok(page) => return Ok(page),
            Err(e) => e,
        };
        if Instant::now() >= end {
            return Err(LabError::new("app", format!("the application does not answer through its Service: {last}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// One request to the application.
pub async fn page(port: u16) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.take(1 << 20).read_to_string(&mut answer).await?;
        match answer.split_once("\r\n\r\n") {
            Some((head, page)) if head.starts_with("HTTP/1.1 200 ") => Ok(page.to_owned()),
            _ => Err(std::io::Error::other(format!("{:?}", answer.lines().next().unwrap_or("nothing")))),
        }
    };
    tokio::time::timeout(Duration::from_secs(3), exchange).await.map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_settled_only_when_its_newest_generation_is_all_there_is() {
        let with = |generation: i64, updated: i64, available: i64, replicas: i64| {
            settled(&json!({
                "metadata": {"generation": 2}, "spec": {"replicas": 3},
                "status": {"observedGeneration": generation, "updatedReplicas": updated,
                    "availableReplicas": available, "replicas": replicas},
            }))
        };
        assert!(with(2, 3, 3, 3));
        assert!(!with(1, 3, 3, 3) && !with(2, 2, 3, 3) && !with(2, 3, 2, 3) && !with(2, 3, 3, 4));
    }

    #[test]
    fn a_node_that_takes_no_pods_says_which_condition_is_to_blame() {
        let with = |taints: Value, disk: &str| {
            unwilling(&json!({"spec": {"taints": taints}, "status": {"conditions": [
                {"type": "DiskPressure", "status": disk, "message": "kubelet has disk pressure"},
                {"type": "Ready", "status": "True", "message": "kubelet is posting ready status"}]}}))
        };
        assert_eq!(with(Value::Null, "False"), None);
        let why = with(json!([{"key": "node.kubernetes.io/disk-pressure"}]), "True").unwrap();
        let words = "has the taints node.kubernetes.io/disk-pressure (DiskPressure=True \"kubelet has disk pressure\")";
        assert_eq!(why, words);
    }

    #[test]
    fn every_part_of_the_sample_has_a_path() {
        assert!(objects(2).iter().all(|o| crate::kube::path_for(o).is_some()));
    }
}
