//! One replica: its command line, and the ways to hurt it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::network::Network;
use super::options::Options;
use crate::binaries::Binaries;
use crate::error::{Context, LabError, Result};
use crate::netns::NetNs;
use crate::process::{Process, ProcessId};
use crate::user::User;

/// A replica that was asked to stop and has not by then is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How a replica comes up.
pub(super) enum Birth {
    Init,
    Join { url: String, token: String },
    Again,
}

/// What stopping came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Those that had to be killed.
    pub forced: Vec<String>,
}

/// A replica, running or not.
#[derive(Debug)]
pub struct Replica {
    name: String,
    host: String,
    port: u16,
    peer_port: u16,
    /// Its network, when it has one of its own.
    seat: Option<NetNs>,
    data_dir: PathBuf,
    config: PathBuf,
    node_socket: PathBuf,
    log: PathBuf,
    program: PathBuf,
    user: Option<User>,
    env: Vec<(String, String)>,
    flags: Vec<String>,
    process: Option<Process>,
}

impl Replica {
    pub(super) fn new(
        name: &str,
        port: u16,
        peer_port: u16,
        shared_port: u16,
        options: &Options,
        binaries: &Binaries,
    ) -> Result<Replica> {
        let dir = &options.dir;
        let at = super::options::NAMES.iter().position(|n| *n == name).unwrap_or(0);
        let replica = Replica {
            name: name.to_owned(),
            host: options.network.as_ref().map_or("127.0.0.1".to_owned(), |n| n.host(at)),
            port,
            peer_port,
            seat: options.network.as_ref().map(|n| n.seat(at).clone()),
            data_dir: dir.join("replicas").join(name),
            config: dir.join("config").join(format!("{name}.yaml")),
            node_socket: dir.join("run").join(format!("{name}.sock")),
            log: dir.join("logs").join(format!("{name}.log")),
            program: binaries.server.clone(),
            user: options.user.clone(),
            env: options.env.iter().chain(options.own_env.get(at).into_iter().flatten()).cloned().collect(),
            flags: options.flags.get(at).cloned().unwrap_or_default(),
            process: None,
        };
        replica.write_config(shared_port, at, &options.config)?;
        Ok(replica)
    }

    fn write_config(&self, shared_port: u16, index: usize, overrides: &serde_json::Map<String, Value>) -> Result<()> {
        let mut config = json!({
            "apiVersion": "config.triarch.io/v1alpha1",
            "kind": "ServerConfiguration",
            "listen": format!("{}:{}", self.host, self.port),
            "peerListen": format!("{}:{}", self.host, self.peer_port),
            "nodeSockets": [self.node_socket],
            // Agents hold this address inside their nodes.
            "apiEndpoint": format!("10.89.0.{}:6443", 101 + index),
        });
        let map = config.as_object_mut().expect("made as an object just above");
        match &self.seat {
            None => map.insert("sharedListen".into(), format!("127.0.0.1:{shared_port}").into()),
            // One address for all of them is not this replica's own.
            Some(_) => map.insert("tlsSan".into(), json!([Network::balanced().split(':').next()])),
        };
        map.extend(overrides.iter().map(|(k, v)| (k.clone(), v.clone())));
        // JSON is YAML.
        let text = serde_json::to_string_pretty(&config).expect("a JSON value can always be written");
        std::fs::write(&self.config, text).step("replicas", self.config.display())?;
        if let Some(user) = &self.user {
            user.own(&self.config);
        }
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn peer_port(&self) -> u16 {
        self.peer_port
    }

    /// `https://HOST:PORT`, this replica's own.
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.host, self.port)
    }

    /// The program that it is started with from now on.
    pub fn set_program(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn node_socket(&self) -> &Path {
        &self.node_socket
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    pub fn id(&self) -> Option<ProcessId> {
        self.process.as_ref().map(Process::id)
    }

    /// Whether its data directory has never held a replica (also after a crash
    /// in the middle of a birth).
    pub fn is_new(&self) -> bool {
        !self.data_dir.join("IDENTITY").exists()
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    pub(super) fn is_up(&self) -> bool {
        self.id().is_some_and(|id| id.alive())
    }

    pub(super) fn has_failed(&mut self) -> bool {
        self.process.is_some() && !self.is_running()
    }

    pub(super) fn failure(&mut self) -> LabError {
        match &mut self.process {
            Some(p) => p.failure("replicas"),
            None => LabError::new("replicas", format!("replica {} does not run", self.name)),
        }
    }

    pub fn log_tail(&self) -> String {
        crate::process::tail(&self.log)
    }

    fn command(&self, birth: &Birth) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("server").args(["--name", &self.name]).arg("--data-dir").arg(&self.data_dir);
        command.arg("--config").arg(&self.config).args(&self.flags);
        match birth {
            Birth::Init => {
                command.arg("--init");
            }
            Birth::Join { url, token } => {
                // Not on the command line: everybody can read that.
                command.args(["--join", url]).env("TRIARCH_TOKEN", token);
            }
            Birth::Again => {}
        }
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        if let Some(seat) = &self.seat {
            seat.enter(&mut command);
        }
        command
    }

    pub(super) fn spawn(&mut self, birth: &Birth) -> Result<()> {
        if self.is_running() {
            return Err(LabError::new("replicas", format!("replica {} already runs", self.name)));
        }
        let command = self.command(birth);
        self.process = Some(Process::spawn(&format!("replica {}", self.name), command, &self.log, self.user.as_ref())?);
        Ok(())
    }

    /// SIGKILL, reaped on return.
    pub fn kill(&mut self) {
        if let Some(p) = &mut self.process {
            p.kill();
        }
    }

    /// SIGSTOP: the process stays, its connections stay, nothing answers.
    pub fn pause(&mut self) {
        if let Some(p) = &mut self.process {
            p.pause();
        }
    }

    pub fn resume(&mut self) {
        if let Some(p) = &mut self.process {
            p.resume();
        }
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&mut self) {
        if let Some(p) = &mut self.process {
            p.terminate();
        }
    }

    /// Stops it in order; false when it had to be killed.
    pub fn stop(&mut self) -> bool {
        self.process.take().is_none_or(|mut p| p.stop(STOP_GRACE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(dir: &Path) -> Replica {
        for part in ["config", "run", "logs"] {
            std::fs::create_dir_all(dir.join(part)).unwrap();
        }
        let binaries = Binaries { server: "triarch".into(), agent: "n".into(), lab: "l".into() };
        let options = Options::new(dir).with("heartbeatMs", 50);
        Replica::new("b", 1001, 1002, 1003, &options, &binaries).unwrap()
    }

    #[test]
    fn a_token_is_never_on_the_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let join = Birth::Join { url: "https://127.0.0.1:1".into(), token: "secret-token".into() };
        let command = replica(dir.path()).command(&join);
        assert!(command.get_args().all(|a| a != "secret-token"));
        assert!(command.get_envs().any(|(k, v)| k == "TRIARCH_TOKEN" && v.is_some_and(|v| v == "secret-token")));
    }

    #[test]
    fn the_configuration_has_the_replicas_ports_and_the_callers_keys() {
        let dir = tempfile::tempdir().unwrap();
        let replica = replica(dir.path());
        let config: Value = serde_json::from_str(&std::fs::read_to_string(&replica.config).unwrap()).unwrap();
        assert_eq!(config["listen"], "127.0.0.1:1001");
        assert_eq!(config["peerListen"], "127.0.0.1:1002");
        assert_eq!(config["sharedListen"], "127.0.0.1:1003");
        assert_eq!(config["heartbeatMs"], 50);
        assert!(replica.is_new() && replica.id().is_none());
    }
}
