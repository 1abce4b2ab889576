//! The log against a disk that crashes, tears, flips, fills and fails, by seed.
//!
//! A model keeps the state after every command. Whatever happens, an opened
//! log must hold exactly the state after some command, not older than the last
//! acknowledged one and not newer than the last one issued.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use triarch_env::{Disk, SimDisk};
use triarch_wal::{Command, Config, Entry, LogId, Wal, WalError};

const DIR: &str = "/wal";

fn config() -> Config {
    Config { segment_bytes: 4096, tail_bytes: 1500, salt: 77, ..Config::default() }
}

#[derive(Clone, Default, PartialEq)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    vote: Option<Bytes>,
    identity: Option<Bytes>,
}

/// Short: entries as index.term.size.
impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for e in self.entries.values() {
            write!(f, "{}.{}.{} ", e.id.index, e.id.term, e.payload.len())?;
        }
        let (p, c) = (self.purged.map(|p| p.index), self.committed.map(|c| c.index));
        write!(f, "purged={p:?} committed={c:?} vote={:?} identity={:?}", self.vote, self.identity)
    }
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.values().last().map(|e| e.id).or(self.purged)
    }

    fn apply(&mut self, command: &Command) {
        match command {
            Command::Append(entries) => self.entries.extend(entries.iter().map(|e| (e.id.index, e.clone()))),
            Command::Vote(b) => self.vote = Some(b.clone()),
            Command::Identity(b) => self.identity = Some(b.clone()),
            Command::Committed(c) => self.committed = *c,
            Command::Truncate(after) => self.entries.retain(|i, _| after.is_some_and(|a| *i <= a)),
            Command::Purge(p) => {
                self.purged = Some(*p);
                self.entries.retain(|i, _| *i > p.index);
            }
        }
    }

    fn of(wal: &Wal) -> Model {
        let s = wal.state();
        let end = s.last.map_or(0, |l| l.index + 1);
        let entries = wal.read(s.first, end).expect("every entry can be read");
        Model {
            entries: entries.into_iter().map(|e| (e.id.index, e)).collect(),
            purged: s.purged,
            committed: s.committed,
            vote: s.vote,
            identity: s.identity,
        }
    }
}

fn command(rng: &mut ChaCha8Rng, m: &Model) -> Command {
    let next = m.last().map_or(0, |l| l.index + 1);
    let low = m.committed.or(m.purged).map_or(0, |c| c.index);
    let pick = |rng: &mut ChaCha8Rng| m.entries.values().nth(rng.random_range(0..m.entries.len())).unwrap().id;
    match rng.random_range(0..20) {
        0 => Command::Vote(vec![rng.random(); rng.random_range(1..40)].into()),
        1 if rng.random_ratio(1, 4) => Command::Identity(vec![rng.random(); 16].into()),
        2..=4 if !m.entries.is_empty() => Command::Committed(Some(pick(rng).max(m.committed.unwrap_or_default()))),
        5 | 6 if !m.entries.is_empty() => Command::Purge(pick(rng)),
        7 if rng.random_ratio(1, 8) => Command::Purge(LogId { index: next + 5, term: 9, node: 1 }),
        8 if next > low => Command::Truncate(Some(rng.random_range(low..next))),
        _ => {
            let n = rng.random_range(1..4);
            let entry = |i| Entry {
                id: LogId { index: next + i, term: rng.random_range(1..9), node: 1 },
                payload: vec![rng.random(); rng.random_range(0..900)].into(),
            };
            Command::Append((0..n).map(entry).collect())
        }
    }
}

fn parts(c: &Command) -> Vec<Command> {
    match c {
        Command::Append(entries) => entries.iter().map(|e| Command::Append(vec![e.clone()])).collect(),
        other => vec![other.clone()],
    }
}

#[derive(Default)]
struct Seen {
    crashes: u64,
    repairs: u64,
    opened: u64,
    io_errors: u64,
    acked: u64,
    /// Recoveries that kept commands nobody had acknowledged.
    beyond: u64,
}

/// Several lives of one replica's log on one disk.
fn lives(seed: u64, seen: &mut Seen) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let disk = SimDisk::new(seed);
    let (mut states, mut acked) = (vec![Model::default()], 0);
    for life in 0..8 {
        let d = disk.restart();
        if rng.random_ratio(3, 4) {
            d.crash_after(rng.random_range(0..60));
        }
        let opened = Wal::open(Arc::new(d.clone()), Path::new(DIR), &config());
        let mut wal = match opened {
            Ok((wal, repair)) => {
                seen.repairs += u64::from(repair.is_some());
                wal
            }
            Err(e @ (WalError::Corrupt { .. } | WalError::Unsupported { .. })) => {
                panic!("seed {seed} life {life}: {e}")
            }
            Err(_) => {
                seen.io_errors += 1;
                continue;
            }
        };
        seen.opened += 1;
        let found = Model::of(&wal);
        // What is committed may run ahead of what was there to recover.
        let at = (acked..states.len()).find(|i| {
            let mut m = states[*i].clone();
            m.committed = m.committed.min(m.last());
            m == found
        });
        let at =
            at.unwrap_or_else(|| panic!("seed {seed} life {life}: {found:#?}\nis none of {:#?}", &states[acked..]));
        seen.beyond += u64::from(at > acked);
        (states, acked) = (vec![found], 0);

        match rng.random_range(0..12) {
            0 => d.fail_syncs(1),
            1 => d.fail_writes(1),
            2 => d.set_capacity(d.used() + rng.random_range(0..9000)),
            _ => {}
        }
        for _ in 0..rng.random_range(0..40) {
            let mut group = Vec::new();
            for _ in 0..rng.random_range(1..4) {
                let mut next = states.last().unwrap().clone();
                let c = command(&mut rng, &next);
                // A crash may leave a beginning of an append.
                for part in parts(&c) {
                    next.apply(&part);
                    states.push(next.clone());
                }
                group.push(c);
            }
            let synced = group.iter().any(|c| !matches!(c, Command::Committed(_) | Command::Purge(_)));
            match wal.run(group) {
                Ok(()) if synced => {
                    acked = states.len() - 1;
                    seen.acked += 1;
                }
                Ok(()) => {}
                Err(e @ (WalError::NotNext { .. } | WalError::Corrupt { .. })) => panic!("seed {seed}: {e}"),
                Err(_) => {
                    seen.io_errors += 1;
                    break;
                }
            }
            if rng.random_ratio(1, 3) && wal.idle().is_err() {
                break;
            }
            if rng.random_ratio(1, 8) && !d.crashed() {
                assert_eq!(Model::of(&wal), *states.last().unwrap(), "seed {seed}");
            }
        }
        drop(wal);
        d.fail_syncs(0);
        d.fail_writes(0);
        d.set_capacity(u64::MAX);
        // Sometimes only the process dies, and the page cache lives on.
        if !d.crashed() && rng.random_ratio(2, 3) {
            d.crash();
        }
        seen.crashes = disk.injected().crashes;
    }
}

#[test]
fn no_crash_loses_what_was_acknowledged_or_shows_what_was_not_written() {
    let mut total = Seen::default();
    for seed in 0..3000 {
        let mut seen = Seen::default();
        lives(seed, &mut seen);
        total.crashes += seen.crashes;
        total.repairs += seen.repairs;
        total.opened += seen.opened;
        total.io_errors += seen.io_errors;
        total.acked += seen.acked;
        total.beyond += seen.beyond;
    }
    println!(
        "opened={} acked={} crashes={} repairs={} io_errors={} beyond={}",
        total.opened, total.acked, total.crashes, total.repairs, total.io_errors, total.beyond
    );
    assert!(total.repairs > 500 && total.io_errors > 500 && total.acked > 50_000 && total.beyond > 500);
}

#[test]
fn a_full_disk_is_said_to_be_full_and_loses_nothing_that_was_acknowledged() {
    let disk = SimDisk::new(5);
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), Path::new(DIR), &config()).unwrap();
    disk.set_capacity(10_000);
    let mut acked = 0;
    let error = loop {
        let id = LogId { index: acked, term: 1, node: 1 };
        match wal.run(vec![Command::Append(vec![Entry { id, payload: vec![7; 500].into() }])]) {
            Ok(()) => acked += 1,
            Err(e) => break e,
        }
    };
    assert!(error.is_full() && error.to_string().contains("free space or grow the volume"), "{error}");
    drop(wal);
    let opened = Wal::open(Arc::new(disk.restart()), Path::new(DIR), &config());
    let (wal, _) = opened.expect("a log on a full disk still opens");
    assert!(wal.read(0, 1000).unwrap().len() as u64 >= acked);
}

#[test]
fn purging_deletes_segments_and_keeps_votes_and_identity() {
    let disk = SimDisk::new(0);
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), Path::new(DIR), &config()).unwrap();
    wal.run(vec![Command::Vote(b"v".as_slice().into()), Command::Identity(b"i".as_slice().into())]).unwrap();
    for index in 0..200 {
        let id = LogId { index, term: 1, node: 1 };
        wal.run(vec![Command::Append(vec![Entry { id, payload: vec![7; 500].into() }])]).unwrap();
        if index % 10 == 9 {
            wal.run(vec![Command::Purge(LogId { index: index - 5, term: 1, node: 1 })]).unwrap();
        }
    }
    let files = disk.list(Path::new(DIR)).unwrap();
    assert!(files.len() <= 3, "{files:?}");
    let before = Model::of(&wal);
    drop(wal);
    disk.crash();
    let (wal, _) = Wal::open(Arc::new(disk.restart()), Path::new(DIR), &config()).unwrap();
    assert_eq!(Model::of(&wal), before);
    assert_eq!(wal.state().vote.as_deref(), Some(b"v".as_slice()));
    assert_eq!(wal.state().first, 195);
}
