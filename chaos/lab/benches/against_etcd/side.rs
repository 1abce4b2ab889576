//! The two contestants, each as three processes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::json;
use triarch_lab::process::{self, Process};
use triarch_lab::{Binaries, Cluster, Options, Profile, ports};

use crate::etcd;

/// Names a `triarch` to use instead of building one.
const PROGRAM: &str = "TRIARCH_PROGRAM";

pub enum Side {
    Triarch(Binaries),
    Etcd(etcd::Program),
}

/// Three processes; ended when dropped.
pub enum Running {
    Triarch { _cluster: Box<Cluster>, endpoints: Vec<String> },
    Etcd { _members: Vec<Process>, endpoints: Vec<String> },
}

impl Running {
    pub fn endpoints(&self) -> &[String] {
        match self {
            Running::Triarch { endpoints, .. } | Running::Etcd { endpoints, .. } => endpoints,
        }
    }
}

impl Side {
    /// A release build.
    pub fn triarch() -> anyhow::Result<Side> {
        let binaries = match std::env::var_os(PROGRAM).map(PathBuf::from) {
            Some(p) => Binaries { server: p.clone(), agent: p.clone(), lab: p },
            None => Binaries::obtain(Profile::Release)?,
        };
        Ok(Side::Triarch(binaries))
    }

    pub fn name(&self) -> &'static str {
        match self {
            Side::Triarch(_) => "triarch",
            Side::Etcd(_) => "etcd",
        }
    }

    pub fn is_etcd(&self) -> bool {
        matches!(self, Side::Etcd(_))
    }

    pub fn version(&self) -> anyhow::Result<String> {
        let mut command = match self {
            Side::Triarch(b) => {
                let mut c = Command::new(&b.server);
                c.arg("version");
                c
            }
            Side::Etcd(p) => {
                let mut c = Command::new(&p.path);
                c.arg("--version");
                c
            }
        };
        let said = process::run("version", &mut command)?;
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }

    /// A fresh cluster in `dir`.
    pub async fn start(&self, dir: &Path) -> anyhow::Result<Running> {
        if dir.exists() {
            std::fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        std::fs::create_dir_all(dir)?;
        match self {
            Side::Triarch(binaries) => {
                let ports = ports::free(3)?;
                let mut options = Options::release(dir).with("etcdFacade", json!({"insecureLoopback": true}));
                options.binaries = Some(binaries.clone());
                options.flags = ports.iter().map(|p| vec!["--etcd-listen".into(), format!("127.0.0.1:{p}")]).collect();
                let cluster = Cluster::start(options).await?;
                let endpoints = ports.iter().map(|p| format!("http://127.0.0.1:{p}")).collect();
                Ok(Running::Triarch { _cluster: Box::new(cluster), endpoints })
            }
            Side::Etcd(program) => {
                let (members, endpoints) = program.start(dir)?;
                Ok(Running::Etcd { _members: members, endpoints })
            }
        }
    }
}
