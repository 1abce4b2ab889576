//! Damage to a data directory as an operator meets it: exit code 4, the file,
//! and the way out; and what is whole starts.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use triarch_env::disk::damage::{Damage, Image, read_tree, write_tree};

const BIN: &str = env!("CARGO_BIN_EXE_triarch");

/// A running replica; killed when dropped.
struct Replica(Child);

impl Drop for Replica {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn server(dir: &Path, more: &[&str]) -> Command {
    let port = || format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
    let mut c = Command::new(BIN);
    c.args(["server", "--name", "a", "--listen", &port(), "--peer-listen", &port(), "--data-dir"]);
    c.arg(dir).args(more).stdin(Stdio::null()).stdout(Stdio::null());
    c
}

/// Starts it and waits until it answers.
fn start(dir: &Path, more: &[&str]) -> Replica {
    let replica = Replica(server(dir, more).stderr(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = || Command::new(BIN).args(["status", "-o", "json", "--data-dir"]).arg(dir).output().unwrap().stdout;
    while !status().starts_with(b"{") {
        assert!(Instant::now() < deadline, "not within a minute");
        std::thread::sleep(Duration::from_millis(100));
    }
    replica
}

/// Its data directory after a kill.
fn at_rest() -> Image {
    let dir = tempfile::tempdir().unwrap();
    drop(start(dir.path(), &["--init"]));
    read_tree(dir.path()).unwrap()
}

/// What it says before it exits, and with which code.
fn said(image: &Image, more: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), image).unwrap();
    let Output { status, stderr, .. } = server(dir.path(), more).stderr(Stdio::piped()).output().unwrap();
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn each_damaged_file_is_refused_with_exit_code_4_its_name_and_the_way_out() {
    let (mine, other) = (at_rest(), at_rest());
    let find = |part: &str| mine.keys().find(|p| p.to_string_lossy().contains(part)).expect("it is there").clone();
    let theirs = |part: &str| Damage::ReplacedBy("another cluster's", other[&find(part)].clone());
    let flip = |part: &str, at: usize| {
        let len = mine[&find(part)].len();
        Damage::Flip { offset: at.min(len - 2), mask: 4 }
    };
    let rows = [
        ("IDENTITY", Damage::Missing, "IDENTITY is missing, but wal is there"),
        ("IDENTITY", Damage::Cut(9), "IDENTITY cannot be read"),
        ("IDENTITY", theirs("IDENTITY"), "IDENTITY names replica 1 of cluster"),
        ("00000001.wal", Damage::Missing, "its data was wiped"),
        ("00000001.wal", Damage::Cut(0), "00000001.wal, byte 0"),
        ("00000001.wal", Damage::Cut(100_000), "00000001.wal, byte 100000: the file ends here"),
        ("00000001.wal", flip("00000001.wal", 200), "00000001.wal, byte "),
        ("00000001.wal", theirs("00000001.wal"), "the log in wal/ is of replica 1 of cluster"),
        ("seal.key", Damage::Missing, "pki/seal.key"),
        ("seal.key", flip("seal.key", 3), "pki/seal.key"),
        ("seal.key", theirs("seal.key"), "pki/seal.key"),
        ("peer.pem", Damage::Cut(300), "pki/peer.pem"),
        ("peer.pem", flip("peer.pem", 200), "pki/peer.pem"),
        ("peer.pem", theirs("peer.pem"), "pki/peer.pem"),
        ("peer-ca.pem", flip("peer-ca.pem", 200), "pki/peer-ca.pem"),
        ("peer-ca.pem", theirs("peer-ca.pem"), "pki/peer.pem"),
        ("pki/ca.pem", Damage::Missing, "pki/ca.pem"),
        ("pki/ca.pem", flip("pki/ca.pem", 200), "pki/ca.pem"),
    ];
    for (part, damage, want) in rows {
        let row = format!("{part} {damage:?}");
        let (code, text) = said(&damage.done_to(&find(part), &mine), &[]);
        assert_eq!(code, 4, "{row}: {text}");
        let way = ["join it again", "join again", "--data-dir"].iter().any(|w| text.contains(w));
        assert!(text.contains(want) && way, "{row}: {text}");
    }
    // The same command line that founded it does not found a second cluster over the remains.
    let (code, text) = said(&Damage::Missing.done_to(&find("IDENTITY"), &mine), &["--init"]);
    assert_eq!((code, text.contains("IDENTITY is missing")), (4, true), "{text}");
}

#[test]
fn files_that_are_not_needed_may_be_lost_and_strange_ones_may_be_there() {
    let mut image = at_rest();
    image.retain(|p, _| !p.ends_with("PEERS") && !p.ends_with("LOCK") && !p.ends_with("audit.log"));
    for strange in ["wal/README", "wal/00000009.wal.tmp", "pki/old.pem", "lost+found/x", "notes.txt"] {
        image.insert(strange.into(), b"hello".to_vec());
    }
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &image).unwrap();
    drop(start(dir.path(), &[]));
}
