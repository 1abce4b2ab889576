//! Our own programs: found in `TRIARCH_BIN_DIR`, else built by cargo from the
//! workspace this crate belongs to, as the calling user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context, LabError, Result};
use crate::user::User;

/// Names a folder that has the programs; nothing is built then.
pub const BIN_DIR: &str = "TRIARCH_BIN_DIR";

/// Which profile cargo builds with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

/// Where the programs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// `triarch`: the control-plane replica and the operators' commands.
    pub server: PathBuf,
    /// `triarch-node`: the node agent.
    pub agent: PathBuf,
    /// `triarch-lab`: the first process of a node's namespaces.
    pub lab: PathBuf,
}

const NAMES: [&str; 3] = ["triarch", "triarch-node", "triarch-lab"];

/// The workspace's folder.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    here.canonicalize().unwrap_or(here)
}

impl Binaries {
    /// Finds them in `TRIARCH_BIN_DIR`, or builds them.
    pub fn obtain(profile: Profile) -> Result<Binaries> {
        match std::env::var_os(BIN_DIR) {
            Some(dir) => Binaries::within(Path::new(&dir)),
            None => Binaries::build(&workspace_root(), profile, User::caller().as_ref()),
        }
    }

    /// Those in a folder.
    pub fn within(dir: &Path) -> Result<Binaries> {
        let [server, agent, lab] = NAMES.map(|name| dir.join(name));
        for path in [&server, &agent, &lab] {
            if !path.is_file() {
                return Err(LabError::new("build", format!("{BIN_DIR}: there is no {}", path.display())));
            }
        }
        Ok(Binaries { server, agent, lab })
    }

    /// Builds them; cargo says itself where they are.
    pub fn build(root: &Path, profile: Profile, user: Option<&User>) -> Result<Binaries> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.arg("build").current_dir(root).stdin(Stdio::null()).stderr(Stdio::inherit());
        if profile == Profile::Release {
            command.arg("--release");
        }
        command.args(["-p", "triarch-server", "-p", "triarch-agent", "-p", "triarch-lab", "--bins"]);
        command.arg("--message-format=json-render-diagnostics");
        if let Some(user) = user {
            user.apply(&mut command);
        }
        let out = command.stdout(Stdio::piped()).output().step("build", "cargo build")?;
        if !out.status.success() {
            return Err(LabError::new("build", format!("cargo build: {}", out.status)));
        }
        let found = executables(&String::from_utf8_lossy(&out.stdout));
        let get = |name: &str| {
            found.get(name).cloned().ok_or_else(|| LabError::new("build", format!("cargo built no program {name}")))
        };
        Ok(Binaries { server: get(NAMES[0])?, agent: get(NAMES[1])?, lab: get(NAMES[2])? })
    }
}

/// Programs that cargo's messages name.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|m| Some((m["target"]["name"].as_str()?.to_owned(), PathBuf::from(m["executable"].as_str()?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_where_cargo_says() {
        let text = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"triarch_server"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"triarch"},"executable":"/t/debug/triarch"}"#,
            "\nnoise\n",
        );
        assert_eq!(executables(text).into_iter().collect::<Vec<_>>(), [("triarch".into(), "/t/debug/triarch".into())]);
    }

    #[test]
    fn a_folder_without_a_program_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("triarch"), "").unwrap();
        let e = Binaries::within(dir.path()).unwrap_err();
        assert!(e.reason.contains("triarch-node"), "{e}");
    }

    #[test]
    fn the_workspace_is_the_one_with_the_lock_file() {
        assert!(workspace_root().join("Cargo.lock").is_file());
    }
}
