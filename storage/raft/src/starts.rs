//! The starts of replicas are numbered, so that an old copy of a data directory
//! is noticed: it names a number that was used before.
//!
//! ```text
//!   STARTS    this replica's own number, and the highest that each other one has named
//! ```
//! Before a replica takes part (votes, acknowledges, asks for votes) it names
//! its number to the others, and waits until so many have noted it that with
//! itself they are a majority. Who has noted that number or a higher one for it
//! refuses; so does a leader that has heard of more of the log from it than it
//! has now. What it acknowledged since the copy was made is forgotten there, so
//! that with another failure an acknowledged write would be lost.
//!
//! Limit: an old copy is noticed by those who were told of a later start, or who
//! have led since. When none of them answers, and a majority does without them,
//! it is not.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use triarch_env::Disk;
use triarch_mutants::mutant;
use triarch_mvcc::levels::{FIRST, TooOld, fits};

use crate::codec;
use crate::shared::Shared;
use crate::transport::{Call, Lane, Peer, PeerError, PeerStream, PeerTransport, SharedTransport};
use crate::types::NodeId;
use crate::wire::{Introduced, Introduction};

/// The name of the file in the data directory.
pub const FILE: &str = "STARTS";
/// What the file begins with: its name, and the newest format that this release reads and writes.
const MAGIC: &[u8; 4] = b"TrSt";
const FORMAT: u8 = 1;
/// Between two attempts to reach one of the others.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Replicas whose starts are noted, at most; ids are never used again, and few are ever given.
const MAX_NOTED: usize = 10_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    own: u64,
    /// The number, and the life that named it.
    seen: BTreeMap<NodeId, (u64, u64)>,
}

/// What is noted, in memory and on disk. Clones share it.
#[derive(Clone)]
pub struct Starts(Arc<Inner>);

struct Inner {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    noted: Mutex<Noted>,
}

impl Noted {
    /// Magic, format, a checksum of what follows it, and the record.
    fn to_bytes(&self) -> Vec<u8> {
        let body = codec::encode(self);
        [&MAGIC[..], &[FORMAT], &crc32c::crc32c(&body).to_le_bytes(), &body].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Noted, String> {
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or("it is too short")?;
        let (format, rest) = rest.split_first().ok_or("it is too short")?;
        let (sum, body) = rest.split_first_chunk::<4>().ok_or("it is too short")?;
        match (magic, *format) {
            (MAGIC, FORMAT) => {}
            (MAGIC, format) => return Err(format!("it has format {format}, this release reads {FORMAT}")),
            _ => return Err("it is no record of starts".into()),
        }
        if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
            return Err("its checksum is wrong".into());
        }
        codec::decode("starts", body).map_err(|e| e.to_string())
    }

    /// Whether replica `id` may take part with `start`; else the number that was
    /// noted. Who asks again is told the same again.
    fn admits(&self, id: NodeId, start: (u64, u64)) -> Result<(), u64> {
        match self.seen.get(&id) {
            Some(known) if known.0 >= start.0 && *known != start => Err(known.0),
            _ => Ok(()),
        }
    }
}

impl Starts {
    /// Reads what is noted in `dir` and counts this start, durably. Blocks on
    /// the disk. A file that is damaged is an error; one that is missing is
    /// that of a replica that never started.
    pub fn count(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Starts> {
        let path = dir.join(FILE);
        let mut noted = match disk.read(&path) {
            Ok(bytes) => Noted::from_bytes(&bytes).map_err(|why| {
                let out = "remove this replica, empty its data directory and join it again";
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}; {out}", path.display()))
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Noted::default(),
            Err(e) => return Err(e),
        };
        noted.own += 1;
        disk.write_atomic(&path, &noted.to_bytes())?;
        Ok(Starts(Arc::new(Inner { disk, path, noted: Mutex::new(noted) })))
    }

    /// The number of this start, from 1.
    pub fn own(&self) -> u64 {
        self.0.noted.lock().own
    }

    /// The highest number that replica `id` has named here; 0: none.
    pub fn seen(&self, id: NodeId) -> u64 {
        self.0.noted.lock().seen.get(&id).map_or(0, |known| known.0)
    }

    /// Notes a start of replica `id`, durably; `Ok(Err(known))` when another of
    /// that number or a later one was noted before. Blocks on the disk.
    fn note(&self, id: NodeId, start: (u64, u64)) -> io::Result<Result<(), u64>> {
        // Held while the disk writes: one after another, on a thread that may block.
        let mut noted = self.0.noted.lock();
        if let Err(known) = noted.admits(id, start)
            && !mutant("old-start-accepted")
        {
            return Ok(Err(known));
        }
        if noted.seen.get(&id) == Some(&start) {
            return Ok(Ok(()));
        }
        let mut next = noted.clone();
        next.seen.insert(id, start);
        if next.seen.len() > MAX_NOTED {
            next.seen.pop_first();
        }
        self.0.disk.write_atomic(&self.0.path, &next.to_bytes())?;
        *noted = next;
        Ok(Ok(()))
    }
}

/// Closed until this replica may take part.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: AtomicBool,
    opened: Notify,
}

impl Gate {
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) || mutant("takes-part-unintroduced")
    }

    fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.opened.notify_waiters();
    }

    async fn wait(&self) {
        let opened = self.opened.notified();
        let mut opened = std::pin::pin!(opened);
        opened.as_mut().enable();
        if !self.is_open() {
            opened.await;
        }
    }
}

/// Calls that say nothing in Raft's name.
pub(crate) fn harmless(call: Call) -> bool {
    matches!(call, Call::Introduce | Call::Status)
}

/// A transport that waits at the gate.
pub(crate) struct Gated {
    pub gate: Arc<Gate>,
    pub inner: SharedTransport,
}

#[async_trait]
impl PeerTransport for Gated {
    async fn call(&self, peer: &Peer, call: Call, body: Bytes) -> Result<Bytes, PeerError> {
        if !harmless(call) {
            self.gate.wait().await;
        }
        self.inner.call(peer, call, body).await
    }

    async fn open(&self, peer: &Peer, lane: Lane) -> Result<PeerStream, PeerError> {
        self.gate.wait().await;
        self.inner.open(peer, lane).await
    }
}

/// Names this start to one of the others until it has answered. `None`: it turned
/// out to be a member no more, as far as one knows who has caught up.
async fn tell(shared: &Shared, peer: &Peer, introduction: &Introduction) -> Option<Introduced> {
    let body = codec::encode(introduction);
    let mut pause = RETRY_MIN;
    loop {
        let call = shared.transport.call(peer, Call::Introduce, body.clone());
        match shared.env.timeout(shared.config.timers.call, call).await {
            Ok(Ok(answer)) => match codec::decode("an answer to an introduction", &answer) {
                Ok(introduced) => return Some(introduced),
                Err(e) => tracing::warn!(peer = peer.id, error = %e, "cannot read a peer's answer; asking again"),
            },
            Ok(Err(e)) => tracing::debug!(peer = peer.id, error = %e, "not introduced yet"),
            Err(_) => {}
        }
        shared.env.sleep(pause).await;
        if shared.is_ready() && shared.replica(peer.id).is_none() {
            return None;
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Introduces this replica to `others` and opens the gate; stops it when one of
/// them knows better. `last` is the last entry that it holds now.
pub(crate) async fn introduce(
    shared: Arc<Shared>,
    starts: Starts,
    last: impl Fn() -> Option<u64> + Send + 'static,
    others: Vec<Peer>,
) {
    // With itself a majority.
    let mut missing = others.len().div_ceil(2);
    // What was never here before cannot be an old copy.
    if missing == 0 || shared.config.new_log {
        shared.gate.open();
    }
    let supports = shared.config.supports;
    let introduction = Introduction { start: starts.own(), life: shared.life, last: last(), supports };
    let mut told: FuturesUnordered<_> =
        others.iter().map(|peer| async { (peer.id, tell(&shared, peer, &introduction).await) }).collect();
    while let Some((peer, answer)) = told.next().await {
        let Some(answer) = answer else { continue };
        let why = match answer {
            Introduced::Known(known) => {
                format!("this is its start number {}, and {known} is known", introduction.start)
            }
            Introduced::TooOld(level) => {
                let why = TooOld { level, supports };
                tracing::error!(peer, %why, "this release is too old");
                return shared.refuse(why.to_string());
            }
            // It may have been acknowledged since this was asked.
            Introduced::Acknowledged(entry) if last() < Some(entry) => {
                format!("it acknowledged entry {entry}, and the log ends at {}", last().unwrap_or(0))
            }
            Introduced::Welcome | Introduced::Acknowledged(_) => {
                missing = missing.saturating_sub(1);
                if missing == 0 {
                    shared.gate.open();
                }
                continue;
            }
        };
        tracing::error!(peer, why, "this data directory is out of date");
        return shared.refuse(format!(
            "this data directory is older than the one that replica {} last ran with ({why}): it forgot what it \
             acknowledged since; remove the replica from the cluster, empty its data directory and join again",
            shared.id()
        ));
    }
}

/// The answer to replica `from`, which comes with `introduction`; `led` is how
/// far this replica, as the leader, knows it to have the log; `level` is the
/// feature level here.
pub(crate) fn answer(
    starts: &Starts,
    from: NodeId,
    introduction: &Introduction,
    led: Option<u64>,
    level: u64,
) -> io::Result<Introduced> {
    // Nothing is noted: with a newer release it comes back as who it is.
    if fits(level, introduction.supports.max(FIRST)).is_err() {
        return Ok(Introduced::TooOld(level));
    }
    if let Some(led) = led.filter(|led| introduction.last.is_none_or(|last| last < *led))
        && !mutant("old-start-accepted")
    {
        return Ok(Introduced::Acknowledged(led));
    }
    Ok(match starts.note(from, (introduction.start, introduction.life))? {
        Ok(()) => Introduced::Welcome,
        Err(known) => Introduced::Known(known),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use triarch_env::SimDisk;

    fn introduction(start: u64, life: u64, last: Option<u64>) -> Introduction {
        Introduction { start, life, last, supports: FIRST }
    }

    #[test]
    fn a_start_that_was_named_before_is_refused_also_after_the_witness_restarted() {
        let disk = SimDisk::new(1);
        let starts = Starts::count(Arc::new(disk.clone()), Path::new("/")).unwrap();
        assert_eq!((starts.own(), starts.seen(2)), (1, 0));
        let said =
            |starts: &Starts, start, life| answer(starts, 2, &introduction(start, life, Some(9)), None, FIRST).unwrap();
        assert_eq!(said(&starts, 7, 70), Introduced::Welcome);
        assert_eq!(said(&starts, 7, 70), Introduced::Welcome, "its answer was lost, and it asks again");
        assert_eq!(said(&starts, 7, 71), Introduced::Known(7));
        disk.crash();
        let starts = Starts::count(Arc::new(disk.restart()), Path::new("/")).unwrap();
        assert_eq!((starts.own(), starts.seen(2)), (2, 7));
        assert_eq!(said(&starts, 6, 72), Introduced::Known(7));
        assert_eq!(said(&starts, 7, 70), Introduced::Welcome);
        assert_eq!(said(&starts, 8, 73), Introduced::Welcome);
        assert_eq!(
            answer(&starts, 3, &introduction(1, 1, None), None, FIRST).unwrap(),
            Introduced::Welcome,
            "another replica"
        );
    }

    #[test]
    fn a_leader_refuses_who_has_less_of_the_log_than_it_acknowledged() {
        let starts = Starts::count(Arc::new(SimDisk::new(1)), Path::new("/")).unwrap();
        let said = |start, last, led| answer(&starts, 2, &introduction(start, 1, last), led, FIRST).unwrap();
        assert_eq!(said(1, Some(41), Some(42)), Introduced::Acknowledged(42));
        assert_eq!(said(1, None, Some(42)), Introduced::Acknowledged(42));
        assert_eq!(said(1, Some(42), Some(42)), Introduced::Welcome);
    }

    #[test]
    fn a_release_that_is_too_old_is_told_so_and_its_start_is_not_noted() {
        let starts = Starts::count(Arc::new(SimDisk::new(1)), Path::new("/")).unwrap();
        let said = |start, life, supports, level| {
            let introduction = Introduction { supports, ..introduction(start, life, None) };
            answer(&starts, 2, &introduction, None, level).unwrap()
        };
        assert_eq!(said(1, 1, 2, 3), Introduced::TooOld(3));
        assert_eq!(said(1, 2, 0, 2), Introduced::TooOld(2), "who does not say is of the first level");
        assert_eq!(starts.seen(2), 0);
        assert_eq!(said(1, 3, 0, 1), Introduced::Welcome);
        assert_eq!(said(2, 4, 3, 3), Introduced::Welcome);
    }

    #[test]
    fn the_bytes_of_a_known_record_are_known() {
        let noted = Noted { own: 3, seen: BTreeMap::from([(2, (7, 70))]) };
        let bytes = noted.to_bytes();
        assert_eq!(&bytes[..5], b"TrSt\x01");
        assert_eq!(&bytes[9..], [3, 1, 2, 7, 70]);
        assert_eq!(Noted::from_bytes(&bytes), Ok(noted));
        let later = [b"TrSt\x02", &bytes[5..]].concat();
        assert_eq!(Noted::from_bytes(&later), Err("it has format 2, this release reads 1".into()));
    }

    #[test]
    fn a_damaged_file_is_refused_by_name_with_the_way_out() {
        let disk = SimDisk::new(1);
        Starts::count(Arc::new(disk.clone()), Path::new("/")).unwrap();
        let length = disk.read(Path::new("/STARTS")).unwrap().len() as u64;
        for offset in 0..length {
            assert!(disk.flip(Path::new("/STARTS"), offset, 3));
            let Err(e) = Starts::count(Arc::new(disk.clone()), Path::new("/")) else { panic!("byte {offset}") };
            assert!(e.to_string().contains("STARTS") && e.to_string().contains("join it again"), "{e}");
            assert!(disk.flip(Path::new("/STARTS"), offset, 3));
        }
        assert_eq!(Starts::count(Arc::new(disk.clone()), Path::new("/")).unwrap().own(), 2);
    }
}
