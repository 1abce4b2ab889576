//! Namespaces held by a first process, and programs that run inside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::NodeOptions;
use crate::error::{Context, LabError, Result};
use crate::process::{Process, ProcessId, wait_for};

const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A set of namespaces; gone when dropped.
#[derive(Debug)]
pub struct Namespaces {
    /// `unshare`, outside: with `--kill-child`, its end is the end of all.
    holder: Process,
    /// The first process, by its number outside.
    init: ProcessId,
    /// What a command has to enter, as `nsenter` flags.
    enter: &'static [&'static str],
}

impl Namespaces {
    /// All five of a node.
    pub(super) fn node(options: &NodeOptions) -> Result<Namespaces> {
        let unshare = ["--net", "--mount", "--propagation", "private", "--uts", "--ipc", "--pid", "--mount-proc"];
        let enter: &[&str] = &["-n", "-m", "-u", "-i", "-p"];
        Namespaces::hold(&options.lab, &options.name, &unshare, enter, &options.logs, Some(&options.name))
    }

    /// A network alone.
    pub(super) fn network(lab: &Path, name: &str, logs: &Path) -> Result<Namespaces> {
        Namespaces::hold(lab, name, &["--net"], &["-n"], logs, None)
    }

    fn hold(
        lab: &Path,
        name: &str,
        unshare: &[&str],
        enter: &'static [&'static str],
        logs: &Path,
        host_name: Option<&str>,
    ) -> Result<Namespaces> {
        let ready = logs.join(format!("{name}.ready"));
        let _ = fs::remove_file(&ready);
        let mut command = Command::new("unshare");
        command.args(unshare).args(["--fork", "--kill-child"]).arg(lab).arg("node-init").arg("--ready").arg(&ready);
        if let Some(host_name) = host_name {
            command.args(["--name", host_name]);
        }
        let mut holder = Process::spawn(name, command, &logs.join(format!("{name}.log")), None)?;
        let prepared = wait_for(READY_TIMEOUT, || ready.exists() || !holder.is_running());
        let _ = fs::remove_file(&ready);
        let init = holder.id().children().first().copied();
        match init.filter(|_| prepared && holder.is_running()) {
            Some(init) => Ok(Namespaces { holder, init, enter }),
            None => Err(holder.failure("namespace")),
        }
    }

    /// The process whose end is the end of all.
    pub fn process(&self) -> ProcessId {
        self.holder.id()
    }

    /// The first process inside, by its number outside.
    pub fn init(&self) -> ProcessId {
        self.init
    }

    /// How a path inside is reached from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init.pid))
    }

    /// A command that will run inside. Paths in it must be absolute.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.pid.to_string()]).args(self.enter).args(["--", program]);
        command
    }

    /// Asks the first process to end all of it, and kills it after a while.
    pub fn end(&mut self) {
        self.init.signal(Signal::SIGTERM);
        if !wait_for(Duration::from_secs(5), || !self.holder.is_running()) {
            self.holder.kill();
            let init = self.init;
            wait_for(Duration::from_secs(5), || !init.alive());
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        if self.holder.is_running() {
            self.end();
        }
    }
}

/// A program that goes on running inside.
#[derive(Debug)]
pub struct Inside {
    /// `nsenter`, which waits outside.
    waiter: Process,
    program: ProcessId,
}

impl Inside {
    pub(super) fn start(name: &str, command: Command, log: &Path) -> Result<Inside> {
        let mut waiter = Process::spawn(name, command, log, None)?;
        let mut program = None;
        wait_for(Duration::from_secs(5), || {
            program = waiter.id().children().first().copied();
            program.is_some() || !waiter.is_running()
        });
        match program {
            Some(program) => Ok(Inside { waiter, program }),
            None => Err(waiter.failure("start")),
        }
    }

    /// The program itself, by its number outside.
    pub fn id(&self) -> ProcessId {
        self.program
    }

    pub fn is_running(&mut self) -> bool {
        self.waiter.is_running()
    }

    pub fn failure(&mut self, step: &'static str) -> LabError {
        self.waiter.failure(step)
    }

    /// SIGKILL to the program; `nsenter` follows it.
    pub fn kill(&mut self) {
        self.program.signal(Signal::SIGKILL);
        wait_for(Duration::from_secs(5), || !self.waiter.is_running());
    }

    /// SIGTERM, SIGKILL after `grace`.
    pub fn terminate(&mut self, grace: Duration) {
        self.program.signal(Signal::SIGTERM);
        if !wait_for(grace, || !self.waiter.is_running()) {
            self.kill();
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // `nsenter`'s own end would leave the program running.
        if self.waiter.is_running() {
            self.kill();
        }
    }
}

/// Runs a short command inside and gives its output.
pub(super) fn run(step: &'static str, namespaces: &Namespaces, program: &str, arguments: &[&str]) -> Result<String> {
    crate::process::run(step, namespaces.command(program).args(arguments)).step(step, "inside")
}
