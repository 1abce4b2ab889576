//! The Node object: what this machine has and how it is doing.
//!
//! Reading the machine is here; what follows from the readings is pure.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use triarch_env::Wall;
use triarch_kubelet::runtime::{ImageInfo, RuntimeInfo};

use crate::thresholds::Thresholds;

/// The Kubernetes version whose node behaviour this is.
pub const VERSION: &str = "v1.37.0";
const MAX_IMAGES: usize = 50;
const MAX_NAMES: usize = 5;

/// What does not change while the agent runs.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub cpus: u64,
    pub memory: u64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    pub architecture: String,
    pub runtime: RuntimeInfo,
}

/// What does.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    pub memory_available: u64,
    pub disk_total: u64,
    pub disk_available: u64,
    pub pids_max: u64,
    pub pids: u64,
    /// Why the runtime cannot run pods; `None` when it can.
    pub not_ready: Option<String>,
    pub images: Vec<ImageInfo>,
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn meminfo(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let found = text.lines().find_map(|l| l.strip_prefix(key)?.trim().trim_end_matches(" kB").parse::<u64>().ok());
    found.unwrap_or(0) * 1024
}

impl Machine {
    pub fn read(runtime: RuntimeInfo) -> Machine {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory: meminfo("MemTotal:"),
            machine_id: line("/etc/machine-id"),
            system_uuid: line("/sys/class/dmi/id/product_uuid"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: pretty.trim_matches('"').to_owned(),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
            runtime,
        }
    }
}

impl Readings {
    /// Reads memory, processes and the disk that `dir` is on.
    pub fn read(dir: &Path) -> Readings {
        let mut out = Readings {
            memory_available: meminfo("MemAvailable:"),
            pids_max: line("/proc/sys/kernel/pid_max").parse().unwrap_or(0),
            pids: line("/proc/loadavg").split(['/', ' ']).nth(4).and_then(|n| n.parse().ok()).unwrap_or(0),
            ..Default::default()
        };
        if let Ok(s) = nix::sys::statvfs::statvfs(dir) {
            out.disk_total = s.blocks() * s.fragment_size();
            out.disk_available = s.blocks_available() * s.fragment_size();
        }
        out
    }
}

/// Who the node is.
#[derive(Clone, Debug, Default)]
pub struct NodeIdentity {
    pub name: String,
    pub ips: Vec<String>,
    pub pods: u32,
    pub labels: Vec<(String, String)>,
}

/// status of the Node; `previous` keeps the conditions' transition times. What
/// has to be left by the thresholds is not for pods.
pub fn status(
    id: &NodeIdentity,
    m: &Machine,
    r: &Readings,
    limits: &Thresholds,
    previous: Option<&Value>,
    now: Wall,
) -> Value {
    let ki = |bytes: u64| format!("{}Ki", bytes / 1024);
    let memory = m.memory - limits.memory.of(m.memory);
    let disk = r.disk_total - limits.disk.of(r.disk_total);
    let mut addresses: Vec<Value> = id.ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": id.name}));
    let mut images = r.images.clone();
    images.sort_by(|a, b| (b.size, &a.id).cmp(&(a.size, &b.id)));
    let images: Vec<Value> = images
        .iter()
        .take(MAX_IMAGES)
        .map(|i| {
            let names: Vec<&String> = i.digests.iter().chain(&i.tags).take(MAX_NAMES).collect();
            json!({"names": names, "sizeBytes": i.size})
        })
        .collect();
    json!({
        "capacity": {"cpu": m.cpus.to_string(), "memory": ki(m.memory), "pods": id.pods.to_string(), "ephemeral-storage": ki(r.disk_total)},
        "allocatable": {"cpu": m.cpus.to_string(), "memory": ki(memory), "pods": id.pods.to_string(), "ephemeral-storage": disk.to_string()},
        "conditions": conditions(m, r, limits, previous, now),
        "addresses": addresses,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": m.machine_id, "systemUUID": m.system_uuid, "bootID": m.boot_id, "kernelVersion": m.kernel,
            "osImage": m.os_image, "containerRuntimeVersion": format!("{}://{}", m.runtime.name, m.runtime.version),
            "kubeletVersion": VERSION, "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": m.architecture,
        },
        "images": images,
    })
}

fn conditions(m: &Machine, r: &Readings, limits: &Thresholds, previous: Option<&Value>, now: Wall) -> Vec<Value> {
    let low_memory = m.memory > 0 && r.memory_available < limits.memory.of(m.memory);
    let low_disk = r.disk_total > 0 && r.disk_available < limits.disk.of(r.disk_total);
    let low_pids = r.pids_max > 0 && r.pids * 100 > r.pids_max * 95;
    let pressure = |on: bool, yes: [&'static str; 2], no: [&'static str; 2]| {
        let [reason, message] = if on { yes } else { no };
        (on, reason, message.to_owned())
    };
    let ready = match &r.not_ready {
        None => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        Some(why) => (false, "KubeletNotReady", why.clone()),
    };
    let all = [
        (
            "MemoryPressure",
            pressure(
                low_memory,
                ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
                ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
            ),
        ),
        (
            "DiskPressure",
            pressure(
                low_disk,
                ["KubeletHasDiskPressure", "kubelet has disk pressure"],
                ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
            ),
        ),
        (
            "PIDPressure",
            pressure(
                low_pids,
                ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
                ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
            ),
        ),
        ("Ready", ready),
    ];
    let known = previous.and_then(|p| p["conditions"].as_array());
    let make = |(kind, (on, reason, message)): (&str, (bool, &str, String))| {
        let text = if on { "True" } else { "False" };
        let before = known.into_iter().flatten().find(|c| c["type"] == kind && c["status"] == text);
        let since = before.and_then(|c| c["lastTransitionTime"].as_str()).map_or_else(|| now.rfc3339(), str::to_owned);
        json!({"type": kind, "status": text, "lastHeartbeatTime": now.rfc3339(), "lastTransitionTime": since,
            "reason": reason, "message": message})
    };
    all.into_iter().map(make).collect()
}

/// Whether two statuses differ in more than the time of the last look.
pub fn differs(a: &Value, b: &Value) -> bool {
    let still = |v: &Value| {
        let mut v = v.clone();
        for c in v["conditions"].as_array_mut().into_iter().flatten() {
            c["lastHeartbeatTime"] = Value::Null;
        }
        v
    };
    still(a) != still(b)
}

/// The object to register with.
pub fn node(id: &NodeIdentity, m: &Machine, status: &Value) -> Value {
    let mut labels = json!({
        "beta.kubernetes.io/arch": m.architecture, "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": m.architecture, "kubernetes.io/hostname": id.name, "kubernetes.io/os": "linux",
    });
    for (k, v) in &id.labels {
        labels[k] = json!(v);
    }
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {"name": id.name, "labels": labels,
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "spec": {},
        "status": status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> NodeIdentity {
        NodeIdentity { name: "n1".into(), ips: vec!["192.0.2.1".into()], pods: 110, labels: vec![] }
    }

    fn limits() -> Thresholds {
        Thresholds::default()
    }

    fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
        status["conditions"].as_array().expect("a list").iter().find(|c| c["type"] == kind).expect("present")
    }

    #[test]
    fn a_node_says_what_it_has_and_keeps_transition_times() {
        let m = Machine { cpus: 2, memory: 1 << 30, ..Default::default() };
        let r = Readings {
            memory_available: 1 << 29,
            disk_total: 1000 << 10,
            disk_available: 500 << 10,
            ..Default::default()
        };
        let first = status(&id(), &m, &r, &limits(), None, Wall::from_secs(100));
        assert_eq!(
            (&first["capacity"]["memory"], &first["allocatable"]["memory"]),
            (&json!("1048576Ki"), &json!("946176Ki"))
        );
        assert_eq!(condition(&first, "Ready")["message"], "kubelet is posting ready status");
        let second = status(&id(), &m, &r, &limits(), Some(&first), Wall::from_secs(200));
        assert!(!differs(&first, &second));
        let bad = Readings { not_ready: Some("no runtime".into()), ..r };
        let third = status(&id(), &m, &bad, &limits(), Some(&second), Wall::from_secs(300));
        assert!(differs(&second, &third));
        assert_eq!(condition(&third, "Ready")["lastTransitionTime"], "1970-01-01T00:05:00Z");
        assert_eq!(condition(&third, "DiskPressure")["lastTransitionTime"], "1970-01-01T00:01:40Z");
    }

    #[test]
    fn pressure_is_said_when_memory_or_disk_runs_out() {
        let m = Machine { cpus: 2, memory: 1 << 30, ..Default::default() };
        let r = Readings { memory_available: 1 << 20, disk_total: 1000, disk_available: 50, ..Default::default() };
        let s = status(&id(), &m, &r, &limits(), None, Wall::from_secs(100));
        assert_eq!(condition(&s, "MemoryPressure")["reason"], "KubeletHasInsufficientMemory");
        assert_eq!(condition(&s, "DiskPressure")["status"], "True");
        // 5% of a large disk is much: who says so is not under pressure.
        let small = Thresholds::parse("nodefs.available<1%").expect("valid");
        let s = status(&id(), &m, &r, &small, None, Wall::from_secs(100));
        assert_eq!(condition(&s, "DiskPressure")["status"], "False");
        assert_eq!(s["allocatable"]["ephemeral-storage"], "990");
    }

    #[test]
    fn this_machine_can_be_read() {
        let m = Machine::read(RuntimeInfo::default());
        assert!(m.cpus > 0 && m.memory > 0 && !m.kernel.is_empty());
        assert!(Readings::read(Path::new("/")).disk_total > 0);
    }
}
