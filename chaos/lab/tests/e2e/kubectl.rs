//! The user's own kubectl: commands that end, and streams that go on.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use triarch_lab::{Lab, preflight};

use crate::{Outcome, check, text, until};

/// A command that runs longer is ended.
const SECONDS: &str = "60";
/// Why tests that need it are skipped where it is not.
const NO_KUBECTL: &str = "missing: kubectl";
/// More of a stream's output is not kept.
const KEPT: usize = 1 << 20;

/// kubectl with the lab's kubeconfig, in one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    config: PathBuf,
    home: PathBuf,
    flags: Vec<String>,
}

impl Kubectl {
    pub fn new(lab: &mut Lab, namespace: &str) -> Result<Kubectl, String> {
        preflight::find("kubectl").ok_or(NO_KUBECTL)?;
        let cluster = lab.cluster();
        let flags = vec!["--namespace".to_owned(), namespace.to_owned()];
        Ok(Kubectl { config: cluster.kubeconfig_path(), home: cluster.dir().to_owned(), flags })
    }

    /// The same, through one replica's own port.
    pub fn through(&self, port: u16) -> Kubectl {
        let mut out = self.clone();
        out.flags.push(format!("--server=https://127.0.0.1:{port}"));
        out
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args([SECONDS, "kubectl"]).args(&self.flags).args(arguments);
        command.env("KUBECONFIG", &self.config).env("HOME", &self.home).stdin(Stdio::null());
        command
    }

    /// Both streams of a command that must succeed.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command(arguments);
        let out = tokio::task::spawn_blocking(move || command.output()).await.map_err(text)?.map_err(text)?;
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        if out.status.success() { Ok(said) } else { Err(format!("kubectl {}: {said}", arguments.join(" "))) }
    }

    /// A command under way, its standard input open.
    pub fn start(&self, arguments: &[&str]) -> Result<Stream, String> {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(text)?;
        let said = Arc::new(Mutex::new(String::new()));
        follow(child.stdout.take().ok_or("no output")?, said.clone());
        follow(child.stderr.take().ok_or("no output")?, said.clone());
        Ok(Stream { name: arguments.join(" "), child, said })
    }

    /// Runs a command and kills the leader while it runs. One that was cut off
    /// must work when it is said again.
    pub async fn run_while_the_leader_dies(
        &self,
        lab: &mut Lab,
        after: Duration,
        arguments: &[&str],
    ) -> Result<String, String> {
        let leader = lab.cluster().leader().await.map_err(text)?.ok_or("there is no leader")?;
        let command = self.run(arguments);
        let kill = async {
            tokio::time::sleep(after).await;
            lab.cluster().kill(leader).map_err(text)
        };
        let (first, killed) = futures::join!(command, kill);
        killed?;
        let said = match first {
            Ok(said) => said,
            Err(cut) => self.run(arguments).await.map_err(|e| format!("after {cut:?} again {e}"))?,
        };
        lab.cluster().restart(leader).map_err(text)?;
        lab.cluster().wait_ready(leader).await.map_err(text)?;
        Ok(said)
    }
}

fn follow(mut from: impl Read + Send + 'static, said: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let mut said = said.lock().expect("no holder panics");
            if said.len() < KEPT {
                said.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        }
    });
}

/// A kubectl that is still talking; killed when dropped.
pub struct Stream {
    name: String,
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Stream {
    pub fn said(&self) -> String {
        self.said.lock().expect("no holder panics").clone()
    }

    /// Waits until it has said `what`.
    pub async fn says(&self, what: &str) -> Outcome {
        until(Duration::from_secs(20), || async {
            let said = self.said();
            check(said.contains(what), || format!("kubectl {} did not say {what:?}: {said:?}", self.name))
        })
        .await
    }

    pub fn tell(&mut self, line: &str) -> Outcome {
        let stdin = self.child.stdin.as_mut().ok_or("its standard input is closed")?;
        stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).map_err(text)
    }

    pub fn is_over(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Waits until it has ended; gives what it said.
    pub async fn ends(&mut self) -> Result<String, String> {
        for _ in 0..200 {
            if self.is_over() {
                return Ok(self.said());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("kubectl {} goes on although its replica is dead: {:?}", self.name, self.said()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // `timeout` passes SIGTERM on to kubectl.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}
