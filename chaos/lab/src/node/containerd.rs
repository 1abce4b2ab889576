//! containerd for one node: a configuration of its own for everything that it
//! would otherwise share with another.

use std::fs;

use super::inside::{Inside, Namespaces};
use super::{CONTAINERD_SOCKET, NodeOptions};
use crate::error::{Context, Result};

/// Where Debian puts the CNI plugins, and where everybody else does.
const PLUGIN_DIRS: &[&str] = &["/usr/lib/cni", "/opt/cni/bin"];

/// How images and containers share layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshotter {
    Overlay,
    /// Plain copies, where overlay mounts are refused.
    Native,
}

impl Snapshotter {
    fn name(self) -> &'static str {
        match self {
            Snapshotter::Overlay => "overlayfs",
            Snapshotter::Native => "native",
        }
    }
}

/// The folder with the CNI plugins.
pub fn plugin_dir() -> &'static str {
    PLUGIN_DIRS
        .iter()
        .find(|d| fs::exists(format!("{d}/host-local")).unwrap_or(false))
        .copied()
        .unwrap_or(PLUGIN_DIRS[0])
}

/// Starts it; its socket may not be there yet.
pub(super) fn start(options: &NodeOptions, namespaces: &Namespaces) -> Result<Inside> {
    let dir = options.dir.join("containerd");
    fs::create_dir_all(options.dir.join("cni")).step("containerd", "cni")?;
    fs::create_dir_all(&dir).step("containerd", dir.display())?;
    let file = dir.join("config.toml");
    fs::write(&file, config(options)).step("containerd", file.display())?;
    let mut command = namespaces.command("containerd");
    command.arg("--config").arg(&file).args(["--log-level", "warn"]);
    let log = options.logs.join(format!("{}-containerd.log", options.name));
    Inside::start(&format!("{}-containerd", options.name), command, &log)
}

fn config(options: &NodeOptions) -> String {
    let dir = options.dir.display();
    let socket = CONTAINERD_SOCKET;
    let sandbox = &options.sandbox_image;
    let snapshotter = options.snapshotter.name();
    let plugins = plugin_dir();
    let no_apparmor = !fs::exists("/sys/kernel/security/apparmor/profiles").unwrap_or(false);
    format!(
        r#"version = 2
root = "{dir}/containerd/root"
state = "/run/containerd/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
address = "{socket}"

[ttrpc]
address = "{socket}.ttrpc"

[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{sandbox}"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
# Lowering a process's oom score needs CAP_SYS_RESOURCE, which many sandboxes lack.
restrict_oom_score_adj = true
disable_apparmor = {no_apparmor}
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "/run/containerd/runc"
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{dir}/cni"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_machines_own_containerd_is_shared() {
        let options = NodeOptions {
            name: "n1".into(),
            index: 1,
            dir: "/lab/nodes/n1".into(),
            logs: "/lab/logs".into(),
            lab: "/lab/triarch-lab".into(),
            service_cidr: "10.96.0.0/16".into(),
            snapshotter: Snapshotter::Native,
            sandbox_image: "sandbox:1".into(),
        };
        let text = config(&options);
        for shared in ["/var/lib/containerd", "/etc/cni", "/opt/containerd"] {
            assert!(!text.contains(shared), "{shared}");
        }
        for own in
            ["root = \"/lab/nodes/n1/containerd/root\"", "conf_dir = \"/lab/nodes/n1/cni\"", "snapshotter = \"native\""]
        {
            assert!(text.contains(own), "{own}");
        }
    }
}
