//! The binary as an operator meets it: what starts, what is refused, with which
//! exit code and which words.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BIN: &str = env!("CARGO_BIN_EXE_triarch");

/// A running replica; killed when dropped.
struct Replica(Child);

impl Drop for Replica {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Ports {
    listen: String,
    peer: String,
}

fn ports() -> Ports {
    Ports { listen: format!("127.0.0.1:{}", free_port()), peer: format!("127.0.0.1:{}", free_port()) }
}

fn server(dir: &Path, name: &str, ports: &Ports, more: &[&str]) -> Command {
    let mut c = Command::new(BIN);
    c.args(["server", "--name", name, "--listen", &ports.listen, "--peer-listen", &ports.peer, "--data-dir"]);
    c.arg(dir).args(more).stdin(Stdio::null()).stdout(Stdio::null());
    c
}

/// Runs to its end, which must come by itself.
fn fails(mut c: Command) -> (i32, String) {
    let Output { status, stderr, .. } = c.stderr(Stdio::piped()).output().unwrap();
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&stderr).into_owned())
}

fn triarch(args: &[&str], dir: &Path) -> Output {
    Command::new(BIN).args(args).arg("--data-dir").arg(dir).output().unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn start(dir: &Path, name: &str, ports: &Ports, more: &[&str]) -> Replica {
    let replica = Replica(server(dir, name, ports, more).stderr(Stdio::null()).spawn().unwrap());
    wait_for(name, || triarch(&["status", "-o", "json"], dir).stdout.starts_with(b"{"));
    replica
}

fn status(dir: &Path) -> serde_json::Value {
    serde_json::from_slice(&triarch(&["status", "-o", "json"], dir).stdout).unwrap_or_default()
}

#[test]
fn an_empty_directory_needs_init_or_join_and_the_message_names_both() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = fails(server(dir.path(), "a", &ports(), &[]));
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--init") && text.contains("--join URL --token T"), "{text}");
}

#[test]
fn a_token_that_is_none_is_refused_without_being_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--join", "https://127.0.0.1:1", "--token", "hunter2"];
    let (code, text) = fails(server(dir.path(), "a", &ports(), &more));
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("not a join token") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_cluster_that_does_not_answer_is_exit_code_3() {
    let dir = tempfile::tempdir().unwrap();
    let token = format!("triarch1.server.aa.bb.{}", "0".repeat(64));
    let url = format!("https://127.0.0.1:{}", free_port());
    let (code, text) = fails(server(dir.path(), "a", &ports(), &["--join", &url, "--token", &token]));
    assert_eq!(code, 3, "{text}");
    assert_eq!(triarch(&["status"], dir.path()).status.code(), Some(3));
}

#[test]
fn a_taken_port_is_named_with_its_key_before_anything_is_written() {
    let (dir, p) = (tempfile::tempdir().unwrap(), ports());
    let _taken = TcpListener::bind(&p.listen).unwrap();
    let (code, text) = fails(server(dir.path(), "a", &p, &["--init"]));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("listen: cannot listen on") && text.contains("choose another"), "{text}");
    assert!(!dir.path().join("IDENTITY").exists(), "nothing is left half done");
}

#[test]
fn a_bad_configuration_names_the_key_what_it_got_and_what_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.yaml");
    std::fs::write(&file, "apiVersion: config.triarch.io/v1alpha1\nkind: ServerConfiguration\nheartbeatMs: 1\n")
        .unwrap();
    let out = Command::new(BIN).args(["config", "check"]).arg(&file).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains("heartbeatMs: got \"1\", takes a whole number from 10 to 10000"), "{text}");
}

#[test]
fn three_replicas_are_born_and_a_killed_leader_is_replaced_and_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let dir = |n: &str| root.path().join(n);
    let (pa, pb, pc) = (ports(), ports(), ports());
    let a = start(&dir("a"), "a", &pa, &["--init"]);

    // A second process on the same directory, and a directory with data told to found a cluster.
    let (code, text) = fails(server(&dir("a"), "a", &ports(), &[]));
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("in use by another process"), "{text}");

    let token = triarch(&["token", "create", "--class", "server"], &dir("a"));
    let token = String::from_utf8(token.stdout).unwrap().trim().to_owned();
    let node = triarch(&["token", "create", "--class", "node"], &dir("a"));
    let node = String::from_utf8(node.stdout).unwrap().trim().to_owned();
    let url = format!("https://{}", pa.listen);
    let (code, text) = fails(server(&dir("x"), "x", &ports(), &["--join", &url, "--token", &node]));
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("class node"), "{text}");

    // A token of another cluster, one that nobody made, and one that is too old.
    let (own, ca) = token.rsplit_once('.').unwrap();
    let foreign = format!("{own}.{}", ca.chars().rev().collect::<String>());
    let (code, text) = fails(server(&dir("x"), "x", &ports(), &["--join", &url, "--token", &foreign]));
    assert_ne!(code, 0);
    assert!(text.contains(": the server's CA is not the one that the token names"), "{text}");
    assert!(!text.contains("unexpected"), "{text}");
    let unknown = token.replacen("triarch1.server.", "triarch1.server.00", 1);
    let (code, text) = fails(server(&dir("x"), "x", &ports(), &["--join", &url, "--token", &unknown]));
    assert_ne!(code, 0);
    assert!(text.contains("unknown or expired token; make a new one with `triarch token create`"), "{text}");
    let short = triarch(&["token", "create", "--class", "server", "--ttl", "1s"], &dir("a"));
    let short = String::from_utf8(short.stdout).unwrap().trim().to_owned();
    std::thread::sleep(Duration::from_millis(2100));
    let (code, text) = fails(server(&dir("x"), "x", &ports(), &["--join", &url, "--token", &short]));
    assert_ne!(code, 0);
    assert!(text.contains("expired") && text.contains("triarch token create"), "{text}");
    let left: Vec<_> =
        std::fs::read_dir(dir("x")).map(|d| d.flatten().map(|e| e.file_name()).collect()).unwrap_or_default();
    assert!(!left.iter().any(|n| n == "IDENTITY"), "nothing is left half done: {left:?}");

    let join = ["--join", url.as_str(), "--token", token.as_str()];
    let _b = start(&dir("b"), "b", &pb, &join);
    let _c = start(&dir("c"), "c", &pc, &join);
    let voters = |d: &Path| {
        let s = status(d);
        s["replicas"].as_array().map_or(0, |r| r.iter().filter(|r| r["role"] == "voter").count())
    };
    wait_for("three voters", || voters(&dir("b")) == 3);
    let (code, text) = fails(server(&dir("y"), "b", &ports(), &join));
    assert_ne!(code, 0);
    assert!(text.contains("a replica named b is a member already"), "{text}");

    drop(a);
    wait_for("a new leader", || {
        let s = status(&dir("b"));
        s["leader"] == "b" || s["leader"] == "c"
    });
    assert_eq!(triarch(&["status"], &dir("b")).status.code(), Some(1), "a dead replica is degraded");
    let written = triarch(&["token", "create", "--class", "node"], &dir("b"));
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));

    // Its own directory and name, and no other flags: it is the replica it was.
    let (code, text) = fails(server(&dir("a"), "other", &pa, &[]));
    assert_eq!(code, 4, "{text}");
    let _a = start(&dir("a"), "a", &pa, &[]);
    wait_for("health", || triarch(&["status"], &dir("b")).status.code() == Some(0));
    let moved = triarch(&["leader", "transfer", "--to", "a"], &dir("c"));
    let text = String::from_utf8_lossy(&moved.stdout).into_owned();
    assert!(text.starts_with("leader=a term="), "{text} {}", String::from_utf8_lossy(&moved.stderr));
    let config = triarch(&["kubeconfig", "--user", "u", "--group", "system:masters"], &dir("b"));
    assert!(String::from_utf8_lossy(&config.stdout).contains("client-certificate-data"));
}
