//! The sample web application: says who answers, and shows what the cluster
//! gave it (version and node by the environment, text by a ConfigMap's file).
//!
//! Compiled alone by `rustc`, statically. `/` is the page, `/healthz` says ok,
//! `/slow` takes a second. On SIGTERM it goes on accepting for a moment, until its
//! Service has heard that it ends, finishes what it has and goes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

static STOP: AtomicBool = AtomicBool::new(false);

const SIGTERM: i32 = 15;
/// After SIGTERM new connections are taken this long: nodes learn of the end a little later.
const LAST_CALL: Duration = Duration::from_secs(1);
/// Connections served at once; more are told to come back.
const MAX_CONNECTIONS: u64 = 256;
/// Longest request head, in bytes.
const MAX_HEAD: u64 = 16 << 10;
/// Longest message shown, in bytes.
const MAX_MESSAGE: u64 = 64 << 10;

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
}

extern "C" fn stop(_: i32) {
    STOP.store(true, Ordering::SeqCst);
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn main() {
    // SAFETY: the handler only stores to an atomic.
    unsafe { signal(SIGTERM, stop) };
    let address = format!("0.0.0.0:{}", setting("PORT", "8080"));
    let listener = match TcpListener::bind(&address) {
        Ok(l) => l,
        Err(e) => {
            eprintln!("{address}: {e}");
            std::process::exit(1);
        }
    };
    listener.set_nonblocking(true).expect("a listening socket can be made non-blocking");
    println!("version {} listens on {address}", setting("VERSION", "1"));
    let open = Arc::new(AtomicU64::new(0));
    let mut last: Option<Instant> = None;
    while last.is_none_or(|at| Instant::now() < at) {
        if last.is_none() && STOP.load(Ordering::SeqCst) {
            last = Some(Instant::now() + LAST_CALL);
        }
        match listener.accept() {
            Ok((stream, from)) => {
                let _ = stream.set_nonblocking(false);
                let open = open.clone();
                if open.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
                    open.fetch_sub(1, Ordering::SeqCst);
                    let _ = answer(&stream, "503 Service Unavailable", "busy\n");
                    continue;
                }
                std::thread::spawn(move || {
                    if let Some(path) = serve(&stream) {
                        println!("{from} {path}");
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    drop(listener);
    println!("stops");
    for _ in 0..500 {
        if open.load(Ordering::SeqCst) == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn serve(stream: &TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut reader = BufReader::new(stream.take(MAX_HEAD));
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).ok()? == 0 || header.trim().is_empty() {
            break;
        }
    }
    let path = line.split(' ').nth(1)?.to_owned();
    match path.as_str() {
        "/healthz" => answer(stream, "200 OK", "ok\n"),
        "/" => answer(stream, "200 OK", &page()),
        "/slow" => {
            std::thread::sleep(Duration::from_secs(1));
            answer(stream, "200 OK", &page())
        }
        _ => answer(stream, "404 Not Found", "not here\n"),
    }
    .ok()?;
    Some(path)
}

fn page() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut message = String::new();
    if let Ok(file) = std::fs::File::open(setting("MESSAGE_FILE", "/etc/web/message")) {
        let _ = file.take(MAX_MESSAGE).read_to_string(&mut message);
    }
    format!(
        "{}\npod {} on node {}, version {}\n",
        message.trim_end(),
        host.trim(),
        setting("NODE_NAME", "unknown"),
        setting("VERSION", "1")
    )
}

fn answer(mut stream: &TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}
