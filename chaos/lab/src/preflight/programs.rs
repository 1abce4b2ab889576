//! Programs that a node needs, and the Debian packages that have them.

use std::path::PathBuf;
use std::process::Command;

use crate::error::{LabError, Result};
use crate::process;

/// A program or plugin that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub what: &'static str,
    pub package: &'static str,
}

/// What is looked for: a program on the path, or (with a slash) a CNI plugin.
const NEEDED: &[Missing] = &[
    Missing { what: "unshare", package: "util-linux" },
    Missing { what: "nsenter", package: "util-linux" },
    Missing { what: "ip", package: "iproute2" },
    Missing { what: "nft", package: "nftables" },
    Missing { what: "conntrack", package: "conntrack" },
    Missing { what: "runc", package: "runc" },
    Missing { what: "containerd", package: "containerd" },
    Missing { what: "ctr", package: "containerd" },
    Missing { what: "cni/ptp", package: "containernetworking-plugins" },
    Missing { what: "cni/host-local", package: "containernetworking-plugins" },
    Missing { what: "cni/loopback", package: "containernetworking-plugins" },
];
const PLUGIN_DIRS: &[&str] = &["/usr/lib/cni", "/opt/cni/bin"];
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a program is. A plain user's path often lacks the sbin folders.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(DEFAULT_PATH.split(':')).map(|d| PathBuf::from(d).join(program)).find(|p| p.is_file())
}

fn present(what: &str) -> bool {
    match what.strip_prefix("cni/") {
        Some(plugin) => PLUGIN_DIRS.iter().any(|d| PathBuf::from(d).join(plugin).is_file()),
        None => find(what).is_some(),
    }
}

/// What is not there, in order.
pub fn missing() -> Vec<Missing> {
    NEEDED.iter().filter(|n| !present(n.what)).cloned().collect()
}

/// Packages of what is missing, each once.
pub fn packages(missing: &[Missing]) -> Vec<String> {
    let mut names: Vec<String> = missing.iter().map(|m| m.package.to_owned()).collect();
    names.dedup();
    names
}

/// Installs Debian packages; gives the names of those that were new.
pub fn install(missing: &[Missing]) -> Result<Vec<String>> {
    let packages = packages(missing);
    if find("apt-get").is_none() {
        let reason = format!("there is no apt-get here; install {} yourself", packages.join(", "));
        return Err(LabError::new("packages", reason));
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        process::run("packages", &mut command)
    };
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages.iter().map(String::as_str));
    if apt(&arguments).is_err() {
        // The lists may be old, or never have been fetched.
        apt(&["update"])?;
        apt(&arguments)?;
    }
    let still = self::missing();
    if still.is_empty() {
        return Ok(packages);
    }
    let names: Vec<&str> = still.iter().map(|m| m.what).collect();
    Err(LabError::new("packages", format!("installed, and still not there: {}", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_with_several_missing_programs_is_installed_once() {
        let missing: Vec<Missing> = NEEDED.iter().filter(|n| n.package == "containerd").cloned().collect();
        assert_eq!(missing.len(), 2);
        assert_eq!(packages(&missing), ["containerd"]);
    }

    #[test]
    fn programs_are_found_by_name_and_invented_ones_are_not() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-here").is_none());
    }
}
