//! The key-value store of the simulation: memory with a crash.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::kv::{Batch, Generations, Kv};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct Disk {
    life: u64,
    current: Option<u64>,
    stores: BTreeMap<u64, Store>,
    fail_syncs: u32,
}

#[derive(Default)]
struct Store {
    live: Map,
    durable: Map,
    /// Applied since the last sync, in order.
    pending: Vec<Batch>,
}

/// Generations in memory; clones share them. After [`MemoryGenerations::crash`]
/// stores opened before fail.
#[derive(Clone, Default)]
pub struct MemoryGenerations(Arc<Mutex<Disk>>);

fn apply(map: &mut Map, batch: &Batch) {
    for (key, value) in &batch.changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

impl MemoryGenerations {
    pub fn new() -> MemoryGenerations {
        MemoryGenerations::default()
    }

    /// The power fails: of unsynced batches the first `keep` survive.
    pub fn crash(&self, keep: usize) {
        let mut disk = self.0.lock();
        disk.life += 1;
        for store in disk.stores.values_mut() {
            for batch in store.pending.drain(..).take(keep) {
                apply(&mut store.durable, &batch);
            }
            store.live = store.durable.clone();
        }
    }

    /// What is here now, as a copy of its files would be.
    pub fn copy(&self) -> MemoryGenerations {
        let from = self.0.lock();
        let store = |s: &Store| Store { live: s.live.clone(), durable: s.live.clone(), pending: Vec::new() };
        let stores = from.stores.iter().map(|(generation, s)| (*generation, store(s))).collect();
        MemoryGenerations(Arc::new(Mutex::new(Disk { life: 0, current: from.current, stores, fail_syncs: 0 })))
    }

    /// Damages the current store at rest; `false` when there is none.
    pub fn damage(&self, change: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>)) -> bool {
        let mut disk = self.0.lock();
        let current = disk.current;
        let Some(store) = current.and_then(|n| disk.stores.get_mut(&n)) else { return false };
        change(&mut store.durable);
        store.live = store.durable.clone();
        true
    }

    /// Drops the `n`-th pair (modulo their number) of the current store.
    pub fn lose_pair(&self, n: usize) -> bool {
        let mut lost = None;
        self.damage(|pairs| {
            let key = pairs.keys().nth(n % pairs.len().max(1)).cloned();
            lost = key.and_then(|key| pairs.remove(&key));
        });
        lost.is_some()
    }

    /// Loses the note of which store is current, or has it name another.
    pub fn set_current(&self, generation: Option<u64>) {
        self.0.lock().current = generation;
    }

    /// The next `n` syncs fail with EIO.
    pub fn fail_syncs(&self, n: u32) {
        self.0.lock().fail_syncs = n;
    }

    fn handle(&self, generation: u64, life: u64) -> Box<dyn Kv> {
        Box::new(MemoryKv { disk: self.clone(), generation, life })
    }
}

impl Generations for MemoryGenerations {
    fn current(&self) -> io::Result<Option<u64>> {
        Ok(self.0.lock().current)
    }

    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.0.lock().stores.keys().copied().collect())
    }

    fn open(&self, generation: u64) -> io::Result<Box<dyn Kv>> {
        let disk = self.0.lock();
        if !disk.stores.contains_key(&generation) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(self.handle(generation, disk.life))
    }

    fn create(&self, generation: u64) -> io::Result<Box<dyn Kv>> {
        let mut disk = self.0.lock();
        disk.stores.insert(generation, Store::default());
        Ok(self.handle(generation, disk.life))
    }

    fn switch(&self, generation: u64) -> io::Result<()> {
        self.0.lock().current = Some(generation);
        Ok(())
    }

    fn remove(&self, generation: u64) -> io::Result<()> {
        self.0.lock().stores.remove(&generation);
        Ok(())
    }
}

struct MemoryKv {
    disk: MemoryGenerations,
    generation: u64,
    life: u64,
}

impl MemoryKv {
    fn with<T>(&self, f: impl FnOnce(&mut Store) -> T) -> io::Result<T> {
        let mut disk = self.disk.0.lock();
        if disk.life != self.life {
            return Err(io::Error::other("the simulated machine has crashed"));
        }
        disk.stores.get_mut(&self.generation).map(f).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Kv for MemoryKv {
    fn apply(&self, batch: Batch) -> io::Result<()> {
        self.with(|s| {
            apply(&mut s.live, &batch);
            s.pending.push(batch);
        })
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.with(|s| s.live.get(key).cloned())
    }

    fn scan(&self, after: Option<&[u8]>, max_bytes: usize) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.with(|s| {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let (mut out, mut bytes) = (Vec::new(), 0);
            for (k, v) in s.live.range::<[u8], _>((from, Bound::Unbounded)) {
                bytes += k.len() + v.len();
                if bytes > max_bytes && !out.is_empty() {
                    break;
                }
                out.push((k.clone(), v.clone()));
            }
            out
        })
    }

    fn sync(&self) -> io::Result<()> {
        {
            let mut disk = self.disk.0.lock();
            if disk.fail_syncs > 0 {
                disk.fail_syncs -= 1;
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
        }
        self.with(|s| {
            for batch in s.pending.drain(..) {
                apply(&mut s.durable, &batch);
            }
        })
    }

    fn size_on_disk(&self) -> io::Result<u64> {
        self.with(|s| s.live.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum())
    }
}
