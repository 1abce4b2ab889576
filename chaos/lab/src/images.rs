//! Images made on the spot: programs compiled here, packed as docker archives.
//! No registry is asked for anything.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::{Context, LabError, Result};
use crate::preflight;
use crate::process;
use crate::user::User;

/// Holds a pod's namespaces.
pub const SANDBOX_IMAGE: &str = "triarch.local/sandbox:1";
/// The sample application, as pods name it.
pub const WEB_IMAGE: &str = "web:1";
/// A tag with the same content, to roll out to.
pub const WEB_IMAGE_2: &str = "web:2";

const PAUSE_SOURCE: &str = include_str!("../images/pause.rs");
const WEB_SOURCE: &str = include_str!("../images/web.rs");
/// Commands of busybox that `exec` users expect.
const APPLETS: &[&str] = &[
    "sh", "ls", "cat", "echo", "env", "ps", "wget", "nc", "sleep", "id", "hostname", "date", "grep", "head", "tail",
    "wc", "mount", "ip", "timeout", "touch", "rm", "mkdir", "true", "false", "seq", "kill", "stat", "df", "free", "vi",
];

/// Archives, ready to be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    pub sandbox: PathBuf,
    pub web: PathBuf,
}

impl Images {
    /// Makes them in `dir`, unless those there are of the same sources.
    pub fn make(dir: &Path, user: Option<&User>) -> Result<Images> {
        fs::create_dir_all(dir).step("images", dir.display())?;
        if let Some(user) = user {
            user.own(dir);
        }
        let sandbox = dir.join("sandbox.tar");
        if !fresh(&sandbox, PAUSE_SOURCE) {
            let pause = compile(dir, "pause", PAUSE_SOURCE, user)?;
            let image = Image {
                names: &[SANDBOX_IMAGE],
                entrypoint: &["/pause"],
                files: vec![("pause".into(), pause)],
                links: vec![],
            };
            image.write(&sandbox, PAUSE_SOURCE)?;
        }
        let web = dir.join("web.tar");
        if !fresh(&web, WEB_SOURCE) {
            let mut files = vec![("web".into(), compile(dir, "web", WEB_SOURCE, user)?)];
            let mut links = Vec::new();
            if let Some(busybox) = preflight::find("busybox") {
                files.push(("bin/busybox".into(), fs::read(&busybox).step("images", busybox.display())?));
                links = APPLETS.iter().map(|a| (format!("bin/{a}"), "busybox".to_owned())).collect();
            }
            let names = [WEB_IMAGE, WEB_IMAGE_2].map(|n| format!("docker.io/library/{n}"));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Image { names: &names, entrypoint: &["/web"], files, links }.write(&web, WEB_SOURCE)?;
        }
        Ok(Images { sandbox, web })
    }
}

/// A static program from one source file.
fn compile(dir: &Path, name: &str, source: &str, user: Option<&User>) -> Result<Vec<u8>> {
    let file = dir.join(format!("{name}.rs"));
    let program = dir.join(name);
    fs::write(&file, source).step("images", file.display())?;
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.args([
        "--edition",
        "2024",
        "-O",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "panic=abort",
        "-C",
        "strip=symbols",
    ]);
    command.arg("-o").arg(&program).arg(&file);
    if let Some(user) = user {
        user.own(&file);
        user.apply(&mut command);
    }
    process::run("images", &mut command)?;
    let bytes = fs::read(&program).step("images", program.display())?;
    if is_dynamic(&bytes) {
        let reason = format!("{} is not static: a container has no libraries for it", program.display());
        return Err(LabError::new("images", reason));
    }
    Ok(bytes)
}

/// Whether an ELF program asks for an interpreter (`PT_INTERP`).
fn is_dynamic(elf: &[u8]) -> bool {
    let half = |at: usize| elf.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]) as usize);
    let Some(start) = elf.get(32..40).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes"))) else {
        return false;
    };
    let (size, count) = (half(54), half(56));
    (0..count).any(|i| elf.get(start as usize + i * size..).is_some_and(|h| h.starts_with(&[3, 0, 0, 0])))
}

/// What an archive was made from is kept beside it.
fn mark(archive: &Path) -> PathBuf {
    archive.with_extension("made-from")
}

fn fresh(archive: &Path, source: &str) -> bool {
    archive.is_file() && fs::read_to_string(mark(archive)).is_ok_and(|m| m == digest(source.as_bytes()))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// An image of one layer.
struct Image<'a> {
    names: &'a [&'a str],
    entrypoint: &'a [&'a str],
    /// Path and content; all are programs.
    files: Vec<(String, Vec<u8>)>,
    /// Path and what it points to.
    links: Vec<(String, String)>,
}

impl Image<'_> {
    fn layer(&self) -> std::io::Result<Vec<u8>> {
        let mut layer = tar::Builder::new(Vec::new());
        for dir in ["bin/", "etc/", "tmp/", "proc/", "sys/", "dev/"] {
            let mut header = header(0, if dir == "tmp/" { 0o1777 } else { 0o755 });
            header.set_entry_type(tar::EntryType::Directory);
            layer.append_data(&mut header, dir, std::io::empty())?;
        }
        let passwd = b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
        layer.append_data(&mut header(passwd.len(), 0o644), "etc/passwd", &passwd[..])?;
        for (path, bytes) in &self.files {
            layer.append_data(&mut header(bytes.len(), 0o755), path, bytes.as_slice())?;
        }
        for (path, target) in &self.links {
            let mut header = header(0, 0o777);
            header.set_entry_type(tar::EntryType::Symlink);
            layer.append_link(&mut header, path, target)?;
        }
        layer.into_inner()
    }

    /// Writes `manifest.json`, the configuration and the layer.
    fn write(&self, archive: &Path, source: &str) -> Result<()> {
        let layer = self.layer().step("images", "pack the layer")?;
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
            "history": [{"created": "1970-01-01T00:00:00Z"}],
        });
        let config = config.to_string().into_bytes();
        let config_name = format!("{}.json", digest(&config));
        let manifest = json!([{"Config": config_name, "RepoTags": self.names, "Layers": ["layer.tar"]}]).to_string();
        let pack = || -> std::io::Result<()> {
            let mut out = tar::Builder::new(File::create(archive)?);
            out.append_data(&mut header(manifest.len(), 0o644), "manifest.json", manifest.as_bytes())?;
            out.append_data(&mut header(config.len(), 0o644), &config_name, config.as_slice())?;
            out.append_data(&mut header(layer.len(), 0o644), "layer.tar", layer.as_slice())?;
            out.into_inner()?.flush()
        };
        pack().step("images", archive.display())?;
        fs::write(mark(archive), digest(source.as_bytes())).step("images", archive.display())
    }
}

fn header(size: usize, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_manifest_names_the_configuration_whose_digest_matches_the_layer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        let links = vec![("bin/sh".into(), "busybox".into())];
        Image { names: &["x:1"], entrypoint: &["/x"], files: vec![("x".into(), b"program".to_vec())], links }
            .write(&path, "source")
            .unwrap();
        let mut found = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(File::open(&path).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            found.insert(entry.path().unwrap().display().to_string(), bytes);
        }
        let manifest: serde_json::Value = serde_json::from_slice(&found["manifest.json"]).unwrap();
        let config: serde_json::Value =
            serde_json::from_slice(&found[manifest[0]["Config"].as_str().unwrap()]).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(&found["layer.tar"])));
        assert_eq!(manifest[0]["RepoTags"][0], "x:1");
        assert!(fresh(&path, "source") && !fresh(&path, "another"));
    }

    #[test]
    fn images_are_static_and_the_sandbox_goes_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::make(dir.path(), None).unwrap();
        assert!(images.sandbox.is_file() && images.web.is_file());
        let mut pause = Command::new(dir.path().join("pause")).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(pause.try_wait().unwrap(), None);
        let pid = nix::unistd::Pid::from_raw(pause.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(pause.wait().unwrap().success());
    }
}
