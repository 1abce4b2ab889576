//! What can go wrong with a checkpoint.

/// An error of the checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The checkpoint cannot be used and must come anew from a peer (or, with
    /// the whole log at hand, be started over).
    #[error("the checkpoint is lost: {0}; it is installed again from another replica")]
    Lost(String),
    /// Written by another version: refused, not lost.
    #[error(
        "the checkpoint cannot be read by this version: {0}; run the version that wrote it, or move the directory \
         checkpoint/ away, and this replica fetches one from another"
    )]
    Unsupported(String),
    /// The disk refused; nothing of the batch may be relied on.
    #[error("the checkpoint could not {action}: {source}")]
    Io {
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("a checkpoint record of {size} bytes; the limit is {limit}")]
    TooLarge { size: usize, limit: usize },
}

impl CheckpointError {
    pub(crate) fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> CheckpointError {
        move |source| CheckpointError::Io { action, source }
    }
}
