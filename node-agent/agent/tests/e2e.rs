//! The agent over a real containerd, in namespaces of its own: pods with
//! volumes, probes, services, logs, exec, restarts, the end of a pod, and an
//! agent that comes back.
//!
//! Needs root, containerd, runc, the CNI plugins, nft and a static busybox; where
//! they are missing it counts as skipped, which is why it has no harness.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{Gateway, Line, until};
use futures::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use triarch_agent::dialer::NodeDialer;
use triarch_agent::host::NodeHost;
use triarch_agent::net::{self, NetConfig};
use triarch_agent::node::ledger::Ledger;
use triarch_agent::node::{Events, Node, Parts, Shared};
use triarch_agent::session::{Uplink, run};
use triarch_agent::tunnel;
use triarch_cri::Cri;
use triarch_env::{Env, Scope, TokioRuntime};
use triarch_kubelet::ports::NodeConfig;
use triarch_kubelet::runtime::Runtime;
use triarch_kubelet::runtime::cri::CriRuntime;
use triarch_rpc::node::tunnel_frame::Body;
use triarch_rpc::node::{LogsRequest, StreamRequest, TunnelFrame, tunnel_open};

const INSIDE: &str = "TRIARCH_TEST_NODE_DIR";
const CGROUP: &str = "/triarch-test";

/// Why containers cannot run here.
fn lacking() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".into());
    }
    for program in ["containerd", "runc", "ctr", "nft", "ip", "unshare"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
        if !found.is_ok_and(|s| s.success()) {
            return Some(format!("{program} is not installed"));
        }
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().any(|p| Path::new(p).exists());
    if !busybox || !Path::new("/usr/lib/cni/ptp").exists() {
        return Some("busybox-static or the CNI plugins are not installed".into());
    }
    let unshared = Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "true"]).status();
    if !unshared.is_ok_and(|s| s.success()) {
        return Some("namespaces cannot be made".into());
    }
    None
}

fn tar(entries: &[(&str, &[u8], u32)], links: &[(&str, &str)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (path, data, mode) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(*mode);
        out.append_data(&mut header, path, *data).expect("a tar");
    }
    for (path, to) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        out.append_link(&mut header, path, to).expect("a tar");
    }
    out.into_inner().expect("a tar")
}

fn sha(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// An image of busybox alone, as `docker save` writes one.
fn image(name: &str, command: &[&str]) -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").or_else(|_| fs::read("/usr/bin/busybox")).expect("busybox");
    let names = ["sh", "sleep", "httpd", "cat", "echo", "id", "hostname", "env", "ls", "true"];
    let links: Vec<_> = names.iter().map(|n| format!("bin/{n}")).collect();
    let links: Vec<_> = links.iter().map(|l| (l.as_str(), "busybox")).collect();
    let layer = tar(
        &[("bin/busybox", &busybox, 0o755), ("tmp/x", b"", 0o644), ("etc/passwd", b"root:x:0:0::/:/bin/sh\n", 0o644)],
        &links,
    );
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha(&layer))]}});
    let config = config.to_string().into_bytes();
    let file = format!("{}.json", sha(&config));
    let manifest = json!([{"Config": file, "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    tar(&[("manifest.json", manifest.as_bytes(), 0o644), (&file, &config, 0o644), ("layer.tar", &layer, 0o644)], &[])
}

fn containerd_config(dir: &Path) -> String {
    let d = dir.display();
    format!(
        r#"version = 2
root = "{d}/containerd"
state = "{d}/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "{d}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{d}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:1"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{d}/runc"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{d}/cni-conf"
"#
    )
}

fn main() {
    if let Some(d) = std::env::var_os(INSIDE).map(PathBuf::from) {
        return inside_a_node(&d);
    }
    let (word, passed, ignored) = match lacking() {
        Some(why) => (format!("ignored, containers cannot run here: {why}"), 0, 1),
        None => {
            pods_run_over_a_real_containerd();
            ("ok".to_owned(), 1, 0)
        }
    };
    println!("test pods_run_over_a_real_containerd ... {word}");
    println!("test result: ok. {passed} passed; 0 failed; {ignored} ignored; 0 measured; 0 filtered out");
}

/// Starts this program again inside namespaces of a node's own; panics if that fails.
fn pods_run_over_a_real_containerd() {
    let dir = tempfile::Builder::new().prefix("triarch-cri-").tempdir().expect("a folder");
    let d = dir.path();
    fs::write(d.join("config.toml"), containerd_config(d)).expect("writes");
    let pause = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done";
    fs::write(d.join("pause.tar"), image("docker.io/library/pause:1", &["/bin/sh", "-c", pause])).expect("writes");
    fs::write(d.join("web.tar"), image("docker.io/library/web:1", &["/bin/sh"])).expect("writes");
    fs::create_dir_all(d.join("netns")).expect("made");
    // The shell is the namespace's first process: it reaps what the shims leave.
    let script = r#"
        mkdir -p /run/containerd /run/netns /var/lib/cni
        mount -t tmpfs tmpfs /run/containerd && mount -t tmpfs tmpfs /run/netns && mount -t tmpfs tmpfs /var/lib/cni || exit 90
        ip link set lo up && ip link add eth0 type veth peer name far && ip addr add 192.0.2.1/24 dev eth0 && ip link set eth0 up && ip link set far up || exit 91
        containerd --config "$DIR/config.toml" >"$DIR/containerd.log" 2>&1 &
        for i in $(seq 100); do ctr -a "$DIR/containerd.sock" version >/dev/null 2>&1 && break; sleep 0.1; done
        for i in pause web; do ctr -a "$DIR/containerd.sock" -n k8s.io images import --no-unpack "$DIR/$i.tar" >/dev/null || exit 92; done
        "$TEST"
    "#;
    let me = std::env::current_exe().expect("this test");
    let arguments = "--net --mount --propagation private --uts --ipc --pid --fork --kill-child --mount-proc bash -c";
    let status = Command::new("unshare")
        .args(arguments.split(' '))
        .arg(script)
        .env("DIR", d)
        .env("TEST", me)
        .env(INSIDE, d)
        .status()
        .expect("unshare runs");
    let _ = Command::new("find")
        .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &format!("*{CGROUP}*"), "-exec", "rmdir", "{}", "+"])
        .stderr(Stdio::null())
        .status();
    if !status.success() {
        let log = fs::read_to_string(d.join("containerd.log")).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(15).collect();
        panic!("inside: {status}; containerd said last:\n{}", tail.join("\n"));
    }
}

struct Agent {
    node: Arc<Node>,
    scope: Scope,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

fn agent(d: &Path, g: &Arc<Gateway>) -> Agent {
    let env = Env::new(TokioRuntime::current());
    let config = NodeConfig {
        name: "n1".into(),
        ips: vec!["192.0.2.1".into()],
        runtime_name: "containerd".into(),
        cgroup_root: CGROUP.into(),
        cluster_domain: "cluster.local".into(),
        memory_bytes: 1 << 30,
        relist: Duration::from_secs(5),
        ..Default::default()
    };
    let data = d.join("agent");
    fs::create_dir_all(&data).expect("made");
    let shared = Shared::new(&env);
    let runtime = Arc::new(CriRuntime::new(Cri::new(env.clone(), &d.join("containerd.sock"))));
    let host = NodeHost::new(env.clone(), Arc::new(config.clone()), data.clone(), d.join("logs"), shared.clone());
    let parts = Parts {
        env: env.clone(),
        config,
        boot_id: "b".into(),
        runtime,
        dialer: Arc::new(NodeDialer::new(env.clone())),
        ledger: Some(Ledger::open(&data).expect("opens")),
        events: Events::All,
        without: vec![],
    };
    let scope = Scope::new();
    let node = Node::start(parts, shared, Arc::new(host), scope.clone());
    let uplink: Arc<dyn Uplink> = Arc::new(Line(g.clone()));
    env.spawn_in(&scope, "session", run::keep(node.clone(), uplink.clone(), scope.clone()));
    env.spawn_in(&scope, "tunnels", tunnel::keep(node.clone(), uplink, 1, scope.clone()));
    let net = NetConfig {
        data_dir: data,
        cni_conf_dir: Some(d.join("cni-conf")),
        service_cidr: "10.96.0.0/16".into(),
        proxy: true,
        routes: true,
    };
    env.spawn_in(&scope, "net", net::keep(node.clone(), net));
    Agent { node, scope }
}

fn pod(name: &str, spec: Value) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "d", "uid": format!("uid-{name}"),
        "generation": 1, "labels": {"app": name}}, "spec": spec})
}

async fn get(address: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let talk = async {
        let mut s = tokio::net::TcpStream::connect(address).await?;
        s.write_all(b"GET /colour HTTP/1.0\r\n\r\n").await?;
        let mut text = String::new();
        s.read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    match tokio::time::timeout(Duration::from_secs(3), talk).await {
        Ok(Ok(text)) => text,
        Ok(Err(e)) => format!("error: {e}"),
        Err(_) => "error: late".into(),
    }
}

async fn answers(address: &str, part: &str) {
    let mut last = String::new();
    for _ in 0..100 {
        last = get(address).await;
        if last.contains(part) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{address} never said {part:?}, last: {last}");
}

fn status(g: &Gateway, name: &str, path: &str) -> Value {
    let p = g.0.lock();
    p.statuses.get(name).and_then(|(s, _)| s.pointer(path)).cloned().unwrap_or_default()
}

async fn collect(mut frames: triarch_agent::session::Outbound<TunnelFrame>, until: &str) -> String {
    let mut text = String::new();
    let reading = async {
        while let Some(frame) = frames.next().await {
            match frame.body {
                Some(Body::Data(b)) => text.push_str(&String::from_utf8_lossy(&b)),
                Some(Body::Error(e)) => text.push_str(&format!("error {}: {}", e.code, e.message)),
                Some(Body::Eof(_)) | None => break,
                Some(Body::Hello(_)) => {}
            }
            if !until.is_empty() && text.contains(until) {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), reading).await;
    text
}

fn inside_a_node(d: &Path) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(inside(d));
}

async fn inside(d: &Path) {
    triarch_pki::install_crypto();
    let g = Gateway::new();
    let own = json!({"metadata": {"name": "n1"}, "spec": {"podCIDR": "10.77.1.0/24"}, "status": {"addresses": []}});
    g.set("nodes", "n1", own);
    g.set("configmaps", "cm", json!({"data": {"colour": "green"}}));
    g.set("secrets", "s", json!({"data": {"pw": "aHVudGVyMg=="}}));
    let a = agent(d, &g);
    until("the session", || a.node.is_connected()).await;
    let cri = CriRuntime::new(Cri::new(a.node.env().clone(), &d.join("containerd.sock")));
    for _ in 0..200 {
        if cri.ready().await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cri.ready().await.expect("the pod network was configured from the node's podCIDR");

    println!("-- a web pod with volumes, probes and limits");
    let web = json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 2,
        "securityContext": {"fsGroup": 3000},
        "volumes": [{"name": "c", "configMap": {"name": "cm"}}, {"name": "s", "secret": {"secretName": "s", "defaultMode": 256}},
            {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}],
        "initContainers": [{"name": "i", "image": "web:1", "command": ["/bin/sh", "-c", "echo init; id"]}],
        "containers": [{"name": "c", "image": "web:1", "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; echo up $COLOUR $IP; httpd -f -p 8080 -h /www & while :; do sleep 1; done"],
            "env": [{"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "colour"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
            "volumeMounts": [{"name": "c", "mountPath": "/www"}, {"name": "s", "mountPath": "/s"}, {"name": "m", "mountPath": "/m"}, {"name": "d", "mountPath": "/down"}],
            "readinessProbe": {"httpGet": {"path": "/colour", "port": 8080}, "periodSeconds": 1},
            "livenessProbe": {"exec": {"command": ["/bin/true"]}, "periodSeconds": 1}}]});
    g.put("web", pod("web", web));
    let ready = |g: &Gateway, name: &str| status(g, name, "/containerStatuses/0/ready") == json!(true);
    until("web is ready", || ready(&g, "web")).await;
    let ip = status(&g, "web", "/podIP").as_str().expect("an address").to_owned();
    assert!(ip.starts_with("10.77.1."), "{ip}");
    assert_eq!(status(&g, "web", "/initContainerStatuses/0/state/terminated/reason"), "Completed");
    let image_id = status(&g, "web", "/containerStatuses/0/imageID");
    assert!(image_id.as_str().is_some_and(|i| i.starts_with("sha256:")), "{image_id}");
    answers(&format!("{ip}:8080"), "green").await;

    println!("-- inside its container");
    let id =
        status(&g, "web", "/containerStatuses/0/containerID").as_str().expect("an id").replace("containerd://", "");
    let run_in = async |command: &str| {
        let words = ["/bin/sh", "-c", command].map(str::to_owned);
        let r = cri.exec(&id, &words, Duration::from_secs(5)).await.expect("runs");
        String::from_utf8_lossy(&r.output).trim().to_owned()
    };
    assert_eq!(run_in("cat /s/pw").await, "hunter2");
    assert_eq!(run_in("cat /down/labels").await, "app=\"web\"");
    assert_eq!(run_in("hostname").await, "web");
    assert!(run_in("cat /etc/hosts").await.contains(&format!("{ip}\tweb")));
    assert!(run_in("cat /proc/mounts").await.lines().any(|l| l.contains(" /m tmpfs")));
    assert!(run_in("id").await.contains("3000"));

    println!("-- a changed ConfigMap reaches the running pod");
    g.set("configmaps", "cm", json!({"data": {"colour": "blue"}}));
    answers(&format!("{ip}:8080"), "blue").await;

    println!("-- a service in front of it");
    g.set(
        "services",
        "web",
        json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"clusterIP": "10.96.0.7",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]}}),
    );
    g.set(
        "endpointslices.discovery.k8s.io",
        "web-1",
        json!({"metadata": {"name": "web-1", "namespace": "d",
        "labels": {"kubernetes.io/service-name": "web"}}, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true}, "nodeName": "n1"}]}),
    );
    answers("10.96.0.7:80", "blue").await;
    answers("192.0.2.1:30080", "blue").await;

    println!("-- logs and exec through a tunnel");
    let logs = LogsRequest {
        namespace: "d".into(),
        pod: "web".into(),
        container: "c".into(),
        tail_lines: -1,
        limit_bytes: -1,
        ..Default::default()
    };
    let (frames, _hold) = g.tunnel(tunnel_open::Kind::Logs(logs.clone())).await;
    assert_eq!(collect(frames, "").await, format!("up green {ip}\n"));
    let (frames, _hold) = g.tunnel(tunnel_open::Kind::Logs(LogsRequest { previous: true, ..logs })).await;
    let text = collect(frames, "").await;
    assert_eq!(text, "error 400: previous terminated container \"c\" in pod \"web\" not found");
    let head = "POST /x HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
    let exec = StreamRequest {
        verb: "exec".into(),
        namespace: "d".into(),
        pod: "web".into(),
        container: "c".into(),
        command: vec!["/bin/true".into()],
        stdout: true,
        request_head: head.as_bytes().to_vec().into(),
        ..Default::default()
    };
    let (frames, _hold) = g.tunnel(tunnel_open::Kind::Stream(exec)).await;
    let text = collect(frames, "\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 101 Switching Protocols"), "{text}");

    println!("-- a crash loop, a job, an image that cannot be had");
    g.put("crash", pod("crash", json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "web:1",
        "terminationMessagePolicy": "FallbackToLogsOnError", "command": ["/bin/sh", "-c", "echo last words; exit 3"]}]})));
    g.put(
        "job",
        pod(
            "job",
            json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "web:1",
        "command": ["/bin/sh", "-c", "echo -n done > /dev/termination-log"]}]}),
        ),
    );
    g.put("never", pod("never", json!({"containers": [{"name": "c", "image": "web:9", "imagePullPolicy": "Never"}]})));
    until("crash waits", || status(&g, "crash", "/containerStatuses/0/state/waiting/reason") == "CrashLoopBackOff")
        .await;
    let end = status(&g, "crash", "/containerStatuses/0/lastState/terminated");
    assert_eq!(
        (&end["exitCode"], &end["reason"], &end["message"]),
        (&json!(3), &json!("Error"), &json!("last words\n"))
    );
    until("the job is done", || status(&g, "job", "/phase") == "Succeeded").await;
    assert_eq!(status(&g, "job", "/containerStatuses/0/state/terminated/message"), "done");
    until("never waits", || status(&g, "never", "/containerStatuses/0/state/waiting/reason") == "ErrImageNeverPull")
        .await;

    println!("-- the agent goes away and comes back with nobody to ask");
    drop(a);
    g.fail(true);
    tokio::time::sleep(Duration::from_millis(300)).await;
    answers("10.96.0.7:80", "blue").await;
    let b = agent(d, &g);
    for _ in 0..200 {
        if b.node.kubelet().shown("uid-web").is_some_and(|s| s.container_statuses[0].ready) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let shown = b.node.kubelet().shown("uid-web").expect("adopted");
    assert_eq!(shown.container_statuses[0].container_id, format!("containerd://{id}"), "the same container goes on");
    answers("10.96.0.7:80", "blue").await;
    g.fail(false);
    until("the session", || b.node.is_connected()).await;

    println!("-- the end of a pod");
    let mut deleted = g.0.lock().pods["web"].clone();
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    deleted["metadata"]["deletionGracePeriodSeconds"] = json!(2);
    g.put("web", deleted);
    until("web has ended", || g.0.lock().statuses["web"].1).await;
    assert!(!d.join("agent/pods/uid-web").exists() && !d.join("logs/d_web_uid-web").exists());
    let left = Command::new("find").args(["/sys/fs/cgroup", "-path", "*poduid-web*"]).output().expect("find runs");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "no control group is left");
    for name in ["web", "crash", "job", "never"] {
        g.remove(name);
    }
    for _ in 0..400 {
        if cri.list().await.is_ok_and(|all| all.is_empty()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(cri.list().await.expect("lists").is_empty(), "nothing is left on the node");
}
