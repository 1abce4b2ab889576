//! Triarch and etcd behind one handle: three processes that speak etcd's API.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

use super::members::Members;
use super::obtain::Program;
use crate::binaries::Binaries;
use crate::cluster::{Cluster, Options};
use crate::error::{Context, Result};
use crate::ports;
use crate::process::{self, ProcessId};

/// What can be started.
#[derive(Clone, Debug)]
pub enum System {
    /// Three replicas with the facade. `config`: keys of ServerConfiguration
    /// that differ from the default.
    Triarch { binaries: Binaries, config: Map<String, Value> },
    /// Three members. `flags`: more of each.
    Etcd { program: Program, flags: Vec<String> },
}

impl System {
    pub fn triarch(binaries: Binaries) -> System {
        System::Triarch { binaries, config: Map::new() }
    }

    pub fn etcd(program: Program) -> System {
        System::Etcd { program, flags: Vec::new() }
    }

    /// `triarch`, `etcd-3.5.1`, `etcd-3.7`.
    pub fn name(&self) -> &'static str {
        match self {
            System::Triarch { .. } => "triarch",
            System::Etcd { program, .. } => program.release.name(),
        }
    }

    /// The first line of what the program says of itself.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn version(&self) -> Result<String> {
        match self {
            System::Triarch { binaries, .. } => {
                let said = process::run("version", Command::new(&binaries.server).arg("version"))?;
                Ok(said.lines().next().unwrap_or_default().to_owned())
            }
            System::Etcd { program, .. } => program.version(),
        }
    }

    /// A new cluster in `dir`, which is emptied first. etcd need not take
    /// requests yet on return.
    ///
    /// # Errors
    /// The directory, the ports, or a process that cannot be started.
    pub async fn start(&self, dir: &Path) -> Result<Peers> {
        if dir.exists() {
            std::fs::remove_dir_all(dir).step("etcd", dir.display())?;
        }
        std::fs::create_dir_all(dir).step("etcd", dir.display())?;
        match self {
            System::Triarch { binaries, config } => {
                let ports = ports::free(3)?;
                let mut options = Options::release(dir).with("etcdFacade", json!({"insecureLoopback": true}));
                options.config.extend(config.iter().map(|(k, v)| (k.clone(), v.clone())));
                options.binaries = Some(binaries.clone());
                options.flags = ports.iter().map(|p| vec!["--etcd-listen".into(), format!("127.0.0.1:{p}")]).collect();
                let cluster = Box::new(Cluster::start(options).await?);
                let endpoints = ports.iter().map(|p| format!("http://127.0.0.1:{p}")).collect();
                Ok(Peers { endpoints, running: Running::Triarch(cluster) })
            }
            System::Etcd { program, flags } => {
                let members = Members::start(program, dir, flags)?;
                Ok(Peers { endpoints: members.endpoints(), running: Running::Etcd(members) })
            }
        }
    }
}

#[derive(Debug)]
enum Running {
    Triarch(Box<Cluster>),
    Etcd(Members),
}

/// Three running processes; ended when dropped. Members are counted from 0.
#[derive(Debug)]
pub struct Peers {
    endpoints: Vec<String>,
    running: Running,
}

impl Peers {
    /// `http://127.0.0.1:PORT`, one a member, by its number.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Those that were started and not ended here.
    pub fn ids(&self) -> Vec<ProcessId> {
        match &self.running {
            Running::Triarch(cluster) => cluster.replicas().iter().filter_map(|r| r.id()).collect(),
            Running::Etcd(members) => members.ids(),
        }
    }

    /// SIGKILL, reaped on return.
    ///
    /// # Errors
    /// The state file cannot be written.
    pub fn kill(&mut self, i: usize) -> Result<()> {
        match &mut self.running {
            Running::Triarch(cluster) => cluster.kill(i),
            Running::Etcd(members) => {
                members.member(i).kill();
                Ok(())
            }
        }
    }

    /// Starts a killed member again; it need not answer on return.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self, i: usize) -> Result<()> {
        match &mut self.running {
            Running::Triarch(cluster) => cluster.restart(i),
            Running::Etcd(members) => members.restart(i),
        }
    }

    /// SIGSTOP.
    pub fn pause(&mut self, i: usize) {
        match &mut self.running {
            Running::Triarch(cluster) => cluster.replica(i).pause(),
            Running::Etcd(members) => members.member(i).pause(),
        }
    }

    /// SIGCONT.
    pub fn resume(&mut self, i: usize) {
        match &mut self.running {
            Running::Triarch(cluster) => cluster.replica(i).resume(),
            Running::Etcd(members) => members.member(i).resume(),
        }
    }

    /// What member `i` counts, in Prometheus' text form; `None` for etcd.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self, i: usize) -> Result<Option<String>> {
        match &self.running {
            Running::Triarch(cluster) => {
                Ok(Some(cluster.replica_client(i)?.text("/metrics").await.step("metrics", "a replica")?))
            }
            Running::Etcd(_) => Ok(None),
        }
    }

    /// Why member `i` does not come up, from the end of its log.
    pub fn log_tail(&mut self, i: usize) -> String {
        match &mut self.running {
            Running::Triarch(cluster) => cluster.replica(i).log_tail(),
            Running::Etcd(members) => members.member(i).log_tail(),
        }
    }
}
