//! The node's own record of what it was assigned.
//!
//! A file of records, `length, CRC32C, kind, message`, appended for each delta
//! and rewritten (new file, fsync, rename) for each complete set and when it has
//! grown to several times its content. An agent boots its pods and services
//! from it with no replica answering. A record that does not check ends the
//! reading: what is before it counts, and the file is cut there. A ledger that
//! cannot be written is said and lived without: the node goes on.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use triarch_rpc::node::{Assign, Delta, Item, ItemKey, Welcome};

use crate::session::assignment::{Assignment, Change, Key};

const MAGIC: &[u8; 8] = b"trled\x00\x00\x01";
const MAX_RECORD: usize = 16 << 20;
/// A complete set is written in records of about this many bytes.
const CHUNK: usize = 1 << 20;
/// Rewritten when it is larger than this and four times its last rewrite.
const SMALL: u64 = 1 << 20;

const SET: u8 = 1;
const DELTA: u8 = 2;
const WELCOME: u8 = 3;

/// What the ledger held when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub term: u64,
    pub revision: u64,
    pub items: Vec<(Key, Bytes)>,
    pub welcome: Option<Welcome>,
}

#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    rewritten: u64,
    dirty: bool,
    restored: Restored,
}

impl Ledger {
    /// Opens or makes the ledger in `dir`.
    pub fn open(dir: &Path) -> std::io::Result<Ledger> {
        let path = dir.join("ledger");
        let mut restored = Restored::default();
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let good = match bytes.starts_with(MAGIC) {
            true => read(&bytes, &mut restored),
            false => 0,
        };
        if good == 0 {
            if !bytes.is_empty() {
                tracing::warn!(path = %path.display(), "the ledger is not one of this version; starting without it");
            }
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(MAGIC)?;
        } else {
            if good < bytes.len() {
                tracing::warn!(path = %path.display(), offset = good, "the ledger's tail does not check and is cut off");
                file.set_len(good as u64)?;
            }
            file.seek(SeekFrom::Start(good as u64))?;
        }
        let size = good.max(MAGIC.len()) as u64;
        Ok(Ledger { path, file: Some(file), size, rewritten: size, dirty: false, restored })
    }

    /// What it held; empty the second time.
    pub fn take(&mut self) -> Restored {
        std::mem::take(&mut self.restored)
    }

    /// The file to sync, when something was written since.
    pub fn dirty_file(&mut self) -> Option<File> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        self.file.as_ref().and_then(|f| f.try_clone().ok())
    }

    pub fn welcome(&mut self, w: &Welcome) {
        self.write(WELCOME, &w.encode_to_vec());
    }

    /// Notes a delta that `assignment` has taken.
    pub fn append(&mut self, assignment: &Assignment, change: &Change, welcome: Option<&Welcome>) {
        let delta = Delta {
            term: assignment.term,
            revision: assignment.revision,
            upserts: change.upserts.iter().map(|(k, json)| item(k, json)).collect(),
            removals: change.removals.iter().map(ItemKey::from).collect(),
        };
        self.write(DELTA, &delta.encode_to_vec());
        if self.file.is_none() || self.size > SMALL && self.size > self.rewritten * 4 {
            self.rewrite(assignment, welcome);
        }
    }

    /// Writes the whole assignment anew.
    pub fn rewrite(&mut self, assignment: &Assignment, welcome: Option<&Welcome>) {
        if let Err(e) = self.try_rewrite(assignment, welcome) {
            tracing::warn!(path = %self.path.display(), error = %e, "the ledger could not be rewritten; the node goes on with the old one");
        }
    }

    fn try_rewrite(&mut self, assignment: &Assignment, welcome: Option<&Welcome>) -> std::io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&fresh)?;
        let mut size = MAGIC.len() as u64;
        file.write_all(MAGIC)?;
        let mut part = Assign { term: assignment.term, revision: assignment.revision, ..Default::default() };
        let mut bytes = 0;
        for (key, json) in assignment.items() {
            bytes += json.len() + 128;
            part.items.push(item(key, json));
            if bytes >= CHUNK {
                size += record(&mut file, SET, &part.encode_to_vec())?;
                part.items.clear();
                bytes = 0;
            }
        }
        part.last = true;
        size += record(&mut file, SET, &part.encode_to_vec())?;
        if let Some(w) = welcome {
            size += record(&mut file, WELCOME, &w.encode_to_vec())?;
        }
        file.sync_data()?;
        std::fs::rename(&fresh, &self.path)?;
        if let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        (self.file, self.size, self.rewritten, self.dirty) = (Some(file), size, size, false);
        Ok(())
    }

    fn write(&mut self, kind: u8, body: &[u8]) {
        let Some(file) = &mut self.file else { return };
        match record(file, kind, body) {
            Ok(n) => {
                self.size += n;
                self.dirty = true;
            }
            Err(e) => {
                tracing::warn!(path = %self.path.display(), error = %e, "the ledger could not be written");
                // A half-written record would hide all that follow it.
                self.file = None;
            }
        }
    }
}

fn item(key: &Key, json: &Bytes) -> Item {
    Item { key: Some(key.into()), revision: 0, json: json.clone() }
}

fn record(file: &mut File, kind: u8, body: &[u8]) -> std::io::Result<u64> {
    if body.len() >= MAX_RECORD {
        return Err(std::io::Error::other("an assignment record is too large"));
    }
    let mut out = Vec::with_capacity(body.len() + 9);
    out.extend_from_slice(&(body.len() as u32 + 1).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    file.write_all(&out)?;
    Ok(out.len() as u64)
}

/// Takes every good record in; returns where the good part ends (0: nothing is).
fn read(bytes: &[u8], out: &mut Restored) -> usize {
    let mut items = std::collections::BTreeMap::new();
    let mut building = std::collections::BTreeMap::new();
    let mut at = MAGIC.len();
    while let Some(header) = bytes.get(at..at + 8) {
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let crc = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let Some(body) = bytes.get(at + 8..at + 8 + len).filter(|b| !b.is_empty() && len <= MAX_RECORD) else { break };
        if crc32c::crc32c(body) != crc {
            break;
        }
        let message = &body[1..];
        match body[0] {
            SET => {
                let Ok(part) = Assign::decode(message) else { break };
                building.extend(part.items.into_iter().filter_map(|i| Some((Key::from(i.key?), i.json))));
                if part.last {
                    items = std::mem::take(&mut building);
                    (out.term, out.revision) = (part.term, part.revision);
                }
            }
            DELTA => {
                let Ok(delta) = Delta::decode(message) else { break };
                delta.removals.into_iter().map(Key::from).for_each(|k| drop(items.remove(&k)));
                items.extend(delta.upserts.into_iter().filter_map(|i| Some((Key::from(i.key?), i.json))));
                (out.term, out.revision) = (delta.term, delta.revision);
            }
            WELCOME => {
                let Ok(w) = Welcome::decode(message) else { break };
                out.welcome = Some(w);
            }
            _ => break,
        }
        at += 8 + len;
    }
    out.items = items.into_iter().collect();
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { resource: "pods".into(), namespace: "d".into(), name: name.into() }
    }

    fn assigned(l: &mut Ledger) -> Assignment {
        let mut a = Assignment::new(true);
        let items = ["a", "b"].iter().map(|n| item(&key(n), &Bytes::from_static(b"{}"))).collect();
        a.assign(Assign { term: 3, revision: 7, items, last: true }).expect("taken");
        l.rewrite(&a, Some(&Welcome { servers: vec!["https://x".into()], ..Default::default() }));
        a
    }

    fn names(r: &Restored) -> Vec<&str> {
        r.items.iter().map(|(k, _)| k.name.as_str()).collect()
    }

    #[test]
    fn what_was_assigned_is_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut l = Ledger::open(dir.path()).expect("opens");
        assert_eq!(l.take().revision, 0);
        let mut a = assigned(&mut l);
        let delta = Delta {
            term: 3,
            revision: 8,
            upserts: vec![item(&key("c"), &Bytes::from_static(b"{\"x\":1}"))],
            removals: vec![(&key("a")).into()],
        };
        let change = a.delta(delta).expect("taken");
        l.append(&a, &change, None);
        drop(l);
        let r = Ledger::open(dir.path()).expect("opens").take();
        assert_eq!((r.term, r.revision, names(&r)), (3, 8, vec!["b", "c"]));
        assert_eq!(r.welcome.expect("kept").servers, ["https://x"]);
    }

    #[test]
    fn a_torn_or_flipped_tail_is_cut_and_the_rest_counts() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut l = Ledger::open(dir.path()).expect("opens");
        let mut a = assigned(&mut l);
        let whole = std::fs::metadata(dir.path().join("ledger")).expect("there").len();
        let delta = Delta {
            term: 3,
            revision: 9,
            upserts: vec![item(&key("c"), &Bytes::from_static(b"{}"))],
            removals: vec![],
        };
        let change = a.delta(delta).expect("taken");
        l.append(&a, &change, None);
        drop(l);
        let path = dir.path().join("ledger");
        let good = std::fs::read(&path).expect("reads");
        for cut in whole as usize + 1..good.len() {
            std::fs::write(&path, &good[..cut]).expect("writes");
            let r = Ledger::open(dir.path()).expect("opens").take();
            assert_eq!((r.revision, names(&r)), (7, vec!["a", "b"]), "cut at {cut}");
        }
        let mut flipped = good.clone();
        flipped[whole as usize + 12] ^= 1;
        std::fs::write(&path, &flipped).expect("writes");
        assert_eq!(Ledger::open(dir.path()).expect("opens").take().revision, 7);
        std::fs::write(&path, b"something else").expect("writes");
        assert_eq!(Ledger::open(dir.path()).expect("opens").take().items.len(), 0);
    }
}
