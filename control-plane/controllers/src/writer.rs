//! The one door through which plans become writes, and what may go wrong in it.

use async_trait::async_trait;
use triarch_mvcc::Revision;

use crate::Op;

/// A write that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The object's revision after the write (for a delete: of the deletion).
    pub revision: Revision,
    /// The object's name (generated ones included).
    pub name: String,
}

/// Why a write was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    AlreadyExists(String),
    /// Refused because the namespace is being deleted.
    #[error("{0}")]
    NamespaceTerminating(String),
    /// The leadership that this writer belongs to has ended.
    #[error("leadership has ended")]
    Fenced,
    #[error("{0}")]
    Other(String),
}

/// Implemented over the registry, and by fakes in tests.
#[async_trait]
pub trait Writer: Send + Sync + 'static {
    async fn write(&self, op: &Op) -> Result<Written, WriteError>;
}
