//! Three members of etcd as processes.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::obtain::Program;
use crate::error::Result;
use crate::ports;
use crate::process::{Process, ProcessId};

/// How many.
pub const MEMBERS: usize = 3;

/// Three members that know of each other; ended when dropped.
#[derive(Debug)]
pub struct Members {
    program: PathBuf,
    dir: PathBuf,
    /// Clients' ports, then peers'.
    ports: Vec<u16>,
    flags: Vec<String>,
    processes: Vec<Process>,
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Members {
    /// Starts a new cluster in `dir`, with more `flags` for each member. It need
    /// not take requests yet on return.
    ///
    /// # Errors
    /// No ports, or the program cannot be started.
    pub fn start(program: &Program, dir: &Path, flags: &[String]) -> Result<Members> {
        let ports = ports::free(2 * MEMBERS)?;
        let (program, dir, flags) = (program.path.clone(), dir.to_owned(), flags.to_vec());
        let mut members = Members { program, dir, ports, flags, processes: Vec::new() };
        for i in 0..MEMBERS {
            let process = members.spawn(i)?;
            members.processes.push(process);
        }
        Ok(members)
    }

    fn command(&self, i: usize) -> Command {
        let peer = |i: usize| url(self.ports[MEMBERS + i]);
        let all: Vec<String> = (0..MEMBERS).map(|i| format!("m{i}={}", peer(i))).collect();
        let mut command = Command::new(&self.program);
        command.args(["--name", &format!("m{i}"), "--log-level", "error"]);
        command.arg("--data-dir").arg(self.dir.join(format!("m{i}")));
        command.args(["--listen-client-urls", &url(self.ports[i]), "--advertise-client-urls", &url(self.ports[i])]);
        command.args(["--listen-peer-urls", &peer(i), "--initial-advertise-peer-urls", &peer(i)]);
        // Of an existing member only its data directory counts.
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
        command.args(&self.flags);
        command
    }

    fn spawn(&self, i: usize) -> Result<Process> {
        Process::spawn(&format!("etcd m{i}"), self.command(i), &self.dir.join(format!("m{i}.log")), None)
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.ports[..MEMBERS].iter().map(|p| url(*p)).collect()
    }

    pub fn ids(&self) -> Vec<ProcessId> {
        self.processes.iter().map(Process::id).collect()
    }

    pub(super) fn member(&mut self, i: usize) -> &mut Process {
        &mut self.processes[i]
    }

    /// Starts member `i` again, after its end.
    pub(super) fn restart(&mut self, i: usize) -> Result<()> {
        self.processes[i].kill();
        self.processes[i] = self.spawn(i)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_name_each_other_and_have_the_callers_flags() {
        let (program, dir) = (PathBuf::from("etcd"), PathBuf::from("/d"));
        let (ports, flags) = (vec![1, 2, 3, 11, 12, 13], vec!["--heartbeat-interval=50".to_owned()]);
        let members = Members { program, dir, ports, flags, processes: Vec::new() };
        let said: Vec<_> = members.command(1).get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert!(said.contains(&"m0=http://127.0.0.1:11,m1=http://127.0.0.1:12,m2=http://127.0.0.1:13".to_owned()));
        assert!(said.contains(&"http://127.0.0.1:2".to_owned()) && said.contains(&"/d/m1".to_owned()));
        assert_eq!(said.last().unwrap(), "--heartbeat-interval=50");
    }
}
