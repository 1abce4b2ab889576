//! The node's disk for its pods: volumes, hosts files, termination messages,
//! logs, control groups.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use parking_lot::Mutex;
use triarch_env::{Env, Secret};
use triarch_kubelet::model::Pod;
use triarch_kubelet::pod::env;
use triarch_kubelet::ports::{Host, HostError, Mounted, NodeConfig, Objects};
use triarch_kubelet::runtime::Dns;
use triarch_rpc::node::TokenRequest;
use triarch_volume::spec::{Payload, ResourceFieldRef, TokenProjection};
use triarch_volume::{PodDir, Sources, VolumeError, sub_path};

use crate::logs;
use crate::node::Shared;
use crate::node::tokens::Token;

/// Largest termination message, as upstream cuts it.
const MAX_MESSAGE: u64 = 4096;
const MAX_LOG_MESSAGE: usize = 2048;
const MAX_LOG_LINES: i64 = 80;

/// Pod uid, volume and path.
type TokenKey = (String, String, String);

pub struct NodeHost {
    env: Env,
    config: Arc<NodeConfig>,
    root: PathBuf,
    log_root: PathBuf,
    shared: Shared,
    tokens: Mutex<BTreeMap<TokenKey, (Token, i64)>>,
}

impl NodeHost {
    pub fn new(env: Env, config: Arc<NodeConfig>, root: PathBuf, log_root: PathBuf, shared: Shared) -> NodeHost {
        NodeHost { env, config, root, log_root, shared, tokens: Mutex::default() }
    }

    fn dir(&self, pod: &Pod) -> PodDir {
        PodDir::new(&self.root, &pod.metadata.uid)
    }

    /// The token for a projection, from memory, the control plane, or (with no
    /// replica answering) the file that is there; and seconds until the next look.
    async fn token(&self, pod: &Pod, volume: &str, t: &TokenProjection) -> Result<(Vec<u8>, i64), VolumeError> {
        let key = (pod.metadata.uid.clone(), volume.to_owned(), t.path.clone());
        let now = self.env.wall().secs();
        let known = self.tokens.lock().get(&key).cloned();
        let known = known.or_else(|| {
            let path = self.dir(pod).path().join("volumes").join(volume).join(&t.path);
            let text = fs::read_to_string(path).ok()?;
            let (issued, ends) = times(&text)?;
            Some((Token { token: Secret::new(text), expires_at: ends }, issued))
        });
        if let Some((token, issued)) = &known {
            let due = issued + (token.expires_at - issued) / 5 * 4;
            if now < due {
                self.tokens.lock().insert(key, (token.clone(), *issued));
                return Ok((token.token.expose().as_bytes().to_vec(), due - now));
            }
        }
        let account = &pod.spec.service_account_name;
        let request = TokenRequest {
            namespace: pod.metadata.namespace.clone(),
            service_account: if account.is_empty() { "default".into() } else { account.clone() },
            audiences: if t.audience.is_empty() { vec![] } else { vec![t.audience.clone()] },
            expiration_seconds: t.expiration_seconds.unwrap_or(3600),
            pod_name: pod.metadata.name.clone(),
            pod_uid: pod.metadata.uid.clone(),
            ..Default::default()
        };
        match self.shared.tokens.request(request).await {
            Ok(token) => {
                let bytes = token.token.expose().as_bytes().to_vec();
                let due = (token.expires_at - now) / 5 * 4;
                self.tokens.lock().insert(key, (token, now));
                Ok((bytes, due.max(10)))
            }
            Err(e) => match known {
                // An old token may still be good; a pod is not held up for it.
                Some((token, _)) => Ok((token.token.expose().as_bytes().to_vec(), 30)),
                None => Err(VolumeError(format!("failed to fetch token: {e}"))),
            },
        }
    }
}

/// When a token was issued and ends, from its own claims (not verified: it is ours).
fn times(jwt: &str) -> Option<(i64, i64)> {
    let payload = jwt.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    Some((claims["iat"].as_i64()?, claims["exp"].as_i64()?))
}

struct PodSources<'a> {
    host: &'a NodeHost,
    pod: &'a Pod,
    tokens: BTreeMap<String, Vec<u8>>,
}

impl PodSources<'_> {
    fn get(&self, resource: &str, name: &str) -> Option<Arc<serde_json::Value>> {
        self.host.shared.store.get(resource, &self.pod.metadata.namespace, name)
    }
}

impl Sources for PodSources<'_> {
    fn config_map(&self, name: &str) -> Option<Payload> {
        self.get("configmaps", name).map(|o| Payload::config_map(&o))
    }
    fn secret(&self, name: &str) -> Option<Payload> {
        self.get("secrets", name).map(|o| Payload::secret(&o))
    }
    fn field(&self, path: &str) -> Result<String, VolumeError> {
        env::field_value(self.pod, path, &[], &self.host.config).map_err(|e| VolumeError(e.0))
    }
    fn resource(&self, of: &ResourceFieldRef) -> Result<String, VolumeError> {
        let missing = || VolumeError(format!("container {} not found", of.container_name));
        let container = self.pod.container(&of.container_name).ok_or_else(missing)?;
        env::resource_value(container, &of.resource, of.divisor.as_deref(), &self.host.config)
            .map_err(|e| VolumeError(e.0))
    }
    fn token(&self, of: &TokenProjection) -> Result<Vec<u8>, VolumeError> {
        self.tokens.get(&of.path).cloned().ok_or_else(|| VolumeError("failed to fetch token".into()))
    }
}

fn io(e: &std::io::Error, what: &Path) -> HostError {
    HostError::new(format!("{}: {e}", what.display()))
}

#[async_trait]
impl Host for NodeHost {
    async fn set_up(&self, pod: &Pod) -> Result<Mounted, HostError> {
        let mut out = Mounted::default();
        let stamp = self.env.wall().rfc3339_micro().replace([':', '-', 'T', 'Z'], "_");
        for volume in &pod.spec.volumes {
            let fail = |e: VolumeError| HostError { volume: Some(volume.name.clone()), message: e.0 };
            let mut tokens = BTreeMap::new();
            let wanted =
                volume.projected.iter().flat_map(|p| &p.sources).filter_map(|s| s.service_account_token.as_ref());
            for t in wanted {
                let (bytes, due) = self.token(pod, &volume.name, t).await.map_err(fail)?;
                tokens.insert(t.path.clone(), bytes);
                let due = Duration::from_secs(due.max(1).unsigned_abs());
                out.refresh = Some(out.refresh.map_or(due, |r| r.min(due)));
            }
            let sources = PodSources { host: self, pod, tokens };
            let group = pod.spec.security_context.fs_group;
            let path = self.dir(pod).set_up(volume, &sources, group, &stamp).map_err(fail)?;
            out.paths.insert(volume.name.clone(), path);
        }
        Ok(out)
    }

    fn hosts_file(&self, pod: &Pod, content: &str) -> Result<Option<PathBuf>, HostError> {
        let dir = self.dir(pod);
        let path = dir.path().join("etc-hosts");
        fs::create_dir_all(dir.path()).and_then(|()| fs::write(&path, content)).map_err(|e| io(&e, &path))?;
        Ok(Some(path))
    }

    fn termination_log(&self, pod: &Pod, container: &str, restart: u32) -> Result<Option<PathBuf>, HostError> {
        use std::os::unix::fs::PermissionsExt;
        let dir = self.dir(pod).path().join("containers").join(container);
        let path = dir.join(format!("{restart}.message"));
        let make = || {
            fs::create_dir_all(&dir)?;
            fs::write(&path, b"")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
        };
        make().map_err(|e| io(&e, &path))?;
        Ok(Some(path))
    }

    fn termination_message(&self, pod: &Pod, container: &str, restart: u32, from_log: bool) -> String {
        let path = self.dir(pod).path().join("containers").join(container).join(format!("{restart}.message"));
        let mut text = Vec::new();
        if let Ok(f) = fs::File::open(path) {
            let _ = f.take(MAX_MESSAGE).read_to_end(&mut text);
        }
        if text.is_empty() && from_log {
            let path = self.log_directory(pod).join(container).join(format!("{restart}.log"));
            text = logs::last_lines(&path, MAX_LOG_LINES, MAX_LOG_MESSAGE);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    fn sub_path(&self, volume: &Path, sub: &str) -> Result<PathBuf, HostError> {
        sub_path(volume, sub).map_err(|e| HostError::new(e.0))
    }

    fn log_directory(&self, pod: &Pod) -> PathBuf {
        let m = &pod.metadata;
        self.log_root.join(format!("{}_{}_{}", m.namespace, m.name, m.uid))
    }

    fn remove_log(&self, pod: &Pod, container: &str, restart: u32) {
        let log = self.log_directory(pod).join(container).join(format!("{restart}.log"));
        for file in crate::log_rotation::rotated(&log).unwrap_or_default().iter().chain([&log]) {
            let _ = fs::remove_file(file);
        }
        let dir = self.dir(pod).path().join("containers").join(container);
        let _ = fs::remove_file(dir.join(format!("{restart}.message")));
    }

    fn resolv_conf(&self) -> Dns {
        parse_resolv_conf(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    async fn clean_up(&self, pod: &Pod, cgroup_parent: &str) -> Result<(), HostError> {
        self.tokens.lock().retain(|(uid, _, _), _| *uid != pod.metadata.uid);
        let (dir, logs, parent) = (self.dir(pod), self.log_directory(pod), cgroup_parent.to_owned());
        // An emptyDir may hold a great many files: not on the runtime's threads.
        let removing = tokio::task::spawn_blocking(move || {
            dir.tear_down().map_err(|e| io(&e, dir.path()))?;
            match fs::remove_dir_all(&logs) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(&e, &logs)),
                _ => {}
            }
            remove_cgroups(Path::new("/sys/fs/cgroup"), &parent);
            Ok(())
        });
        removing.await.map_err(|e| HostError::new(e.to_string()))?
    }
}

/// Removes a pod's control group in every hierarchy: v1 has one for each
/// controller, v2 one for all, a hybrid machine both.
fn remove_cgroups(root: &Path, parent: &str) {
    let relative = parent.trim_start_matches('/');
    if relative.is_empty() || relative.contains("..") {
        return;
    }
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    for hierarchy in hierarchies.chain(std::iter::once(root.to_owned())) {
        remove_tree(&hierarchy.join(relative), 0);
    }
}

/// Folders of a control group can only be removed empty, from the inside out.
fn remove_tree(dir: &Path, depth: usize) {
    if depth > 8 || !dir.is_dir() {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path(), depth + 1);
        }
    }
    let _ = fs::remove_dir(dir);
}

fn parse_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().take(256) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => dns.searches = words.map(str::to_owned).collect(),
            Some("options") => dns.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_resolver_is_read() {
        let dns = parse_resolv_conf("# x\nnameserver 192.0.2.1\nsearch a.b c\noptions ndots:2 edns0\n");
        assert_eq!(dns.servers, ["192.0.2.1"]);
        assert_eq!((dns.searches.len(), dns.options.len()), (2, 2));
    }

    #[test]
    fn a_tokens_times_are_read_from_its_claims() {
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"iat":100,"exp":3700}"#);
        assert_eq!(times(&format!("h.{payload}.s")), Some((100, 3700)));
        assert_eq!(times("x"), None);
    }

    #[test]
    fn control_groups_go_in_every_hierarchy() {
        let root = tempfile::tempdir().expect("a folder");
        for h in ["cpu", "memory", ""] {
            fs::create_dir_all(root.path().join(h).join("n1/kubepods/podu/c")).expect("made");
        }
        remove_cgroups(root.path(), "/n1/kubepods/podu");
        for h in ["cpu", "memory", ""] {
            assert!(!root.path().join(h).join("n1/kubepods/podu").exists());
            assert!(root.path().join(h).join("n1/kubepods").exists());
        }
    }
}
