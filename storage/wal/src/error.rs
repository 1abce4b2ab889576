//! What can go wrong with the log, and what its owner can do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An error of the log. It clones, because one failed sync fails a whole group.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// A record that was synced is damaged. The log is not opened: this replica
    /// must be removed and join again.
    #[error(
        "the log is damaged: {file}, byte {offset}: {detail}; remove this replica, empty its data directory and join it again"
    )]
    Corrupt { file: String, offset: u64, detail: String },
    /// There was a log, and nothing is left of it.
    #[error(
        "an empty log where there was one: {} holds no segment, its data was wiped. This replica cannot come back \
         under its old id, since it forgot what it acknowledged: put the files back, or remove it from the cluster, \
         empty its data directory and join again",
        dir.display()
    )]
    Lost { dir: PathBuf },
    /// Written by a later version.
    #[error(
        "the log cannot be read by this version: {file}, byte {offset}: {detail}; run the version that wrote it, or a \
         later one"
    )]
    Unsupported { file: String, offset: u64, detail: String },
    /// The disk refused; `hint` says what to do.
    #[error("the log could not {action} {path}: {source}; {hint}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
        hint: &'static str,
    },
    /// Entries before `first` have been purged.
    #[error("log entry {index} was purged; the first is {first}")]
    Purged { index: u64, first: u64 },
    /// A hole in the log, or an entry that is there already.
    #[error("log entry {got} does not follow; expected {expected}")]
    NotNext { expected: u64, got: u64 },
    #[error("{what} of {size} bytes is larger than the log takes ({limit})")]
    TooLarge { what: &'static str, size: usize, limit: usize },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> WalError {
        let hint = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free space or grow the volume, then start the replica again: it lost nothing that it acknowledged"
            }
            io::ErrorKind::PermissionDenied => "give the process's user access to the data directory",
            _ => {
                "what the disk holds is no longer certain, so the replica stops: check the disk, then start it again, \
                 or remove it and join it with an empty data directory"
            }
        };
        WalError::Io { action, path: path.to_path_buf(), source: Arc::new(source), hint }
    }

    /// The disk is full, as opposed to broken.
    pub fn is_full(&self) -> bool {
        matches!(self, WalError::Io { source, .. } if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// For callbacks and traits that speak [`io::Error`]; the kind is kept.
    pub fn to_io(&self) -> io::Error {
        let kind = match self {
            WalError::Io { source, .. } => source.kind(),
            WalError::Corrupt { .. } | WalError::Unsupported { .. } | WalError::Lost { .. } => {
                io::ErrorKind::InvalidData
            }
            WalError::Purged { .. } => io::ErrorKind::NotFound,
            WalError::NotNext { .. } | WalError::TooLarge { .. } => io::ErrorKind::InvalidInput,
            WalError::Closed => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, self.to_string())
    }
}

impl From<WalError> for io::Error {
    fn from(e: WalError) -> io::Error {
        e.to_io()
    }
}
