//! What a replica keeps its state in: its log and its checkpoint.

use std::sync::Arc;

use triarch_checkpoint::{CheckpointError, CheckpointStore, Opened};
use triarch_env::{Env, RealDisk, priority};
use triarch_wal::{Config, ObserveFsync, Wal, WalError, WalHandle};

use crate::blocking::Blocking;
use crate::datadir::DataDir;
use crate::starts::Starts;
use crate::transport::Peer;

/// Log and checkpoint of one replica, open.
pub struct Stores {
    pub wal: WalHandle,
    /// Of each of the log's segments, for the size on disk.
    pub segment_bytes: u64,
    pub checkpoint: CheckpointStore,
    /// What opening the checkpoint found.
    pub found: Opened,
    /// Where the checkpoint's disk work is done.
    pub blocking: Blocking,
    /// Where the others were last known: asked when the checkpoint is lost.
    pub peers: Vec<Peer>,
    /// Counts this start.
    pub starts: Starts,
    /// Where the starts of others are noted: they wait for it, and a checkpoint takes long.
    pub noting: Blocking,
}

/// Why the stores do not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("the starts of replicas: {0}")]
    Starts(#[source] std::io::Error),
}

impl Stores {
    /// Opens what is in `dir`, on threads of their own. Blocks on the disk.
    pub fn open(dir: &DataDir, env: &Env, config: &Config, observe: Option<ObserveFsync>) -> Result<Stores, OpenError> {
        let (wal, repair) = Wal::open(Arc::new(RealDisk), &dir.wal_dir(), config)?;
        if let Some(repair) = repair {
            tracing::warn!(file = repair.file, offset = repair.offset, bytes = repair.bytes, "cut off a torn tail");
        }
        let wal = WalHandle::start_thread(wal, config, env.clone(), observe)?;
        let (checkpoint, found) = CheckpointStore::open(Arc::new(RealDisk), &dir.checkpoint_dir())?;
        Ok(Stores {
            wal,
            segment_bytes: config.segment_bytes,
            checkpoint,
            found,
            blocking: Blocking::thread("checkpoint", priority::BACKGROUND).map_err(OpenError::Thread)?,
            peers: dir.peers(),
            starts: Starts::count(Arc::new(RealDisk), dir.path()).map_err(OpenError::Starts)?,
            noting: Blocking::thread("starts", 0).map_err(OpenError::Thread)?,
        })
    }
}
