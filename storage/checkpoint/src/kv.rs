//! What the checkpoint needs of a key-value store.

use std::io;

/// Changes that are made together or not at all: `None` removes.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) bytes: usize,
}

impl Batch {
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.changes.push((key, Some(value)));
    }

    pub fn remove(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.changes.push((key, None));
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// An ordered store. A crash keeps what was synced, and of what was not, whole
/// batches in order at best; the checkpoint checks even that.
pub trait Kv: Send + Sync {
    fn apply(&self, batch: Batch) -> io::Result<()>;
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;
    /// Pairs after `after` (all when `None`) in order, until they pass
    /// `max_bytes`; at least one unless there are none.
    fn scan(&self, after: Option<&[u8]>, max_bytes: usize) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// Makes everything applied durable.
    fn sync(&self) -> io::Result<()>;
    fn size_on_disk(&self) -> io::Result<u64>;
}

/// The stores of one checkpoint, numbered; one of them is current.
pub trait Generations: Send + Sync {
    fn current(&self) -> io::Result<Option<u64>>;
    /// All that exist, in any order.
    fn list(&self) -> io::Result<Vec<u64>>;
    fn open(&self, generation: u64) -> io::Result<Box<dyn Kv>>;
    /// An empty store; leftovers of that number are removed first.
    fn create(&self, generation: u64) -> io::Result<Box<dyn Kv>>;
    /// Makes `generation` the current one, atomically and durably.
    fn switch(&self, generation: u64) -> io::Result<()>;
    /// Closed by its owner before.
    fn remove(&self, generation: u64) -> io::Result<()>;
}
