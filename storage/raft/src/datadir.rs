//! The data directory: 0700, one process at a time, and who it belongs to.
//!
//! ```text
//!   LOCK        flock'd while a process runs
//!   IDENTITY    cluster, replica, incarnation, format; JSON; written once at birth
//!   wal/        the log
//!   checkpoint/ the checkpoint
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use triarch_env::{Disk, RealDisk};

use crate::transport::Peer;
use crate::types::NodeId;

/// The newest layout that this release reads and writes.
pub const FORMAT: u32 = 1;
/// Of `IDENTITY` and `PEERS`, bytes.
const MAX_FILE: u64 = 1 << 20;

/// Whom a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    pub format: u32,
    pub cluster_id: String,
    pub node_id: NodeId,
    pub name: String,
    /// Random; the membership knows it, so that a wiped directory is noticed.
    pub incarnation: u64,
}

/// Why a data directory is not used. Exit code 4: refused for safety, except
/// for [`DataDirError::Io`].
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("data directory {path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("data directory {0} is in use by another process; stop it first, or use another --data-dir")]
    Locked(PathBuf),
    #[error(
        "data directory {path} has format {found}, this release reads up to {FORMAT}; start the release that wrote it, \
         or a later one"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error(
        "data directory {path} belongs to {found}, not to {wanted}; use another --data-dir, or --name {found_name}"
    )]
    Foreign { path: PathBuf, found: String, wanted: String, found_name: String },
    #[error(
        "data directory {path}: IDENTITY cannot be read: {why}; restore it, or remove this replica and join it again"
    )]
    Malformed { path: PathBuf, why: String },
    #[error(
        "data directory {path}: IDENTITY is missing, but {found} is there; restore it, or remove this replica, empty \
         the directory and join it again"
    )]
    Nameless { path: PathBuf, found: &'static str },
    #[error("data directory {0} has data already; it is started without --init and --join")]
    NotEmpty(PathBuf),
}

/// An open data directory; the lock goes with it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Option<Identity>,
    _lock: File,
}

impl DataDir {
    /// Opens `path`, made when it is missing, and takes its lock.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_path_buf(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
        if mode != 0o700 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io)?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("LOCK"))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::Locked(path.to_path_buf())),
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        lock.set_len(0).map_err(io)?;
        writeln!(&lock, "{}", std::process::id()).map_err(io)?;
        let identity = read_identity(path)?;
        if identity.is_none()
            && let Some(found) = ["wal", "checkpoint"].into_iter().find(|name| holds_something(&path.join(name)))
        {
            return Err(DataDirError::Nameless { path: path.to_path_buf(), found });
        }
        Ok(DataDir { path: path.to_path_buf(), identity, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn wal_dir(&self) -> PathBuf {
        self.path.join("wal")
    }

    pub fn checkpoint_dir(&self) -> PathBuf {
        self.path.join("checkpoint")
    }

    /// `None` in a directory that nobody was born in.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Checks that the directory is the one that is meant; either may be left open.
    pub fn expect(&self, cluster_id: Option<&str>, name: Option<&str>) -> Result<(), DataDirError> {
        let Some(found) = &self.identity else { return Ok(()) };
        let other = cluster_id.is_some_and(|c| c != found.cluster_id) || name.is_some_and(|n| n != found.name);
        if !other {
            return Ok(());
        }
        let text = |cluster: &str, name: &str| format!("replica {name} of cluster {cluster}");
        Err(DataDirError::Foreign {
            path: self.path.clone(),
            found: text(&found.cluster_id, &found.name),
            wanted: text(cluster_id.unwrap_or(&found.cluster_id), name.unwrap_or(&found.name)),
            found_name: found.name.clone(),
        })
    }

    /// A replica is born here: writes `IDENTITY`, durably and once.
    pub fn create_identity(&mut self, identity: Identity) -> Result<(), DataDirError> {
        if self.identity.is_some() {
            return Err(DataDirError::NotEmpty(self.path.clone()));
        }
        let json = serde_json::to_vec_pretty(&identity).expect("plain data");
        let source = RealDisk.write_atomic(&self.path.join("IDENTITY"), &json);
        source.map_err(|source| DataDirError::Io { path: self.path.clone(), source })?;
        self.identity = Some(identity);
        Ok(())
    }

    /// Where the others were last known: whom a replica asks that lost its checkpoint.
    pub fn save_peers(&self, peers: &[Peer]) -> Result<(), DataDirError> {
        save_peers(&self.path, peers)
    }

    /// What [`DataDir::save_peers`] wrote last; empty when that cannot be read.
    pub fn peers(&self) -> Vec<Peer> {
        let text = read_small(&self.path.join("PEERS")).unwrap_or_default();
        let list: Vec<(NodeId, String)> = serde_json::from_slice(&text).unwrap_or_default();
        list.into_iter().map(|(id, address)| Peer { id, address }).collect()
    }
}

/// See [`DataDir::save_peers`]; for whoever holds the path of an open directory.
pub fn save_peers(dir: &Path, peers: &[Peer]) -> Result<(), DataDirError> {
    let list: Vec<(NodeId, &str)> = peers.iter().map(|p| (p.id, p.address.as_str())).collect();
    let json = serde_json::to_vec(&list).expect("plain data");
    let written = RealDisk.write_atomic(&dir.join("PEERS"), &json);
    written.map_err(|source| DataDirError::Io { path: dir.to_path_buf(), source })
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

fn holds_something(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

fn read_identity(path: &Path) -> Result<Option<Identity>, DataDirError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let text = match read_small(&path.join("IDENTITY")) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataDirError::Io { path: path.to_path_buf(), source }),
    };
    let bad = |why: String| DataDirError::Malformed { path: path.to_path_buf(), why };
    let malformed = |e: serde_json::Error| bad(e.to_string());
    // The format first: a newer one may have other fields.
    let Format { format } = serde_json::from_slice(&text).map_err(malformed)?;
    if format > FORMAT {
        return Err(DataDirError::Newer { path: path.to_path_buf(), found: format });
    }
    if format == 0 {
        return Err(bad("there is no format 0".into()));
    }
    serde_json::from_slice(&text).map(Some).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { format: FORMAT, cluster_id: "c1".into(), node_id: 2, name: "b".into(), incarnation: 77 }
    }

    #[test]
    fn a_second_process_is_refused_and_the_mode_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let held = DataDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Locked(_))));
        drop(held);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn an_identity_is_written_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut d = DataDir::open(dir.path()).unwrap();
        assert_eq!(d.identity(), None);
        d.create_identity(identity()).unwrap();
        assert!(matches!(d.create_identity(identity()), Err(DataDirError::NotEmpty(_))));
        let peers = vec![Peer { id: 1, address: "a:1".into() }];
        d.save_peers(&peers).unwrap();
        drop(d);
        let d = DataDir::open(dir.path()).unwrap();
        assert_eq!((d.identity(), d.peers()), (Some(&identity()), peers));
        d.expect(Some("c1"), Some("b")).unwrap();
        let error = d.expect(Some("c2"), None).unwrap_err().to_string();
        assert!(error.contains("replica b of cluster c1, not to replica b of cluster c2"), "{error}");
    }

    #[test]
    fn a_newer_or_damaged_identity_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("IDENTITY"), r#"{"format": 9, "later": true}"#).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("has format 9, this release reads up to 1"), "{error}");
        fs::write(dir.path().join("IDENTITY"), "{").unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Malformed { .. })));
    }

    #[test]
    fn data_without_an_identity_is_not_an_empty_directory() {
        for found in ["wal", "checkpoint"] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join(found)).unwrap();
            DataDir::open(dir.path()).expect("nothing is in it");
            fs::write(dir.path().join(found).join("file"), "").unwrap();
            let error = DataDir::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("IDENTITY is missing, but {found} is there")), "{error}");
        }
    }
}
