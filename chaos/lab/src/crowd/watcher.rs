//! One connection with many watches, in as little memory as it takes: frames of
//! HTTP/2 are written and read here, since a general client keeps kilobytes for
//! each stream and this machine has to hold both ends of a million of them.
//!
//! It knows what it needs of RFC 9113 and RFC 7541: a request's headers as
//! literals, whether the first header of an answer is the indexed `:status: 200`,
//! and that windows must be given back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
/// What a peer may send at most, unless it is told otherwise.
const MAX_FRAME: usize = 16 * 1024;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` of HPACK's static table.
const STATUS_200: u8 = 0x88;

/// What became of all watches, counted by all connections together.
#[derive(Debug, Default)]
pub struct Counts {
    pub connected: AtomicU64,
    /// Connections that were not made, or broke.
    pub failed: AtomicU64,
    pub watches: AtomicU64,
    /// Answered with another status than 200.
    pub refused: AtomicU64,
    /// Ended after they had begun.
    pub ended: AtomicU64,
    pub bytes: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let len = u32::try_from(payload.len()).expect("our own frames are small");
    out.extend_from_slice(&len.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A header that no table learns: name and value up to 126 bytes, or longer by
/// HPACK's continuation of integers.
fn literal(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    for text in [name, value] {
        let mut n = text.len();
        if n < 127 {
            out.push(n as u8);
        } else {
            out.push(127);
            n -= 127;
            while n >= 128 {
                out.push((n % 128) as u8 | 0x80);
                n /= 128;
            }
            out.push(n as u8);
        }
        out.extend_from_slice(text.as_bytes());
    }
}

/// The opening of a connection that asks for `path` on each of its streams.
fn opening(host: &str, path: &str, watches: u32) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    frame(&mut out, SETTINGS, 0, 0, &[]);
    let mut block = Vec::new();
    for (name, value) in [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", path)] {
        literal(&mut block, name, value);
    }
    literal(&mut block, "accept", "application/json");
    for n in 0..watches {
        frame(&mut out, HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &block);
    }
    out
}

/// Where to go and what to ask.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Arc<ClientConfig>,
    pub path: Arc<str>,
    pub watches: u32,
}

/// Opens a connection from `source` with all its watches; returns when each has
/// its answer. What [`Watcher::stay`] does then is to read.
pub async fn open(target: &Target, source: SocketAddr, counts: &Counts) -> std::io::Result<Watcher> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(source)?;
    let tcp = socket.connect(target.address).await?;
    tcp.set_nodelay(true)?;
    let host = target.address.ip().to_string();
    let name = ServerName::try_from(host.clone()).map_err(std::io::Error::other)?;
    let mut stream = TlsConnector::from(target.tls.clone()).connect(name, tcp).await?;
    stream.write_all(&opening(&host, &target.path, target.watches)).await?;
    stream.flush().await?;
    add(&counts.connected, 1);
    let mut watcher = Watcher { stream, unanswered: target.watches };
    while watcher.unanswered > 0 {
        watcher.step(counts).await?;
    }
    Ok(watcher)
}

/// A connection whose watches are open.
pub struct Watcher {
    stream: TlsStream<tokio::net::TcpStream>,
    unanswered: u32,
}

impl Watcher {
    /// Reads until the connection ends.
    pub async fn stay(mut self, counts: &Counts) -> std::io::Error {
        loop {
            if let Err(e) = self.step(counts).await {
                return e;
            }
        }
    }

    /// One frame.
    async fn step(&mut self, counts: &Counts) -> std::io::Result<()> {
        let mut head = [0; HEAD];
        self.stream.read_exact(&mut head).await?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if len > MAX_FRAME {
            return Err(std::io::Error::other(format!("a frame of {len} bytes")));
        }
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).await?;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        add(&counts.bytes, (HEAD + len) as u64);
        let mut out = Vec::new();
        match kind {
            SETTINGS if flags & ACK == 0 => frame(&mut out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut out, PING, ACK, 0, &payload),
            HEADERS if payload.first() == Some(&STATUS_200) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                add(&counts.watches, 1);
            }
            HEADERS => {
                self.unanswered = self.unanswered.saturating_sub(1);
                add(&counts.refused, 1);
            }
            DATA if len > 0 => {
                let given = (len as u32).to_be_bytes();
                frame(&mut out, WINDOW_UPDATE, 0, 0, &given);
                if flags & END_STREAM == 0 {
                    frame(&mut out, WINDOW_UPDATE, 0, stream, &given);
                }
            }
            RST_STREAM => add(&counts.ended, 1),
            GOAWAY => return Err(std::io::Error::other("the server ends the connection")),
            _ => {}
        }
        if !out.is_empty() {
            self.stream.write_all(&out).await?;
            self.stream.flush().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_frames_that_the_standards_say() {
        let out = opening("127.0.0.1", "/x", 2);
        let rest = out.strip_prefix(PREFACE).unwrap();
        assert_eq!(rest[..HEAD], [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
        let first = &rest[HEAD..];
        let len = usize::from(first[2]);
        assert_eq!(first[..HEAD], [0, 0, len as u8, HEADERS, 5, 0, 0, 0, 1]);
        assert_eq!(first[HEAD..][..13], *b"\0\x07:method\x03GET");
        let second = &first[HEAD + len..];
        assert_eq!((second[8], second.len()), (3, HEAD + len));
    }

    #[test]
    fn long_values_continue_their_length() {
        let mut out = Vec::new();
        literal(&mut out, "a", &"x".repeat(127 + 300));
        // 300 = 0b10_0101100
        assert_eq!(out[..7], [0, 1, b'a', 127, 0x80 | 44, 2, b'x']);
    }
}
