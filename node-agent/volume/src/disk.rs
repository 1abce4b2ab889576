//! The folders of a pod's volumes: made, mounted where memory is asked for,
//! given to the pod's group, unmounted and removed.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::plan::{Sources, VolumeError, files};
use crate::spec::{HostPath, Volume};

/// Entries of a folder whose group is changed, at most.
const MAX_CHOWN: usize = 1_000_000;

/// A pod's folder, `ROOT/pods/UID`.
#[derive(Clone, Debug)]
pub struct PodDir {
    root: PathBuf,
}

fn io_error(what: &str, path: &Path, e: &io::Error) -> VolumeError {
    VolumeError(format!("{what} {}: {e}", path.display()))
}

impl PodDir {
    pub fn new(root: &Path, uid: &str) -> PodDir {
        // A uid names one folder; anything else names none that exists.
        let safe: String = uid.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').collect();
        PodDir { root: root.join("pods").join(if safe.is_empty() { "unnamed".into() } else { safe }) }
    }

    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Where containerd mounts volume `v` from; made or brought up to date.
    pub fn set_up(
        &self,
        v: &Volume,
        sources: &dyn Sources,
        group: Option<u32>,
        stamp: &str,
    ) -> Result<PathBuf, VolumeError> {
        if let Some(host) = &v.host_path {
            return host_path(host);
        }
        let known = v.empty_dir.is_some() || v.config_map.is_some() || v.secret.is_some() || v.projected.is_some();
        if let Some(other) = v.other.keys().next().filter(|_| !known && v.downward_api.is_none()) {
            return Err(VolumeError(format!(
                "no volume plugin matched: {other} volumes are not supported on this node"
            )));
        }
        let dir = self.root.join("volumes").join(&v.name);
        let first = !dir.exists();
        fs::create_dir_all(&dir).map_err(|e| io_error("cannot make", &dir, &e))?;
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o750))
            .map_err(|e| io_error("cannot protect", &dir, &e))?;
        let in_memory = v.empty_dir.as_ref().is_some_and(|e| e.medium == "Memory");
        let secret = v.secret.is_some() || v.projected.is_some();
        if in_memory || secret {
            let size = v.empty_dir.as_ref().and_then(|e| e.size_limit.as_deref());
            match mount_memory(&dir, size) {
                Err(e) if in_memory => return Err(io_error("cannot mount memory on", &dir, &e)),
                // Secrets are better in memory and still work on disk.
                Err(e) => tracing::debug!(path = %dir.display(), error = %e, "no memory mount for a secret"),
                Ok(()) => {}
            }
        }
        match files(v, sources)? {
            Some(files) => {
                crate::atomic::write(&dir, &files, group, stamp).map_err(|e| io_error("cannot write", &dir, &e))?;
            }
            None if first || in_memory => {
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))
                    .map_err(|e| io_error("cannot open", &dir, &e))?;
                if let Some(gid) = group {
                    give(&dir, gid).map_err(|e| io_error("cannot give to the pod's group", &dir, &e))?;
                }
            }
            None => {}
        }
        Ok(dir)
    }

    /// Unmounts and removes everything of the pod. Repeatable.
    pub fn tear_down(&self) -> io::Result<()> {
        for mounted in mounts_below(&self.root)?.into_iter().rev() {
            umount2(&mounted, MntFlags::MNT_DETACH).map_err(io::Error::from)?;
        }
        match fs::remove_dir_all(&self.root) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// The folder and all in it belong to the group, which also writes.
fn give(dir: &Path, gid: u32) -> io::Result<()> {
    let mut waiting = vec![dir.to_owned()];
    let mut seen = 0;
    while let Some(path) = waiting.pop() {
        seen += 1;
        if seen > MAX_CHOWN {
            return Err(io::Error::other("too many files"));
        }
        let meta = fs::symlink_metadata(&path)?;
        std::os::unix::fs::lchown(&path, None, Some(gid))?;
        if meta.is_symlink() {
            continue;
        }
        let extra = if meta.is_dir() { 0o2070 } else { 0o060 };
        fs::set_permissions(&path, fs::Permissions::from_mode(meta.permissions().mode() & 0o7777 | extra))?;
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path)?.flatten().map(|e| e.path()));
        }
    }
    Ok(())
}

fn mount_memory(dir: &Path, size: Option<&str>) -> io::Result<()> {
    if mounts_below(dir)?.iter().any(|m| m == dir) {
        return Ok(());
    }
    // The kernel takes plain bytes, or k, m, g; quantities in Ki, Mi, Gi are those.
    let size = size
        .map(|s| s.trim_end_matches('i').to_lowercase())
        .filter(|s| s.chars().all(|c| c.is_ascii_digit() || "kmg".contains(c)));
    let options = size.map(|s| format!("size={s}"));
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, options.as_deref())
        .map_err(io::Error::from)
}

/// Mount points at or below `dir`, in the order they were made.
fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(|p| PathBuf::from(p.replace("\\040", " ")));
    Ok(points.filter(|p| p.starts_with(dir)).collect())
}

fn host_path(h: &HostPath) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&h.path);
    let fail = |what: &str| Err(VolumeError(format!("hostPath type check failed: {} is not a {what}", h.path)));
    let kind = fs::metadata(&path).ok().map(|m| m.file_type());
    let make = |e: io::Error| io_error("cannot make", &path, &e);
    match h.kind.as_str() {
        "DirectoryOrCreate" if kind.is_none() => {
            fs::create_dir_all(&path).map_err(make)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(make)?;
        }
        "FileOrCreate" if kind.is_none() => drop(fs::File::create(&path).map_err(make)?),
        "Directory" | "DirectoryOrCreate" if !kind.is_some_and(|k| k.is_dir()) => return fail("directory"),
        "File" | "FileOrCreate" if !kind.is_some_and(|k| k.is_file()) => return fail("file"),
        "Socket" if !kind.is_some_and(|k| k.is_socket()) => return fail("socket"),
        "CharDevice" if !kind.is_some_and(|k| k.is_char_device()) => return fail("character device"),
        "BlockDevice" if !kind.is_some_and(|k| k.is_block_device()) => return fail("block device"),
        _ => {}
    }
    Ok(path)
}

/// A path below a volume, made as a folder when it is missing. A symbolic link
/// that leads out of the volume is refused.
pub fn sub_path(volume: &Path, sub: &str) -> Result<PathBuf, VolumeError> {
    let relative = Path::new(sub);
    if relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(VolumeError(format!("subPath \"{sub}\" must not contain path parts that leave the volume")));
    }
    let base = fs::canonicalize(volume).map_err(|e| io_error("cannot resolve", volume, &e))?;
    let full = base.join(relative);
    if !full.exists() {
        // The deepest part that exists must lie inside before anything is made below it.
        let existing = full.ancestors().find(|p| p.exists()).unwrap_or(&base);
        let inside = fs::canonicalize(existing).is_ok_and(|p| p.starts_with(&base));
        if !inside {
            return Err(VolumeError(format!("subPath \"{sub}\" leads out of the volume")));
        }
        fs::create_dir_all(&full)
            .map_err(|e| io_error("failed to create subPath directory for volumeMount", &full, &e))?;
    }
    let real = fs::canonicalize(&full).map_err(|e| io_error("cannot resolve", &full, &e))?;
    match real.starts_with(&base) {
        true => Ok(real),
        false => Err(VolumeError(format!("subPath \"{sub}\" leads out of the volume"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Payload, ResourceFieldRef, TokenProjection};

    struct None_;

    impl Sources for None_ {
        fn config_map(&self, _name: &str) -> Option<Payload> {
            Some(Payload { data: [("a".to_owned(), b"1".to_vec())].into() })
        }
        fn secret(&self, _name: &str) -> Option<Payload> {
            None
        }
        fn field(&self, path: &str) -> Result<String, VolumeError> {
            Ok(path.into())
        }
        fn resource(&self, of: &ResourceFieldRef) -> Result<String, VolumeError> {
            Ok(of.resource.clone())
        }
        fn token(&self, _of: &TokenProjection) -> Result<Vec<u8>, VolumeError> {
            Ok(Vec::new())
        }
    }

    fn volume(v: serde_json::Value) -> Volume {
        serde_json::from_value(v).expect("a volume")
    }

    #[test]
    fn folders_are_made_and_removed_with_the_pod() {
        let dir = tempfile::tempdir().expect("a folder");
        let pod = PodDir::new(dir.path(), "uid-1");
        let made =
            pod.set_up(&volume(serde_json::json!({"name": "e", "emptyDir": {}})), &None_, None, "t").expect("made");
        assert_eq!(fs::metadata(&made).expect("there").permissions().mode() & 0o777, 0o777);
        fs::write(made.join("x"), "kept").expect("writes");
        pod.set_up(&volume(serde_json::json!({"name": "e", "emptyDir": {}})), &None_, None, "t").expect("again");
        assert_eq!(fs::read(made.join("x")).expect("reads"), b"kept");
        let cm = pod
            .set_up(&volume(serde_json::json!({"name": "c", "configMap": {"name": "x"}})), &None_, None, "t")
            .expect("made");
        assert_eq!(fs::read(cm.join("a")).expect("reads"), b"1");
        pod.tear_down().expect("removed");
        pod.tear_down().expect("again");
        assert!(!pod.path().exists());
    }

    #[test]
    fn a_source_that_is_not_offered_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let v = volume(serde_json::json!({"name": "n", "nfs": {"server": "x", "path": "/"}}));
        let text = PodDir::new(dir.path(), "u").set_up(&v, &None_, None, "t").expect_err("refused").0;
        assert!(text.contains("nfs"), "{text}");
    }

    #[test]
    fn a_sub_path_never_leaves_its_volume() {
        let dir = tempfile::tempdir().expect("a folder");
        let volume = dir.path().join("v");
        fs::create_dir(&volume).expect("made");
        std::os::unix::fs::symlink("/etc", volume.join("out")).expect("linked");
        assert!(sub_path(&volume, "a/b").expect("inside").ends_with("v/a/b"));
        for bad in ["../x", "/etc", "out", "out/passwd", "out/new"] {
            assert!(sub_path(&volume, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_paths_are_what_they_are_said_to_be() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("d").to_string_lossy().into_owned();
        let of = |kind: &str| host_path(&HostPath { path: path.clone(), kind: kind.into() });
        assert_eq!(
            of("Directory").expect_err("missing").0,
            format!("hostPath type check failed: {path} is not a directory")
        );
        of("DirectoryOrCreate").expect("made");
        of("Directory").expect("there");
        assert!(of("File").is_err());
    }
}
