//! Damage at rest: whatever happens to the files of a log that nobody has
//! open, it opens to exactly what was acknowledged, or is refused by file and
//! offset with the way out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use triarch_env::SimDisk;
use triarch_env::disk::damage::{Damage, Image, cuts, flips, lost_sectors};
use triarch_wal::{Command, Config, Entry, LogId, State, Wal, WalError};

const DIR: &str = "/wal";

fn file(id: u32) -> PathBuf {
    Path::new(DIR).join(format!("{id:08}.wal"))
}

/// A log's content; all of it was acknowledged.
type Content = (State, Vec<Entry>);

fn open(image: &Image) -> Result<Content, WalError> {
    let (wal, _) = Wal::open(Arc::new(SimDisk::holding(1, image)), Path::new(DIR), &config(1))?;
    Ok(content(&wal))
}

fn content(wal: &Wal) -> Content {
    let s = wal.state();
    // Kept in memory or not is no part of what a log holds.
    (State { tail_bytes: 0, ..s.clone() }, wal.read(s.first, s.last.map_or(0, |l| l.index + 1)).expect("readable"))
}

fn config(salt: u64) -> Config {
    Config { segment_bytes: 4096, tail_bytes: 1500, salt, ..Config::default() }
}

/// How a log came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// It was idle: a witness of the last sync stands behind the records.
    Idle,
    /// The machine stopped right behind the last sync.
    Stopped,
}

/// Three segments, with payloads of `byte`.
fn log(salt: u64, rest: Rest, byte: u8) -> (Image, Content) {
    let disk = SimDisk::new(salt);
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), Path::new(DIR), &config(salt)).unwrap();
    wal.run(vec![Command::Identity(salt.to_be_bytes().to_vec().into()), Command::Vote(b"v".as_slice().into())])
        .unwrap();
    for index in 0..16u64 {
        let id = LogId { index, term: 3, node: 2 };
        let payload: Bytes = vec![byte; 500 + 20 * (index as usize % 5)].into();
        wal.run(vec![Command::Append(vec![Entry { id, payload }]), Command::Committed(Some(id))]).unwrap();
    }
    wal.run(vec![Command::Vote(b"w".as_slice().into())]).unwrap();
    let id = |index| LogId { index, term: 4, node: 1 };
    let entry = |index| Entry { id: id(index), payload: vec![byte; 130].into() };
    wal.run(vec![Command::Append((16..19).map(entry).collect())]).unwrap();
    if rest == Rest::Idle {
        wal.idle().unwrap();
    }
    let content = content(&wal);
    drop(wal);
    if rest == Rest::Stopped {
        disk.crash();
    }
    let image = disk.restart().image();
    assert!(image.len() >= 3 && image.contains_key(&file(3)), "{:?}", image.keys());
    (image, content)
}

#[derive(Default)]
struct Seen {
    exact: u32,
    refused: BTreeMap<&'static str, u32>,
}

impl Seen {
    /// Opens the damaged log and judges what comes of it.
    fn judge(&mut self, path: &Path, damage: &Damage, image: &Image, want: &Content) {
        let row = format!("{} {damage:?}", path.display());
        let damaged = damage.done_to(path, image);
        match open(&damaged) {
            Ok(found) => {
                assert!(found == *want, "{row}: opened to {:?}", found.0);
                self.exact += 1;
            }
            Err(e) => {
                let (kind, named) = match &e {
                    WalError::Corrupt { file, .. } => ("corrupt", file),
                    WalError::Unsupported { file, .. } => ("unsupported", file),
                    other => panic!("{row}: {other}"),
                };
                let text = e.to_string();
                let known = image.keys().chain(damaged.keys()).any(|p| p.ends_with(named));
                assert!(known && text.contains("byte "), "{row}: {text}");
                assert!(text.contains("join it again") || text.contains("run the version"), "{row}: {text}");
                *self.refused.entry(kind).or_default() += 1;
            }
        }
    }

    fn all(&mut self, path: &Path, damages: impl IntoIterator<Item = Damage>, image: &Image, want: &Content) {
        damages.into_iter().for_each(|d| self.judge(path, &d, image, want));
    }
}

#[test]
fn every_flipped_byte_is_refused_or_costs_nothing() {
    for rest in [Rest::Idle, Rest::Stopped] {
        let (image, want) = log(7, rest, 0x61);
        let mut seen = Seen::default();
        for (path, bytes) in &image {
            seen.all(path, flips(bytes.len()), &image, &want);
        }
        println!("{rest:?}: exact={} refused={:?}", seen.exact, seen.refused);
        assert!(seen.exact > 500 && seen.refused["corrupt"] > 10_000);
    }
}

#[test]
fn a_payload_of_zeros_is_no_cover_for_damage() {
    let (image, want) = log(7, Rest::Stopped, 0);
    let mut seen = Seen::default();
    let (last, bytes) = image.last_key_value().unwrap();
    seen.all(last, flips(bytes.len()), &image, &want);
    assert!(seen.exact > 500 && seen.refused["corrupt"] > 1000, "{} {:?}", seen.exact, seen.refused);
}

#[test]
fn a_segment_cut_at_any_length_is_refused_or_costs_nothing() {
    for rest in [Rest::Idle, Rest::Stopped] {
        let (image, want) = log(7, rest, 0x61);
        let mut seen = Seen::default();
        for (path, bytes) in &image {
            seen.all(path, cuts(bytes.len()), &image, &want);
        }
        println!("{rest:?}: exact={} refused={:?}", seen.exact, seen.refused);
        assert!(seen.refused["corrupt"] > 10_000);
    }
}

/// The one damage that a torn write looks like: a whole sector of the last
/// group, which nothing behind it witnesses. An idle log has that witness.
#[test]
fn a_lost_sector_of_an_idle_log_is_refused_or_costs_nothing() {
    let (image, want) = log(7, Rest::Idle, 0x61);
    let mut seen = Seen::default();
    for (path, bytes) in &image {
        let used = bytes.iter().rposition(|b| *b != 0).unwrap();
        // The witness's own sector takes the witness along.
        seen.all(path, lost_sectors((used - 40) / 512 * 512), &image, &want);
    }
    assert!(seen.refused["corrupt"] > 15, "{:?}", seen.refused);
}

#[test]
fn segments_that_are_missing_swapped_copied_or_foreign_are_refused_or_cost_nothing() {
    let (image, want) = log(7, Rest::Stopped, 0x61);
    // Another replica's, with the same history: same numbers, same indices.
    let (other, _) = log(8, Rest::Stopped, 0x61);
    let mut seen = Seen::default();
    for id in 1..=3u32 {
        let path = file(id);
        let mut rows = vec![
            Damage::Missing,
            Damage::ReplacedBy("another replica's", other[&path].clone()),
            Damage::ReplacedBy("text", b"hello".to_vec()),
            Damage::ReplacedBy("zeros", vec![0; 4096]),
            Damage::CopiedTo(file(4)),
            Damage::CopiedTo(Path::new(DIR).join("3.wal")),
            Damage::CopiedTo(Path::new(DIR).join("00000004.wal.tmp")),
            Damage::CopiedTo(Path::new(DIR).join("notes.txt")),
        ];
        rows.extend((1..=3).filter(|n| *n != id).map(|n| Damage::SwappedWith(file(n))));
        rows.extend((1..=3).filter(|n| *n != id).map(|n| Damage::CopiedTo(file(n))));
        rows.extend((1..=3).map(|n| Damage::ReplacedBy("a segment of another", other[&file(n)].clone())));
        seen.all(&path, rows, &image, &want);
    }
    println!("exact={} refused={:?}", seen.exact, seen.refused);
    assert_eq!(seen.exact, 9, "only what is no segment costs nothing");
}

#[test]
fn the_first_segment_of_a_purged_log_is_missed_by_its_own_name() {
    let (image, _) = log(7, Rest::Idle, 0x61);
    let disk = SimDisk::holding(1, &image);
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), Path::new(DIR), &config(1)).unwrap();
    // Into the second segment: the first is removed.
    wal.run(vec![Command::Purge(wal.read(8, 9).unwrap()[0].id)]).unwrap();
    wal.idle().unwrap();
    drop(wal);
    let image = disk.image();
    assert!(!image.contains_key(&file(1)) && image.contains_key(&file(2)), "{:?}", image.keys());
    let found = open(&Damage::Missing.done_to(&file(2), &image));
    assert!(matches!(&found, Err(WalError::Corrupt { file, .. }) if file == "00000002.wal"), "{found:?}");
}

#[test]
fn a_log_that_is_gone_is_refused_and_nothing_is_made_in_its_place() {
    let (image, want) = log(7, Rest::Idle, 0x61);
    let disk = SimDisk::new(1);
    let config = Config { begins: false, ..config(1) };
    let gone = Wal::open(Arc::new(disk.clone()), Path::new(DIR), &config).map(|_| ());
    assert!(gone.as_ref().is_err_and(|e| e.to_string().contains("/wal holds no segment")), "{gone:?}");
    assert_eq!(disk.image(), Image::new());
    // Put back, it is what it was.
    let disk = SimDisk::holding(1, &image);
    assert_eq!(content(&Wal::open(Arc::new(disk), Path::new(DIR), &config).unwrap().0), want);
}

#[test]
fn a_segment_or_record_of_a_later_version_is_refused_by_name() {
    let (image, want) = log(7, Rest::Stopped, 0x61);
    let mut later = image[&file(3)].clone();
    later[8] = 9;
    let crc = crc32c::crc32c(&later[..60]);
    later[60..64].copy_from_slice(&crc.to_le_bytes());
    let mut seen = Seen::default();
    seen.judge(&file(3), &Damage::ReplacedBy("a later version's", later), &image, &want);
    assert_eq!(seen.refused, BTreeMap::from([("unsupported", 1)]));
}
