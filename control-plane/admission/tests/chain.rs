//! The chain and the kinds over a real registry and a store in memory.

use std::sync::Arc;

use serde_json::{Value, json};
use triarch_admission::{Chain, PLUGINS};
use triarch_env::{Env, TokioRuntime};
use triarch_kinds::KINDS;
use triarch_mvcc::{Key, Limits, LocalDb};
use triarch_registry::{
    Authorizer, AuthzAttributes, Client, Decision, DeleteOptions, Kind, KindTable, PatchType, Registry, RequestContext,
    Target, UserInfo, WriteOptions,
};

fn registry() -> Arc<Registry> {
    let env = Env::new(TokioRuntime::current());
    let chain = Chain::new(Arc::new(Signers));
    Registry::new(LocalDb::new(Limits::default()), env, KindTable::new(KINDS), Arc::new(chain))
}

/// `approver` and `signer` may do what they are named after for one signer,
/// `domain` approves for all of example.com.
struct Signers;

#[async_trait::async_trait]
impl Authorizer for Signers {
    async fn authorize(&self, user: &UserInfo, a: &AuthzAttributes) -> Decision {
        assert_eq!((a.group.as_str(), a.resource.as_str()), ("certificates.k8s.io", "signers"));
        let allowed = match user.name.as_str() {
            "approver" => a.verb == "approve" && a.name == "example.com/one",
            "signer" => a.verb == "sign" && a.name == "example.com/one",
            "domain" => a.verb == "approve" && a.name == "example.com/*",
            _ => false,
        };
        if allowed { Decision::Allow { reason: String::new() } } else { Decision::NoOpinion { reason: String::new() } }
    }
}

async fn client() -> Client {
    let client = registry().client(RequestContext::component("system:admin", None));
    for name in ["default", "kube-system", "kube-node-lease"] {
        client.create(object("v1", "Namespace", "", name, json!({}))).await.unwrap();
    }
    client
}

fn node_user(client: &Client, node: &str) -> Client {
    let user = UserInfo::new(format!("system:node:{node}"), &["system:nodes", "system:authenticated"]);
    client.registry().client(RequestContext::new(user, "test"))
}

fn object(version: &str, kind: &str, namespace: &str, name: &str, mut rest: Value) -> Value {
    rest["apiVersion"] = version.into();
    rest["kind"] = kind.into();
    rest["metadata"]["name"] = name.into();
    if !namespace.is_empty() {
        rest["metadata"]["namespace"] = namespace.into();
    }
    rest
}

fn pod(name: &str) -> Value {
    object("v1", "Pod", "default", name, json!({"spec": {"containers": [{"name": "c", "image": "nginx"}]}}))
}

async fn with_account(client: &Client) {
    client.create(object("v1", "ServiceAccount", "default", "default", json!({}))).await.unwrap();
}

fn kind(version: &str, name: &str) -> &'static Kind {
    KINDS.iter().find(|k| k.api_version() == version && k.kind == name).expect("a kind")
}

#[test]
fn the_list_names_every_plugin_file() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap().count();
    assert_eq!(files - 1, PLUGINS.len());
    let names: Vec<_> = PLUGINS.iter().map(|p| p.name()).collect();
    assert_eq!(names[0], "NamespaceLifecycle");
}

#[tokio::test]
async fn objects_need_a_namespace_that_stays() {
    let client = client().await;
    let map = |ns: &str| object("v1", "ConfigMap", ns, "a", json!({}));
    let missing = client.create(map("nowhere")).await.unwrap_err();
    assert_eq!((missing.code, missing.message.as_str()), (404, "namespaces \"nowhere\" not found"));
    let immortal = client.delete(kind("v1", "Namespace"), "", "default", &DeleteOptions::default()).await.unwrap_err();
    assert_eq!(immortal.message, "namespaces \"default\" is forbidden: this namespace may not be deleted");

    client.create(object("v1", "Namespace", "", "going", json!({}))).await.unwrap();
    client.create(map("going")).await.unwrap();
    client.delete(kind("v1", "Namespace"), "", "going", &DeleteOptions::default()).await.unwrap();
    let late = client.create(object("v1", "ConfigMap", "going", "b", json!({}))).await.unwrap_err();
    assert_eq!(
        late.message,
        "configmaps \"b\" is forbidden: unable to create new content in namespace going because it is being terminated"
    );
    let cause = &late.details.as_ref().unwrap().causes[0];
    assert_eq!(
        (cause.reason.as_str(), cause.message.as_str()),
        ("NamespaceTerminating", "namespace going is being terminated")
    );
}

#[tokio::test]
async fn a_pod_gets_its_account_token_and_tolerations() {
    let client = client().await;
    let none = client.create(pod("a")).await.unwrap_err();
    assert_eq!(
        none.message,
        "pods \"a\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found"
    );
    with_account(&client).await;
    let made = client.create(pod("a")).await.unwrap();
    let spec = &made["spec"];
    assert_eq!(
        (spec["serviceAccountName"].as_str(), spec["serviceAccount"].as_str()),
        (Some("default"), Some("default"))
    );
    let volume = &spec["volumes"][0];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
    assert_eq!(
        volume["projected"],
        json!({"sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ], "defaultMode": 420})
    );
    let mount = &spec["containers"][0]["volumeMounts"][0];
    assert_eq!(
        mount,
        &json!({"name": name, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"})
    );
    let seconds: Vec<_> =
        spec["tolerations"].as_array().unwrap().iter().map(|t| t["tolerationSeconds"].as_i64()).collect();
    assert_eq!(seconds, [Some(300), Some(300)]);
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(made["metadata"]["generation"], 1);

    let mut private = pod("b");
    private["spec"]["automountServiceAccountToken"] = false.into();
    assert!(client.create(private).await.unwrap()["spec"].get("volumes").is_none());
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let client = client().await;
    with_account(&client).await;
    let zone = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z"}}});
    client.create(object("v1", "Node", "", "n1", zone)).await.unwrap();
    client.create(pod("a")).await.unwrap();
    client.bind("default", "a", "", "n1").await.unwrap();
    let bound = client.get(kind("v1", "Pod"), "default", "a").await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    assert_eq!(bound["metadata"]["labels"]["topology.kubernetes.io/zone"], "z");
    let again = client.bind("default", "a", "", "n2").await.unwrap_err();
    assert_eq!(
        again.message,
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\""
    );
}

#[tokio::test]
async fn addresses_are_taken_and_given_back_with_the_service() {
    let client = client().await;
    let services = kind("v1", "Service");
    let service = |name: &str, spec: Value| object("v1", "Service", "default", name, json!({"spec": spec}));
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 80, "protocol": "UDP"}]);
    let a = client.create(service("a", json!({"type": "NodePort", "ports": ports}))).await.unwrap();
    let ip = a["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert_eq!(a["spec"]["clusterIPs"], json!([ip]));
    let node_port = a["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30_000..=32_767).contains(&node_port));
    assert_eq!(a["spec"]["ports"][1]["nodePort"], node_port, "one node port for both protocols");
    let held = |ip: &str| client.registry().mvcc().get(&Key::new("~alloc.clusterip", "", ip)).is_some();
    assert!(held(&ip));

    let taken = client.create(service("b", json!({"clusterIP": ip, "ports": [{"port": 1}]}))).await.unwrap_err();
    assert_eq!(
        taken.message,
        format!(
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"{ip}\"]: failed to allocate IP {ip}: provided IP is already allocated"
        )
    );
    let far =
        client.create(service("b", json!({"clusterIP": "192.168.0.1", "ports": [{"port": 1}]}))).await.unwrap_err();
    assert!(far.message.ends_with("The range of valid IPs is 10.96.0.0/12"), "{}", far.message);
    let reserved =
        client.create(service("b", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 1}]}))).await.unwrap_err();
    assert!(reserved.message.ends_with("provided IP is already allocated"), "{}", reserved.message);
    client.create(service("kubernetes", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}))).await.unwrap();
    let clash = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": node_port}]});
    let clash = client.create(service("b", clash)).await.unwrap_err();
    assert_eq!(
        clash.message,
        format!(
            "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: {node_port}: provided port is already allocated"
        )
    );

    let patch = json!({"spec": {"type": "ClusterIP"}});
    let plain = client.patch(services, "default", "a", PatchType::Merge, &patch, None).await.unwrap();
    assert_eq!(plain["spec"]["clusterIP"], ip.as_str());
    assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
    assert!(client.registry().mvcc().get(&Key::new("~alloc.nodeport", "", &node_port.to_string())).is_none());
    client.delete(services, "default", "a", &DeleteOptions::default()).await.unwrap();
    assert!(!held(&ip));
    let again = client.create(service("b", json!({"clusterIP": ip, "ports": [{"port": 1}]}))).await.unwrap();
    assert_eq!(again["spec"]["clusterIP"], ip.as_str());
}

#[tokio::test]
async fn a_small_range_is_used_up_without_a_double_owner() {
    let client = client().await;
    let key = Key::new("~config", "", "service-cidr");
    let put = triarch_mvcc::Op::Put(key, triarch_mvcc::Object::plain("10.9.0.0/28"));
    client.registry().db().commit(triarch_mvcc::Txn { ops: vec![put], ..Default::default() }).await.unwrap();
    let service =
        |i: usize| object("v1", "Service", "default", &format!("s{i}"), json!({"spec": {"ports": [{"port": 1}]}}));
    let made = futures_join(&client, (0..13).map(service).collect()).await;
    let ips: std::collections::BTreeSet<String> =
        made.iter().map(|s| s.as_ref().unwrap()["spec"]["clusterIP"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ips.len(), 13, "2 to 14 of a /28: {ips:?}");
    let full = client.create(service(13)).await.unwrap_err();
    assert_eq!(
        (full.code, full.message.as_str()),
        (500, "Internal error occurred: failed to allocate a serviceIP: range is full")
    );
}

async fn futures_join(client: &Client, objects: Vec<Value>) -> Vec<Result<Value, triarch_api::status::Status>> {
    client.batch(objects.into_iter().map(triarch_registry::Write::Create).collect()).await
}

#[tokio::test]
async fn an_agent_changes_only_what_is_its_own() {
    let client = client().await;
    with_account(&client).await;
    client.create(object("v1", "Node", "", "n2", json!({}))).await.unwrap();
    let agent = node_user(&client, "n1");
    let mine = agent
        .create(object("v1", "Node", "", "n1", json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}})))
        .await
        .unwrap();
    let other = agent.create(object("v1", "Node", "", "n3", json!({}))).await.unwrap_err();
    assert_eq!(other.message, "nodes \"n3\" is forbidden: node \"n1\" is not allowed to modify node \"n3\"");
    let patch = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}});
    let nodes = kind("v1", "Node");
    let label = agent.patch(nodes, "", "n1", PatchType::Merge, &patch, None).await.unwrap_err();
    assert_eq!(
        label.message,
        "nodes \"n1\" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/x"
    );
    let mut tainted = mine.clone();
    tainted["spec"]["taints"] = json!([{"key": "a", "effect": "NoSchedule"}]);
    let taint = agent.update(tainted).await.unwrap_err();
    assert_eq!(taint.message, "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints");
    let made = agent.create(pod("a")).await.unwrap_err();
    assert!(made.message.contains("node \"n1\" can only create mirror pods"), "{}", made.message);

    client.create(pod("a")).await.unwrap();
    client.bind("default", "a", "", "n2").await.unwrap();
    let status = json!({"status": {"message": "x"}});
    let pods = kind("v1", "Pod");
    let foreign = agent.patch(pods, "default", "a", PatchType::Merge, &status, Some("status")).await.unwrap_err();
    assert_eq!(
        foreign.message,
        "pods \"a\" is forbidden: node \"n1\" can only update pod status for pods with spec.nodeName set to itself"
    );
    let own = node_user(&client, "n2");
    own.patch(pods, "default", "a", PatchType::Merge, &status, Some("status")).await.unwrap();
    let lease = agent
        .create(object("coordination.k8s.io/v1", "Lease", "kube-node-lease", "n2", json!({"spec": {}})))
        .await
        .unwrap_err();
    assert!(lease.message.ends_with("can only access node lease with the same name as the requesting node"));
    agent
        .create(object("coordination.k8s.io/v1", "Lease", "kube-node-lease", "n1", json!({"spec": {}})))
        .await
        .unwrap();
}

#[tokio::test]
async fn both_event_groups_show_one_event() {
    let client = client().await;
    let event = object(
        "events.k8s.io/v1",
        "Event",
        "default",
        "e",
        json!({
            "eventTime": "2026-01-01T00:00:00.123456Z", "reportingController": "a.b/c", "reportingInstance": "i",
            "action": "Do", "reason": "Done", "type": "Normal", "note": "text", "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        }),
    );
    client.create(event).await.unwrap();
    let core = client.get(kind("v1", "Event"), "default", "e").await.unwrap();
    assert_eq!((core["message"].as_str(), core["involvedObject"]["name"].as_str()), (Some("text"), Some("p")));
    assert_eq!(core["eventTime"], "2026-01-01T00:00:00.123456Z");
    let new = client.get(kind("events.k8s.io/v1", "Event"), "default", "e").await.unwrap();
    assert_eq!((new["note"].as_str(), new["apiVersion"].as_str()), (Some("text"), Some("events.k8s.io/v1")));
    let patch = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
    let kind = kind("events.k8s.io/v1", "Event");
    client.patch(kind, "default", "e", PatchType::Merge, &patch, None).await.unwrap();
    let change = json!({"note": "other"});
    assert_eq!(client.patch(kind, "default", "e", PatchType::Merge, &change, None).await.unwrap_err().code, 422);
}

#[tokio::test]
async fn a_certificate_request_says_who_asks() {
    let client = client().await;
    let agent = node_user(&client, "n1");
    let body = json!({"spec": {"request": "AA==", "signerName": "kubernetes.io/kubelet-serving", "usages": ["client auth"],
        "username": "somebody-else"}});
    let refused =
        agent.create(object("certificates.k8s.io/v1", "CertificateSigningRequest", "", "r", body)).await.unwrap_err();
    assert_eq!(
        refused.message,
        "CertificateSigningRequest.certificates.k8s.io \"r\" is invalid: spec.request: Invalid value: \"AA==\": \
         PEM block type must be CERTIFICATE REQUEST"
    );
}

fn csr(name: &str, signer: &str, organization: &str) -> Value {
    use base64::Engine as _;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
    let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let request = base64::engine::general_purpose::STANDARD.encode(pem);
    let spec = json!({"signerName": signer, "usages": ["client auth"], "request": request});
    object("certificates.k8s.io/v1", "CertificateSigningRequest", "", name, json!({"spec": spec}))
}

fn as_user(client: &Client, name: &str) -> Client {
    client.registry().client(RequestContext::new(UserInfo::new(name, &["system:authenticated"]), "test"))
}

#[tokio::test]
async fn only_who_may_approve_or_sign_for_a_signer_does_so() {
    let client = client().await;
    let made = client.create(csr("a", "example.com/one", "o")).await.unwrap();
    let mut approved = made.clone();
    approved["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "R", "message": "m"}]});
    let refused = as_user(&client, "signer").put(approved.clone(), Some("approval")).await.unwrap_err();
    let text = "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: user not permitted to approve requests with signerName \"example.com/one\"";
    assert_eq!((refused.code, refused.message.as_str()), (403, text));
    let approved = as_user(&client, "approver").put(approved, Some("approval")).await.unwrap();
    let mut failed = approved.clone();
    let condition = json!({"type": "Failed", "status": "True", "reason": "R", "message": "m"});
    failed["status"]["conditions"].as_array_mut().unwrap().push(condition);
    let refused = as_user(&client, "approver").put(failed.clone(), Some("status")).await.unwrap_err();
    let text = "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: user not permitted to sign requests with signerName \"example.com/one\"";
    assert_eq!((refused.code, refused.message.as_str()), (403, text));
    // Labels are nobody's signature.
    let mut labelled = approved;
    labelled["metadata"]["labels"] = json!({"x": "y"});
    as_user(&client, "nobody").put(labelled, Some("status")).await.unwrap();
    let mut again = failed;
    again["metadata"]["resourceVersion"] = Value::Null;
    as_user(&client, "signer").put(again, Some("status")).await.unwrap();
    let mut other = client.create(csr("b", "example.com/two", "o")).await.unwrap();
    other["status"] = json!({"conditions": [{"type": "Denied", "status": "True", "reason": "R", "message": "m"}]});
    as_user(&client, "approver").put(other.clone(), Some("approval")).await.unwrap_err();
    as_user(&client, "domain").put(other, Some("approval")).await.unwrap();
}

#[tokio::test]
async fn the_client_signer_makes_nobody_a_master() {
    let client = client().await;
    let signer = "kubernetes.io/kube-apiserver-client";
    let refused = client.create(csr("a", signer, "system:masters")).await.unwrap_err();
    let text = "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert_eq!((refused.code, refused.message.as_str()), (403, text));
    client.create(csr("b", signer, "developers")).await.unwrap();
    client.create(csr("c", "example.com/one", "system:masters")).await.unwrap();
}

#[tokio::test]
async fn an_evicted_pod_says_why_it_goes() {
    let client = client().await;
    with_account(&client).await;
    let mut bound = pod("a");
    bound["spec"]["nodeName"] = "n1".into();
    let made = client.create(bound).await.unwrap();
    let pods = kind("v1", "Pod");
    let evict = async |options: Value| {
        let target = Target::object(pods, "default", "a").with_subresource("eviction");
        let body =
            json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "a"}, "deleteOptions": options});
        let done = client.registry().create(client.context(), &target, body, &WriteOptions::default()).await;
        done.map(|r| (r.code, r.into_value()))
    };
    let refused = evict(json!({"preconditions": {"resourceVersion": "1"}})).await.unwrap_err();
    assert_eq!(refused.code, 409);
    let dry = evict(json!({"dryRun": ["All"]})).await.unwrap();
    assert_eq!(client.get(pods, "default", "a").await.unwrap(), made, "a dry run changes nothing");
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    assert_eq!(dry, (201, success.clone()));
    // A precondition on the revision holds for the state before the eviction's own write.
    let options = json!({"preconditions": {"resourceVersion": made["metadata"]["resourceVersion"]}});
    assert_eq!(evict(options).await.unwrap(), (201, success));
    let going = client.get(pods, "default", "a").await.unwrap();
    assert!(going["metadata"]["deletionTimestamp"].is_string(), "{going}");
    let condition = going["status"]["conditions"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (condition["type"].as_str(), condition["reason"].as_str(), condition["message"].as_str()),
        (Some("DisruptionTarget"), Some("EvictionByEvictionAPI"), Some("Eviction API: evicting"))
    );
}
