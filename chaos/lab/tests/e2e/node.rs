//! What happens on a node: images, the runtime's end, the API as pods see it.

use std::time::Duration;

use serde_json::{Value, json};
use triarch_lab::node::CONTAINERD_SOCKET;
use triarch_lab::{KubeClient, Lab};

use crate::kubectl::Kubectl;
use crate::{Outcome, check, page, settled, text, until};

/// Docker's library is not asked: the name ends in a domain that no resolver knows.
const ABSENT: &str = "registry.invalid/absent:1";

pub async fn missing_image(lab: &mut Lab) -> Outcome {
    let client = lab.client().map_err(text)?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "absent", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": ABSENT}]},
    });
    client.create("/api/v1/namespaces/default/pods", &pod).await.map_err(text)?;
    let path = "/api/v1/namespaces/default/pods/absent";
    let seen = std::cell::RefCell::new(std::collections::BTreeMap::new());
    until(Duration::from_secs(40), || async {
        let pod = client.get(path).await.map_err(text)?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let text = |field: &str| waiting[field].as_str().unwrap_or_default().to_owned();
        seen.borrow_mut().insert(text("reason"), text("message"));
        let all = ["ErrImagePull", "ImagePullBackOff"].iter().all(|r| seen.borrow().contains_key(*r));
        check(all && pod["status"]["phase"] == "Pending", || format!("{:?}", pod["status"]))
    })
    .await?;
    let seen = seen.into_inner();
    let (error, backing) = (&seen["ErrImagePull"], &seen["ImagePullBackOff"]);
    check(error.starts_with("failed to pull and unpack image") || error.contains("rpc error: code = "), || {
        error.clone()
    })?;
    check(backing.starts_with(&format!("Back-off pulling image \"{ABSENT}\"")), || backing.clone())?;
    let reasons = events(&client, "absent").await?;
    for expected in [
        format!("Pulling image \"{ABSENT}\""),
        format!("Failed to pull image \"{ABSENT}\": "),
        "Error: ErrImagePull".into(),
        "Error: ImagePullBackOff".into(),
    ] {
        check(reasons.iter().any(|m| m.starts_with(&expected)), || format!("no event {expected:?} in {reasons:?}"))?;
    }
    // The image comes by another way; the next attempt finds it.
    let mut tag = lab.nodes()[0].command("ctr");
    tag.args(["-a", CONTAINERD_SOCKET, "-n", "k8s.io", "images", "tag", "docker.io/library/web:1", ABSENT]);
    let out = tag.output().map_err(text)?;
    check(out.status.success(), || String::from_utf8_lossy(&out.stderr).into_owned())?;
    until(Duration::from_secs(60), || async {
        let pod = client.get(path).await.map_err(text)?;
        check(pod["status"]["phase"] == "Running", || format!("{:?}", pod["status"]))
    })
    .await?;
    client.delete(path).await.map(drop).map_err(text)
}

/// A pod's port at its node, asked for from the other node.
pub async fn host_port(lab: &mut Lab) -> Outcome {
    let client = lab.client().map_err(text)?;
    let port = json!({"name": "http", "containerPort": 8080, "hostPort": 18080});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "front", "namespace": "default"},
        "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "web", "image": "web:1", "ports": [port]}]},
    });
    client.create("/api/v1/namespaces/default/pods", &pod).await.map_err(text)?;
    let ip = lab.nodes()[0].ip();
    let lab = &*lab.nodes();
    let ask = || {
        let mut command = lab[1].command("busybox");
        command.args(["timeout", "3", "busybox", "wget", "-q", "-O", "-", &format!("http://{ip}:18080/")]);
        command.output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).map_err(text)
    };
    until(Duration::from_secs(30), || async {
        let page = ask()?;
        check(page.contains("pod front on node"), || format!("{page:?}"))
    })
    .await?;
    client.delete("/api/v1/namespaces/default/pods/front").await.map_err(text)?;
    until(Duration::from_secs(30), || async {
        let page = ask()?;
        check(page.is_empty(), || format!("it still answers: {page:?}"))
    })
    .await
}

/// Pods are not sent to a replica that stays away, and again to one that is back.
pub async fn api_endpoints(lab: &mut Lab) -> Outcome {
    let client = lab.client().map_err(text)?;
    let listed = || async {
        let slice = client.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await;
        Ok::<_, String>(slice.map_err(text)?["endpoints"].as_array().map_or(0, Vec::len))
    };
    let are = |n: usize| {
        let listed = &listed;
        until(Duration::from_secs(30), move || async move {
            let now = listed().await?;
            check(now == n, || format!("{now} replicas are listed, expected {n}"))
        })
    };
    are(3).await?;
    let leader = lab.cluster().leader().await.map_err(text)?.ok_or("there is no leader")?;
    let follower = (leader + 1) % 3;
    lab.cluster().kill(follower).map_err(text)?;
    are(2).await?;
    lab.cluster().restart(follower).map_err(text)?;
    are(3).await
}

/// Messages of the events about a pod.
async fn events(client: &KubeClient, pod: &str) -> Result<Vec<String>, String> {
    let all = client.list("/api/v1/namespaces/default/events").await.map_err(text)?;
    let about = all.iter().filter(|e| e["involvedObject"]["name"] == pod);
    Ok(about.filter_map(|e| e["message"].as_str().map(str::to_owned)).collect())
}

pub async fn without_containerd(lab: &mut Lab) -> Outcome {
    let client = lab.client().map_err(text)?;
    let started =
        || async { Ok::<_, String>(ids(&client.list("/api/v1/namespaces/default/pods").await.map_err(text)?)) };
    let before = started().await?;
    lab.nodes().iter_mut().for_each(|n| n.kill_containerd());
    for _ in 0..10 {
        let page = page(lab).await?;
        check(page.contains("pod web-"), || format!("{page:?}"))?;
    }
    let revived = lab.revive().map_err(text)?;
    check(revived == ["containerd of n1", "containerd of n2"], || format!("{revived:?}"))?;
    // The agents have found it again when they can start a pod with it.
    let name = before.first().and_then(|p| p.split(' ').next()).ok_or("there is no pod")?.to_owned();
    client.delete(&format!("/api/v1/namespaces/default/pods/{name}")).await.map_err(text)?;
    until(Duration::from_secs(60), || async {
        let now = started().await?;
        check(!now.iter().any(|p| p.starts_with(&name)) && now.len() == before.len(), || format!("{now:?}"))
    })
    .await?;
    settled(lab).await?;
    let after = started().await?;
    let kept: Vec<&String> = before.iter().filter(|p| !p.starts_with(&name)).collect();
    check(kept.iter().all(|p| after.contains(p)), || format!("not taken over: {before:?}, then {after:?}"))
}

fn ids(pods: &[Value]) -> Vec<String> {
    let line = |p: &Value| {
        let c = &p["status"]["containerStatuses"][0];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", text(&p["metadata"]["name"]), text(&c["containerID"]), c["restartCount"])
    };
    pods.iter().map(line).collect()
}

/// kubectl itself speaks from inside the pod's network, with nothing but what the pod has.
pub async fn api_from_a_pod(lab: &mut Lab) -> Outcome {
    let kubectl = Kubectl::new(lab, "default")?;
    let client = lab.client().map_err(text)?;
    let pods = client.list("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb").await.map_err(text)?;
    let own = pods.iter().find(|p| p["spec"]["nodeName"] == "n1").ok_or("no pod on n1")?;
    let pod = own["metadata"]["name"].as_str().ok_or("no name")?;
    let read = |what: &'static str| {
        let path = format!("/var/run/secrets/kubernetes.io/serviceaccount/{what}");
        let kubectl = kubectl.clone();
        async move { kubectl.run(&["exec", pod, "--", "cat", &path]).await }
    };
    let (ca, token) = (read("ca.crt").await?, read("token").await?);
    let env = kubectl.run(&["exec", pod, "--", "env"]).await?;
    let value = |name: &str| env.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    let server = format!("https://{}:{}", value("KUBERNETES_SERVICE_HOST"), value("KUBERNETES_SERVICE_PORT"));
    let service = client.get("/api/v1/namespaces/default/services/kubernetes").await.map_err(text)?;
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    check(server == format!("https://{address}:443"), || format!("{server:?}, the Service is {address:?}"))?;

    let dir = lab.cluster().dir().to_owned();
    let ca_file = dir.join("pod-ca.crt");
    std::fs::write(&ca_file, &ca).map_err(text)?;
    let home = dir.join("pod-home");
    std::fs::create_dir_all(&home).map_err(text)?;
    let id = own["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
    let node = &lab.nodes()[0];
    let mut tasks = node.command("ctr");
    tasks.args(["-a", CONTAINERD_SOCKET, "-n", "k8s.io", "task", "ls"]);
    let tasks = String::from_utf8_lossy(&tasks.output().map_err(text)?.stdout).into_owned();
    let id = id.trim_start_matches("containerd://");
    let pid =
        tasks.lines().find_map(|l| l.strip_prefix(id)?.split_whitespace().next()).ok_or("the container has no task")?;

    let inside = |ca: &str, token: &str, what: &[&str]| {
        let mut command = node.command("nsenter");
        command.args(["-t", pid, "-n", "env", "-i", "PATH=/usr/bin:/bin:/usr/local/bin"]);
        command.arg(format!("HOME={}", home.display())).args(["timeout", "20", "kubectl", "--server", &server]);
        command.args(["--certificate-authority", ca, "--token", token]).args(what);
        let out = command.output().map_err(text)?;
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        Ok::<_, String>((out.status.success(), said))
    };
    let ca_path = ca_file.to_string_lossy();
    for _ in 0..6 {
        // Every endpoint of the Service gets its turn.
        let (ok, said) = inside(&ca_path, &token, &["get", "--raw", "/version"])?;
        check(ok && said.contains("v1.37"), || format!("/version: {said}"))?;
    }
    let (ok, said) = inside(&ca_path, &token, &["get", "pods"])?;
    let refused = "User \"system:serviceaccount:default:default\" cannot list resource \"pods\"";
    check(!ok && said.contains(refused), || format!("the token does not say who it is: {said}"))?;
    let (ok, said) = inside(&ca_path, "not-a-token", &["get", "pods"])?;
    check(!ok && said.contains("Unauthorized"), || format!("a wrong token: {said}"))?;
    // The certificate is checked: another authority is not believed.
    let other = dir.join("pod-other-ca.crt");
    std::fs::write(&other, other_ca()?).map_err(text)?;
    let (ok, said) = inside(&other.to_string_lossy(), &token, &["get", "--raw", "/version"])?;
    check(!ok && said.contains("certificate"), || format!("another authority: {said}"))
}

fn other_ca() -> Result<String, String> {
    let now = triarch_env::Wall::from_secs(1_700_000_000);
    let ca = triarch_pki::ca::Ca::generate("another", now).map_err(text)?;
    Ok(ca.certificate_pem().to_owned())
}
