//! What one store may hold and what one transaction may ask.

/// Bounds of a store. The transaction bounds decide outcomes, so they must be
/// the same on every replica; the window bounds are local and only say when a
/// replica drops history that no compaction has released yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Guards and operations of one transaction together.
    pub txn_ops: usize,
    /// Keys and values of one transaction, in bytes.
    pub txn_bytes: usize,
    /// Events kept at most, over all resources, whatever the floor says.
    pub window_events: usize,
    /// Bytes that those events may keep alive.
    pub window_bytes: usize,
    /// Whether changes are tracked for [`crate::Mvcc::export`] (a checkpoint
    /// that follows behind). Off in tests of what stands above the store.
    pub exports: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { txn_ops: 4096, txn_bytes: 8 << 20, window_events: 250_000, window_bytes: 512 << 20, exports: true }
    }
}
