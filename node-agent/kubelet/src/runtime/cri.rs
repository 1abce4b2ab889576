//! [`Runtime`] over the Container Runtime Interface.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use triarch_cri::v1::{self, NamespaceMode};
use triarch_cri::{Cri, CriError, EventStream};
use triarch_env::Wall;

use super::*;
use crate::pod::container::{CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID, RESTART_COUNT};

/// Container ids whose pod is remembered for events; more cost a relist.
const MAX_OWNERS: usize = 8192;

/// containerd, CRI-O or another runtime on a unix socket.
pub struct CriRuntime {
    cri: Cri,
    /// Container or sandbox id to pod uid, as last listed.
    owners: Mutex<BTreeMap<String, String>>,
    events: tokio::sync::Mutex<Option<EventStream>>,
}

impl CriRuntime {
    pub fn new(cri: Cri) -> CriRuntime {
        CriRuntime { cri, owners: Mutex::default(), events: tokio::sync::Mutex::new(None) }
    }

    fn remember(&self, id: &str, uid: &str) {
        let mut owners = self.owners.lock();
        if owners.len() >= MAX_OWNERS {
            owners.clear();
        }
        owners.insert(id.to_owned(), uid.to_owned());
    }
}

impl From<CriError> for RuntimeError {
    fn from(e: CriError) -> RuntimeError {
        match &e {
            CriError::NotFound { .. } => RuntimeError::NotFound(e.to_string()),
            CriError::Unavailable { .. } => RuntimeError::Unavailable(e.to_string()),
            _ => RuntimeError::Failed(e.to_string()),
        }
    }
}

/// CRI times are nanoseconds since the epoch.
fn wall(nanos: i64) -> Wall {
    Wall { micros: nanos / 1000 }
}

fn label(labels: &std::collections::HashMap<String, String>, key: &str) -> String {
    labels.get(key).cloned().unwrap_or_default()
}

fn phase(state: i32) -> Phase {
    match v1::ContainerState::try_from(state) {
        Ok(v1::ContainerState::ContainerCreated) => Phase::Created,
        Ok(v1::ContainerState::ContainerRunning) => Phase::Running,
        Ok(v1::ContainerState::ContainerExited) => Phase::Exited,
        _ => Phase::Unknown,
    }
}

fn sandbox_of(s: &v1::PodSandbox) -> Sandbox {
    Sandbox {
        id: s.id.clone(),
        attempt: s.metadata.as_ref().map_or(0, |m| m.attempt),
        ready: s.state == v1::PodSandboxState::SandboxReady as i32,
        created: wall(s.created_at),
        ips: Vec::new(),
    }
}

fn container_of(c: &v1::Container) -> ContainerInfo {
    ContainerInfo {
        id: c.id.clone(),
        sandbox: c.pod_sandbox_id.clone(),
        name: label(&c.labels, CONTAINER_NAME),
        restart_count: label(&c.annotations, RESTART_COUNT).parse().unwrap_or(0),
        phase: phase(c.state),
        created: wall(c.created_at),
        image_id: c.image_ref.clone(),
        ..Default::default()
    }
}

fn complete(info: &mut ContainerInfo, status: v1::ContainerStatus) {
    info.phase = phase(status.state);
    info.started = wall(status.started_at);
    info.finished = wall(status.finished_at);
    info.exit_code = status.exit_code;
    info.reason = status.reason;
    info.message = status.message;
    info.image = status.image.map(|i| i.image).unwrap_or_default();
    info.image_id = status.image_ref;
}

fn int(value: Option<i64>) -> Option<v1::Int64Value> {
    value.map(|value| v1::Int64Value { value })
}

fn namespaces(spec: &SandboxSpec) -> v1::NamespaceOption {
    let node = |on: bool| if on { NamespaceMode::Node } else { NamespaceMode::Pod } as i32;
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (true, _) => NamespaceMode::Node,
        (false, true) => NamespaceMode::Pod,
        (false, false) => NamespaceMode::Container,
    };
    let (network, ipc) = (node(spec.host_network), node(spec.host_ipc));
    v1::NamespaceOption { network, pid: pid as i32, ipc, target_id: String::new() }
}

fn seccomp(profile: &Option<(String, String)>) -> Option<v1::SecurityProfile> {
    use v1::security_profile::ProfileType;
    let (kind, path) = profile.as_ref()?;
    let kind = match kind.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    Some(v1::SecurityProfile { profile_type: kind as i32, localhost_ref: path.clone() })
}

fn sandbox_config(spec: &SandboxSpec) -> v1::PodSandboxConfig {
    let security = v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        run_as_user: int(spec.run_as_user),
        run_as_group: int(spec.run_as_group),
        supplemental_groups: spec.supplemental_groups.clone(),
        privileged: spec.privileged,
        ..Default::default()
    };
    let dns = (!spec.dns.servers.is_empty() || !spec.dns.searches.is_empty()).then(|| v1::DnsConfig {
        servers: spec.dns.servers.clone(),
        searches: spec.dns.searches.clone(),
        options: spec.dns.options.clone(),
    });
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: spec.name.clone(),
            uid: spec.uid.clone(),
            namespace: spec.namespace.clone(),
            attempt: spec.attempt,
        }),
        hostname: spec.hostname.clone(),
        log_directory: spec.log_directory.to_string_lossy().into_owned(),
        dns_config: dns,
        labels: spec.labels.clone().into_iter().collect(),
        annotations: spec.annotations.clone().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: spec.cgroup_parent.clone(),
            security_context: Some(security),
            sysctls: spec.sysctls.clone().into_iter().collect(),
        }),
    }
}

/// Paths that an unprivileged container does not see, or not write.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn container_config(spec: &ContainerSpec, of: &SandboxSpec) -> v1::ContainerConfig {
    let s = &spec.security;
    let texts = |list: &[&str]| if s.privileged { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() };
    let security = v1::LinuxContainerSecurityContext {
        capabilities: Some(v1::Capability {
            add_capabilities: s.add_capabilities.clone(),
            drop_capabilities: s.drop_capabilities.clone(),
        }),
        privileged: s.privileged,
        namespace_options: Some(namespaces(of)),
        run_as_user: int(s.run_as_user),
        run_as_group: int(s.run_as_group),
        run_as_username: s.run_as_username.clone(),
        readonly_rootfs: s.read_only_root,
        supplemental_groups: s.supplemental_groups.clone(),
        no_new_privs: s.no_new_privs,
        masked_paths: texts(&MASKED),
        readonly_paths: texts(&READ_ONLY),
        seccomp: seccomp(&s.seccomp),
    };
    let r = spec.resources;
    let resources = v1::LinuxContainerResources {
        cpu_period: r.cpu_period,
        cpu_quota: r.cpu_quota,
        cpu_shares: r.cpu_shares,
        memory_limit_in_bytes: r.memory_limit,
        oom_score_adj: r.oom_score_adj,
    };
    let mounts = spec.mounts.iter().map(|m| v1::Mount {
        container_path: m.container_path.clone(),
        host_path: m.host_path.to_string_lossy().into_owned(),
        readonly: m.read_only,
        propagation: match m.propagation {
            Propagation::None => v1::MountPropagation::PropagationPrivate,
            Propagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
            Propagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
        } as i32,
    });
    let image =
        v1::ImageSpec { image: spec.image.clone(), user_specified_image: spec.image.clone(), ..Default::default() };
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: spec.name.clone(), attempt: spec.restart_count }),
        image: Some(image),
        command: spec.command.clone(),
        args: spec.args.clone(),
        working_dir: spec.working_dir.clone(),
        envs: spec.env.iter().map(|(k, v)| v1::KeyValue { key: k.clone(), value: v.clone() }).collect(),
        mounts: mounts.collect(),
        labels: spec.labels.clone().into_iter().collect(),
        annotations: spec.annotations.clone().into_iter().collect(),
        log_path: spec.log_path.clone(),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        linux: Some(v1::LinuxContainerConfig { resources: Some(resources), security_context: Some(security) }),
    }
}

fn image_of(i: v1::Image) -> ImageInfo {
    ImageInfo {
        id: i.id,
        tags: i.repo_tags,
        digests: i.repo_digests,
        size: i.size,
        uid: i.uid.map(|u| u.value),
        username: i.username,
    }
}

#[async_trait]
impl Runtime for CriRuntime {
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        let v = self.cri.version().await?;
        Ok(RuntimeInfo { name: v.runtime_name, version: v.runtime_version })
    }

    async fn ready(&self) -> Result<(), RuntimeError> {
        let status = self.cri.status().await?;
        for kind in ["RuntimeReady", "NetworkReady"] {
            let found = status.conditions.iter().find(|c| c.r#type == kind);
            if let Some(c) = found.filter(|c| !c.status) {
                let subject = if kind == "RuntimeReady" {
                    "container runtime is not ready"
                } else {
                    "container runtime network not ready"
                };
                let text = format!("{subject}: {kind}=false reason:{} message:{}", c.reason, c.message);
                return Err(RuntimeError::Failed(text));
            }
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let sandboxes = self.cri.list_pod_sandbox(&[]).await?;
        let containers = self.cri.list_containers(&[]).await?;
        let mut pods: BTreeMap<String, Observed> = BTreeMap::new();
        let mut owners = BTreeMap::new();
        for s in &sandboxes {
            let uid = label(&s.labels, POD_UID);
            if uid.is_empty() {
                continue;
            }
            owners.insert(s.id.clone(), uid.clone());
            let pod = pods.entry(uid.clone()).or_default();
            pod.uid = uid;
            pod.namespace = label(&s.labels, POD_NAMESPACE);
            pod.name = label(&s.labels, POD_NAME);
            pod.sandboxes.push(sandbox_of(s));
        }
        for c in &containers {
            let uid = label(&c.labels, POD_UID);
            if uid.is_empty() {
                continue;
            }
            owners.insert(c.id.clone(), uid.clone());
            let pod = pods.entry(uid.clone()).or_default();
            pod.uid = uid;
            pod.namespace = label(&c.labels, POD_NAMESPACE);
            pod.name = label(&c.labels, POD_NAME);
            pod.containers.push(container_of(c));
        }
        *self.owners.lock() = owners;
        let mut out: Vec<_> = pods.into_values().collect();
        out.iter_mut().for_each(Observed::sort);
        Ok(out)
    }

    async fn observe(&self, uid: &str) -> Result<Observed, RuntimeError> {
        let filter = [(POD_UID, uid)];
        let mut out = Observed { uid: uid.to_owned(), ..Default::default() };
        for s in self.cri.list_pod_sandbox(&filter).await? {
            out.namespace = label(&s.labels, POD_NAMESPACE);
            out.name = label(&s.labels, POD_NAME);
            let mut sandbox = sandbox_of(&s);
            if sandbox.ready {
                match self.cri.pod_sandbox_status(&s.id).await {
                    Ok(status) => {
                        sandbox.ready = status.state == v1::PodSandboxState::SandboxReady as i32;
                        let network = status.network.unwrap_or_default();
                        sandbox.ips = std::iter::once(network.ip).filter(|ip| !ip.is_empty()).collect();
                        sandbox.ips.extend(network.additional_ips.into_iter().map(|ip| ip.ip));
                    }
                    Err(e) if e.is_not_found() => continue,
                    Err(e) => return Err(e.into()),
                }
            }
            self.remember(&s.id, uid);
            out.sandboxes.push(sandbox);
        }
        for c in self.cri.list_containers(&filter).await? {
            let mut info = container_of(&c);
            match self.cri.container_status(&c.id).await {
                Ok(status) => complete(&mut info, status),
                Err(e) if e.is_not_found() => continue,
                Err(e) => return Err(e.into()),
            }
            self.remember(&c.id, uid);
            out.containers.push(info);
        }
        out.sort();
        Ok(out)
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<String, RuntimeError> {
        Ok(self.cri.run_pod_sandbox(sandbox_config(spec), spec.runtime_handler.clone()).await?)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        Ok(self.cri.stop_pod_sandbox(id).await?)
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        Ok(self.cri.remove_pod_sandbox(id).await?)
    }

    async fn create_container(
        &self,
        sandbox: &str,
        spec: &ContainerSpec,
        of: &SandboxSpec,
    ) -> Result<String, RuntimeError> {
        let id = self.cri.create_container(sandbox, container_config(spec, of), sandbox_config(of)).await?;
        self.remember(&id, &of.uid);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        Ok(self.cri.start_container(id).await?)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        Ok(self.cri.stop_container(id, grace).await?)
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        Ok(self.cri.remove_container(id).await?)
    }

    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, RuntimeError> {
        Ok(self.cri.image_status(image).await?.map(image_of))
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, RuntimeError> {
        Ok(self.cri.list_images().await?.into_iter().map(image_of).collect())
    }

    async fn pull(&self, image: &str, auth: Option<&RegistryAuth>) -> Result<(), RuntimeError> {
        let auth = auth.map(|a| v1::AuthConfig {
            username: a.username.clone(),
            password: a.password.as_ref().map(|p| p.expose().to_owned()).unwrap_or_default(),
            server_address: a.server.clone(),
            ..Default::default()
        });
        Ok(self.cri.pull_image(image, auth).await.map(drop)?)
    }

    async fn exec(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecResult, RuntimeError> {
        let r = self.cri.exec_sync(id, command, limit).await?;
        let mut output = r.stdout;
        output.extend(r.stderr);
        Ok(ExecResult { exit_code: r.exit_code, output })
    }

    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        Ok(self.cri.reopen_container_log(id).await?)
    }

    async fn stream_url(&self, target: &StreamTarget) -> Result<String, RuntimeError> {
        let url = match target.clone() {
            StreamTarget::Exec { container, command, stdin, stdout, stderr, tty } => {
                let request = v1::ExecRequest { container_id: container, cmd: command, tty, stdin, stdout, stderr };
                self.cri.exec(request).await?
            }
            StreamTarget::Attach { container, stdin, stdout, stderr, tty } => {
                let request = v1::AttachRequest { container_id: container, stdin, tty, stdout, stderr };
                self.cri.attach(request).await?
            }
            StreamTarget::PortForward { sandbox, ports } => {
                let request = v1::PortForwardRequest { pod_sandbox_id: sandbox, port: ports };
                self.cri.port_forward(request).await?
            }
        };
        Ok(url)
    }

    async fn next_change(&self) -> Option<Option<String>> {
        let mut events = self.events.lock().await;
        if events.is_none() {
            *events = self.cri.events().await.ok();
        }
        let change = match events.as_mut() {
            Some(stream) => stream.next().await,
            None => None,
        };
        match change {
            Some(change) => Some(self.owners.lock().get(&change.id).cloned()),
            None => {
                *events = None;
                None
            }
        }
    }
}
