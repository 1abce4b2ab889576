//! Every controller and the scheduler over the real registry and kinds: from an
//! empty store to a Deployment behind a Service, and back to nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use triarch_controllers::controllers::certificates::{SignError, SignRequest, Signer};
use triarch_controllers::controllers::node_lifecycle::NodeLiveness;
use triarch_controllers::controllers::{self, Config};
use triarch_controllers::{Manager, RegistryWriter, Setup, kinds_of, resources};
use triarch_env::{Env, Scope, TokioRuntime};
use triarch_mvcc::{Epoch, Key, Limits, ListRequest, LocalDb, Prefix};
use triarch_registry::{Client, KindTable, PatchType, Registry, RequestContext};
use triarch_scheduler::Scheduler;

struct AllHeard;

impl NodeLiveness for AllHeard {
    fn heard(&self, _: &str) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
    fn leading(&self) -> Duration {
        Duration::from_secs(1)
    }
}

struct NoSigner;

impl Signer for NoSigner {
    fn sign(&self, _: &SignRequest<'_>) -> Result<Vec<u8>, SignError> {
        Err(SignError::Unavailable("no authority in this test".into()))
    }
}

struct Cluster {
    registry: Arc<Registry>,
    user: Client,
    scope: Scope,
}

impl Cluster {
    fn start() -> Cluster {
        let (env, scope) = (Env::new(TokioRuntime::current()), Scope::new());
        let db = LocalDb::new(Limits::default());
        let registry = Registry::new(
            db,
            env.clone(),
            KindTable::new(triarch_kinds::KINDS),
            Arc::new(triarch_admission::Chain::new(Arc::new(triarch_registry::AlwaysAllow))),
        );
        let epoch = Some(Epoch { term: 1, node: 1 });
        let writer = Arc::new(RegistryWriter::new(&registry, "system:kube-controller-manager", epoch));
        let addresses: Vec<SocketAddr> = vec!["10.9.0.1:6443".parse().unwrap()];
        let config = Config {
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            node_mask: 24,
            root_ca: "PEM".into(),
            liveness: Arc::new(AllHeard),
            signer: Arc::new(NoSigner),
            api_endpoints: Arc::new(addresses),
            node_grace: std::time::Duration::from_secs(50),
            event_ttl: std::time::Duration::from_secs(3600),
            api_service_ip: "10.96.0.1".parse().unwrap(),
            bootstrap: Arc::new(Vec::new()),
        };
        let scheduler = Scheduler::new();
        let manager = Manager::start(Setup {
            env: env.clone(),
            scope: scope.clone(),
            mvcc: registry.mvcc().clone(),
            writer,
            kinds: kinds_of(registry.kinds()),
            controllers: controllers::all(&config),
            listeners: vec![scheduler.clone()],
        });
        let binder = Arc::new(RegistryWriter::new(&registry, "system:kube-scheduler", epoch));
        scheduler.start(&env, &scope, manager.feed().clone(), binder, manager.recorder().clone());
        let user = registry.client(RequestContext::component("admin", None));
        Cluster { registry, user, scope }
    }

    fn get(&self, resource: &str, namespace: &str, name: &str) -> Value {
        let found = self.registry.mvcc().get(&Key::new(resource, namespace, name));
        found.map_or(Value::Null, |s| parse(&s.object.served(s.mod_revision)))
    }

    fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let request = ListRequest { prefix: Prefix::namespaced(resource, namespace), after: None, limit: 0, at: None };
        let page = self.registry.mvcc().list(&request).unwrap();
        page.items.iter().map(|s| parse(&s.object.served(s.mod_revision))).collect()
    }

    async fn status(&self, kind: &str, namespace: &str, name: &str, status: Value) {
        let kind = self.user.kind("v1", kind).unwrap();
        let patch = json!({"status": status});
        let done = self.user.patch(kind, namespace, name, PatchType::Merge, &patch, Some("status")).await;
        if let Err(e) = done {
            assert!(e.is_conflict() || e.is_not_found(), "{e}");
        }
    }

    /// Plays kubelets: runs what is bound, ends what is being deleted.
    async fn kubelets(&self, namespace: &str) {
        for (i, p) in self.list(resources::PODS, namespace).into_iter().enumerate() {
            let name = p["metadata"]["name"].as_str().unwrap();
            if !p["metadata"]["deletionTimestamp"].is_null() {
                let kind = self.user.kind("v1", "Pod").unwrap();
                let now = triarch_registry::DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
                let _ = self.user.delete(kind, namespace, name, &now).await;
            } else if p["spec"]["nodeName"].is_string() && p["status"]["phase"] != "Running" {
                let ip = format!("10.244.0.{}", i + 2);
                let mut conditions = p["status"]["conditions"].as_array().cloned().unwrap_or_default();
                conditions
                    .push(json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}));
                let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions});
                self.status("Pod", namespace, name, status).await;
            }
        }
    }

    async fn eventually(&self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        for _ in 0..2000 {
            if holds(self) {
                return;
            }
            self.kubelets("shop").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let pods = self.list(resources::PODS, "shop");
        panic!("{what} did not come true; pods: {}", json!(pods));
    }
}

/// Stored bytes start at `"metadata"`.
fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(&[b"{", bytes].concat()).unwrap()
}

#[tokio::test]
async fn from_an_empty_store_to_a_service_that_answers_and_back() {
    let c = Cluster::start();
    c.eventually("the system objects", |c| {
        !c.get(resources::SERVICE_ACCOUNTS, "kube-system", "default").is_null()
            && c.get(resources::CONFIG_MAPS, "default", "kube-root-ca.crt")["data"]["ca.crt"] == "PEM"
            && c.get(resources::SERVICES, "default", "kubernetes")["spec"]["clusterIP"] == "10.96.0.1"
            && c.get(resources::ENDPOINT_SLICES, "default", "kubernetes")["endpoints"][0]["addresses"][0] == "10.9.0.1"
    })
    .await;
    for n in ["n1", "n2"] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": n}});
        c.user.create(node).await.unwrap();
        let ready: Vec<Value> = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]
            .iter()
            .map(|t| json!({"type": t, "status": if *t == "Ready" { "True" } else { "False" }}))
            .collect();
        let has = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
        c.status("Node", "", n, json!({"capacity": has, "allocatable": has, "conditions": ready})).await;
    }
    c.eventually("ranges for nodes", |c| {
        let range = |n: &str| c.get(resources::NODES, "", n)["spec"]["podCIDR"].clone();
        range("n1").is_string() && range("n2").is_string() && range("n1") != range("n2")
    })
    .await;

    c.user.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})).await.unwrap();
    let labels = json!({"app": "web"});
    c.user
        .create(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "web:1"}]}}}}))
        .await
        .unwrap();
    c.user
        .create(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}}))
        .await
        .unwrap();
    let rolled_out = |c: &Cluster| {
        let d = c.get(resources::DEPLOYMENTS, "shop", "web");
        let s = &d["status"];
        s["observedGeneration"] == d["metadata"]["generation"]
            && [&s["replicas"], &s["updatedReplicas"], &s["availableReplicas"]].iter().all(|n| **n == 3)
    };
    c.eventually("the rollout", rolled_out).await;
    let ready_endpoints = |c: &Cluster| {
        let slices = c.list(resources::ENDPOINT_SLICES, "shop");
        let all = slices.iter().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
        all.filter(|e| e["conditions"]["ready"] == true && e["nodeName"].is_string()).count()
    };
    c.eventually("three ready endpoints", |c| ready_endpoints(c) == 3).await;
    c.eventually("Endpoints", |c| {
        c.get(resources::ENDPOINTS, "shop", "web")["subsets"][0]["addresses"].as_array().map(Vec::len) == Some(3)
    })
    .await;

    let kind = c.user.kind("apps/v1", "Deployment").unwrap();
    let next = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "web:2"}]}}}});
    c.user.patch(kind, "shop", "web", PatchType::Strategic, &next, None).await.unwrap();
    c.eventually("the second rollout", |c| {
        let pods = c.list(resources::PODS, "shop");
        rolled_out(c) && pods.len() == 3 && pods.iter().all(|p| p["spec"]["containers"][0]["image"] == "web:2")
    })
    .await;
    let messages: Vec<String> = c
        .list(resources::EVENTS, "shop")
        .iter()
        .map(|e| e["message"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(messages.iter().any(|m| m.starts_with("Successfully assigned shop/web-")), "{messages:?}");
    assert!(messages.iter().any(|m| m.starts_with("Scaled up replica set web-")), "{messages:?}");

    let kind = c.user.kind("v1", "Namespace").unwrap();
    c.user.delete(kind, "", "shop", &Default::default()).await.unwrap();
    c.eventually("the namespace's end", |c| {
        c.get(resources::NAMESPACES, "", "shop").is_null()
            && [resources::PODS, resources::DEPLOYMENTS, resources::SERVICES, resources::CONFIG_MAPS, resources::EVENTS]
                .iter()
                .all(|r| c.list(r, "shop").is_empty())
    })
    .await;
    c.scope.cancel();
}
