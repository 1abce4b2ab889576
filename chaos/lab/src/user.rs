//! Who called: under `sudo`, everything that needs no privilege (building,
//! replicas, the files in the state directory) is done as the caller.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Uid};

/// An unprivileged user for whom root works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub name: String,
    pub home: PathBuf,
}

impl User {
    /// The user behind `sudo`; `None` when there is none (then this process's
    /// own user is the caller).
    pub fn caller() -> Option<User> {
        User::behind(|k| std::env::var(k).ok(), Uid::effective().is_root())
    }

    fn behind(get: impl Fn(&str) -> Option<String>, root: bool) -> Option<User> {
        if !root {
            return None;
        }
        let uid: u32 = get("SUDO_UID")?.parse().ok()?;
        let gid = get("SUDO_GID")?.parse().ok()?;
        if uid == 0 {
            return None;
        }
        let known = nix::unistd::User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let name = get("SUDO_USER").or_else(|| known.as_ref().map(|u| u.name.clone())).unwrap_or_default();
        let home = known.map_or_else(|| PathBuf::from("/"), |u| u.dir);
        Some(User { uid, gid, name, home })
    }

    /// Makes `command` run as this user.
    pub fn apply(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid).env("HOME", &self.home).env("USER", &self.name);
    }

    /// Gives a file or folder to this user; what cannot be given is left.
    pub fn own(&self, path: &Path) {
        let _ = nix::unistd::chown(path, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(key: &str) -> Option<String> {
        match key {
            "SUDO_UID" => Some("65534".into()),
            "SUDO_GID" => Some("65534".into()),
            "SUDO_USER" => Some("nobody".into()),
            _ => None,
        }
    }

    #[test]
    fn the_caller_is_the_one_behind_sudo_and_only_for_root() {
        let user = User::behind(env, true).unwrap();
        assert_eq!((user.uid, user.gid, user.name.as_str()), (65534, 65534, "nobody"));
        assert_eq!(User::behind(env, false), None);
        assert_eq!(User::behind(|_| None, true), None);
        assert_eq!(User::behind(|_| Some("0".into()), true), None);
    }
}
