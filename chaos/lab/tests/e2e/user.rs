//! What a user does with stock kubectl, with the leader killed in the middle of it.

use std::time::Duration;

use triarch_lab::Lab;

use crate::kubectl::Kubectl;
use crate::{Outcome, check, text, until};

const NAMESPACE: &str = "shop";

const MANIFEST: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: shop}
data: {message: Hello from the shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
      - name: web
        image: web:1
        ports: [{name: http, containerPort: 8080}]
        env: [{name: VERSION, value: "1"}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
        volumeMounts: [{name: config, mountPath: /etc/web}]
      volumes: [{name: config, configMap: {name: shop}}]
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: shop}
  ports: [{name: http, port: 80, targetPort: http}]
"#;

fn kubectl(lab: &mut Lab) -> Result<Kubectl, String> {
    Kubectl::new(lab, NAMESPACE)
}

/// A request to the shop's Service from inside the first node; its answer's body.
pub async fn request(lab: &mut Lab, path: &str) -> Result<String, String> {
    let client = lab.client().map_err(text)?;
    let service = client.get(&format!("/api/v1/namespaces/{NAMESPACE}/services/shop")).await.map_err(text)?;
    let address = service["spec"]["clusterIP"].as_str().ok_or("the Service has no address")?;
    let mut command = lab.nodes()[0].command("busybox");
    command.args(["timeout", "5", "busybox", "wget", "-q", "-O", "-", &format!("http://{address}{path}")]);
    let out = tokio::task::spawn_blocking(move || command.output()).await.map_err(text)?.map_err(text)?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

pub async fn apply(lab: &mut Lab) -> Outcome {
    let file = lab.cluster().dir().join("shop.yaml");
    std::fs::write(&file, MANIFEST).map_err(text)?;
    let file = file.to_string_lossy().into_owned();
    let kubectl = kubectl(lab)?;
    kubectl.run(&["create", "namespace", NAMESPACE]).await?;
    let said = kubectl.run_while_the_leader_dies(lab, Duration::from_millis(150), &["apply", "-f", &file]).await?;
    for object in ["configmap/shop", "deployment.apps/shop", "service/shop"] {
        check(said.contains(object), || format!("{object} was not applied: {said}"))?;
    }
    kubectl.run(&["rollout", "status", "deployment/shop", "--timeout=50s"]).await?;
    let again = kubectl.run(&["apply", "-f", &file]).await?;
    check(again.matches(" unchanged").count() == 3, || format!("something is left half done: {again}"))?;
    let page = request(lab, "/").await?;
    check(page.contains("Hello from the shop") && page.contains("pod shop-"), || format!("{page:?}"))
}

pub async fn rollout(lab: &mut Lab) -> Outcome {
    let kubectl = kubectl(lab)?;
    let soon = Duration::from_millis(300);
    let image = ["get", "pods", "-l", "app=shop", "-o", "jsonpath={.items[*].spec.containers[0].image}"];
    let rolled = ["rollout", "status", "deployment/shop", "--timeout=50s"];

    kubectl.run(&["set", "image", "deployment/shop", "web=web:2"]).await?;
    let said = kubectl.run_while_the_leader_dies(lab, soon, &rolled).await?;
    check(said.contains("successfully rolled out"), || said.clone())?;
    until(Duration::from_secs(30), || async {
        let images = kubectl.run(&image).await?;
        check(images == "web:2 web:2", || format!("{images:?}"))
    })
    .await?;

    kubectl.run_while_the_leader_dies(lab, soon, &["scale", "deployment/shop", "--replicas=4"]).await?;
    kubectl.run(&rolled).await?;
    let ready = kubectl.run(&["get", "deployment", "shop", "-o", "jsonpath={.status.readyReplicas}"]).await?;
    check(ready == "4", || format!("{ready:?} of 4 are ready"))?;

    // Said twice it would undo itself: a command that was cut off is looked after, not repeated.
    kubectl.run(&["rollout", "undo", "deployment/shop", "--to-revision=1"]).await?;
    kubectl.run_while_the_leader_dies(lab, soon, &rolled).await?;
    until(Duration::from_secs(30), || async {
        let images = kubectl.run(&image).await?;
        check(images == "web:1 web:1 web:1 web:1", || format!("{images:?}"))
    })
    .await?;
    let history = kubectl.run(&["rollout", "history", "deployment/shop"]).await?;
    check(history.contains("\n2 ") && history.contains("\n3 ") && !history.contains("\n1 "), || history.clone())
}

pub async fn streams(lab: &mut Lab) -> Outcome {
    let kubectl = kubectl(lab)?;
    kubectl.run(&["scale", "deployment/shop", "--replicas=1"]).await?;
    kubectl.run(&["rollout", "status", "deployment/shop", "--timeout=50s"]).await?;
    until(Duration::from_secs(60), || async {
        let pods = kubectl.run(&["get", "pods", "-l", "app=shop", "-o", "name"]).await?;
        check(pods.lines().count() == 1, || format!("more than one pod: {pods:?}"))
    })
    .await?;
    let pod = kubectl.run(&["get", "pods", "-l", "app=shop", "-o", "name"]).await?.trim().to_owned();

    let leader = lab.cluster().leader().await.map_err(text)?.ok_or("there is no leader")?;
    let ports: Vec<u16> = lab.cluster().replicas().iter().map(|r| r.port()).collect();
    let (dead, alive) = (kubectl.through(ports[leader]), kubectl.through(ports[(leader + 1) % 3]));
    let follow = ["logs", "-f", "--tail=5", pod.as_str()];
    let copy = ["exec", "-i", pod.as_str(), "--", "cat"];
    let watch = ["get", "configmaps", "-w"];

    // Each stream once through the replica that dies and once through one that does not.
    let mut cut = [dead.start(&follow)?, dead.start(&copy)?, dead.start(&watch)?];
    let mut kept = [alive.start(&follow)?, alive.start(&copy)?, alive.start(&watch)?];
    for streams in [&mut cut, &mut kept] {
        streams[1].tell("before\n")?;
    }
    request(lab, "/before").await?;
    for streams in [&cut, &kept] {
        streams[0].says("/before").await?;
        streams[1].says("before").await?;
        streams[2].says("kube-root-ca.crt").await?;
    }

    lab.cluster().kill(leader).map_err(text)?;
    kept[1].tell("after\n")?;
    kept[1].says("after").await?;
    request(lab, "/after").await?;
    kept[0].says("/after").await?;
    kubectl.run(&["create", "configmap", "written-without-the-leader"]).await?;
    kept[2].says("written-without-the-leader").await?;
    for stream in &mut kept {
        check(!stream.is_over(), || format!("a stream through a survivor ended: {:?}", stream.said()))?;
    }

    // Those through the dead replica say that they ended, and work again at once.
    for stream in &mut cut {
        stream.ends().await?;
    }
    // (A watch and an exec that are cut off end without a word: that is kubectl's own way.)
    let said = cut[0].said();
    check(said.contains("unexpected EOF") || said.contains("error"), || format!("it ended without a word: {said:?}"))?;
    let mut again = [kubectl.start(&follow)?, kubectl.start(&copy)?, kubectl.start(&watch)?];
    again[1].tell("again\n")?;
    request(lab, "/again").await?;
    again[0].says("/again").await?;
    again[1].says("again").await?;
    again[2].says("written-without-the-leader").await?;

    lab.cluster().restart(leader).map_err(text)?;
    lab.cluster().wait_ready(leader).await.map_err(text)
}

pub async fn describe(lab: &mut Lab) -> Outcome {
    let kubectl = kubectl(lab)?;
    let expect = |said: String, parts: &[&str]| {
        let missing: Vec<&str> = parts.iter().filter(|p| !said.contains(**p)).copied().collect();
        check(missing.is_empty(), || format!("lacks {missing:?}: {said}"))
    };
    let pod = kubectl.run(&["describe", "pod", "-l", "app=shop"]).await?;
    let parts = [
        "Status:           Running",
        "Controlled By:  ReplicaSet/shop-",
        "Container ID:   containerd://",
        "Ready:          True",
        "http-get http://:http/healthz delay=0s timeout=1s period=1s #success=1 #failure=3",
        "/etc/web from config (rw)",
        "QoS Class:                   BestEffort",
        "Successfully assigned shop/shop-",
        "Container started",
    ];
    expect(pod, &parts)?;
    let deployment = kubectl.run(&["describe", "deployment", "shop"]).await?;
    expect(deployment, &["StrategyType:           RollingUpdate", "NewReplicaSet:", "ScalingReplicaSet"])?;
    let service = kubectl.run(&["describe", "service", "shop"]).await?;
    expect(service, &["Type:", "ClusterIP", "Port:                     http  80/TCP", ":8080"])?;
    let node = kubectl.run(&["describe", "node", "n1"]).await?;
    expect(
        node,
        &["Ready ", "KubeletReady", "PodCIDR:", "Non-terminated Pods:", "Allocated resources:", "containerd://"],
    )?;
    let explained = kubectl.run(&["explain", "deployment.spec.template.spec.containers.readinessProbe"]).await?;
    expect(explained, &["FIELD: readinessProbe <Probe>", "periodSeconds", "<HTTPGetAction>"])?;
    kubectl.run(&["delete", "namespace", NAMESPACE, "--timeout=55s"]).await.map(drop)
}
