//! Network and mount namespaces without a process that holds them: a
//! descriptor does, and what is not referred to any more is gone.
//!
//! Invariant: the end of this process, however it comes, ends every namespace,
//! device, rule and mount that was made here; there is nothing to clean up.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

use crate::error::{Context, LabError, Result};
use crate::process;

/// A network namespace. Clones are the same one.
#[derive(Clone, Debug)]
pub struct NetNs(Arc<OwnedFd>);

impl NetNs {
    /// An empty one, with its loopback up.
    pub fn new() -> Result<NetNs> {
        // A thread of its own: the namespace is a thread's attribute.
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).step("network", "a new network namespace")?;
            let path = "/proc/thread-self/ns/net";
            File::open(path).step("network", path)
        });
        let file =
            made.join().map_err(|_| LabError::new("network", "the thread that makes a namespace panicked"))??;
        let ns = NetNs(Arc::new(file.into()));
        ns.run("ip", &["link", "set", "lo", "up"])?;
        Ok(ns)
    }

    /// Makes `command` run inside.
    pub fn enter(&self, command: &mut Command) {
        let ns = self.0.clone();
        // SAFETY: setns is a plain system call, made between fork and exec on a
        // descriptor that the closure keeps open.
        unsafe {
            command.pre_exec(move || match libc::setns(ns.as_raw_fd(), libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
    }

    /// Runs a program inside to its end and gives its output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments);
        self.enter(&mut command);
        process::run("network", &mut command)
    }

    /// For `ip link … netns`: how this process's children can name it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Why namespaces cannot be made here; `None`: they can.
pub fn obstacle() -> Option<String> {
    if !Uid::effective().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    if let Some(missing) = ["ip", "nft"].into_iter().find(|p| crate::preflight::find(p).is_none()) {
        return Some(format!("there is no program {missing}"));
    }
    let tried = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)).join();
    match tried {
        Ok(Ok(())) => None,
        Ok(Err(e)) => Some(format!("this kernel or container refuses namespaces: {e}")),
        Err(_) => Some("the thread that tries namespaces panicked".to_owned()),
    }
}

/// Moves this process into a network and a mount namespace of its own: what it
/// does to both is seen by nobody else, and it has no way to any other network.
///
/// # Errors
/// It has more than one thread, which would stay where they are, or may not.
pub fn isolate() -> Result<()> {
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    // One that was joined is in the list for a moment more.
    if !process::wait_for(Duration::from_secs(1), || threads() == 1) {
        return Err(LabError::new("network", format!("{} threads run already, only one can be moved", threads())));
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).step("network", "namespaces of this process's own")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).step("network", "private mounts")?;
    process::run("network", Command::new("ip").args(["link", "set", "lo", "up"])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_a_loopback_alone_and_no_route() {
        if let Some(why) = obstacle() {
            println!("not run: {why}");
            return;
        }
        let ns = NetNs::new().unwrap();
        let links = ns.run("ip", &["-o", "link"]).unwrap();
        assert_eq!(links.lines().count(), 1, "{links}");
        assert_eq!(ns.run("ip", &["route"]).unwrap(), "");
    }
}
