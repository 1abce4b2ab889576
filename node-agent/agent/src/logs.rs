//! Container logs as the runtime writes them: `TIME stream F|P text`, one file
//! for each run of a container.
//!
//! The parser and the choice of lines are pure; reading follows a growing file
//! by polling, in bounded pieces.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;

/// Longest line that is looked at; a longer one is cut into such pieces.
const MAX_LINE: usize = 1 << 20;
const BLOCK: u64 = 64 * 1024;

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub time: &'a str,
    pub stream: &'a str,
    /// The runtime split a long line: more of it follows.
    pub partial: bool,
    pub text: &'a [u8],
}

/// Reads a line without its line feed; `None` when it is no log line.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tag = parts.next()?;
    let text = parts.next().unwrap_or_default();
    if !matches!(stream, "stdout" | "stderr") || tag.is_empty() {
        return None;
    }
    Some(Line { time, stream, partial: tag[0] == b'P', text })
}

/// What a client asked to see.
#[derive(Clone, Debug)]
pub struct Options {
    pub timestamps: bool,
    /// Lines before this time are left out.
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
}

/// Turns the file's bytes into what is shown; keeps what is incomplete.
#[derive(Debug)]
pub struct Reader {
    options: Options,
    rest: Vec<u8>,
    sent: u64,
    /// In the middle of a line that the runtime split.
    inside: bool,
}

impl Reader {
    pub fn new(options: Options) -> Reader {
        Reader { options, rest: Vec::new(), sent: 0, inside: false }
    }

    /// Whether the limit has been reached.
    pub fn is_full(&self) -> bool {
        self.options.limit_bytes.is_some_and(|limit| self.sent >= limit)
    }

    /// Takes bytes of the file in and gives what they add to the output.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(bytes);
        let mut out = Vec::new();
        let mut at = 0;
        while let Some(end) = self.rest[at..].iter().position(|b| *b == b'\n') {
            let line = &self.rest[at..at + end];
            at += end + 1;
            let Some(line) = parse(line) else { continue };
            let early = |since: Timestamp| line.time.parse::<Timestamp>().is_ok_and(|t| t < since);
            if self.options.since.is_some_and(early) {
                continue;
            }
            if self.options.timestamps && !self.inside {
                out.extend_from_slice(line.time.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line.text);
            self.inside = line.partial;
            if !line.partial {
                out.push(b'\n');
            }
        }
        self.rest.drain(..at);
        if self.rest.len() > MAX_LINE {
            // Not a log line: nothing that a runtime writes is as long.
            self.rest.clear();
        }
        if let Some(limit) = self.options.limit_bytes {
            out.truncate(usize::try_from(limit.saturating_sub(self.sent)).unwrap_or(usize::MAX));
        }
        self.sent += out.len() as u64;
        out
    }
}

/// Where the last `lines` lines of a log file begin.
pub fn tail_offset(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(size);
    }
    let (mut end, mut seen) = (size, 0);
    let mut later: Vec<u8> = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        let len = block.len();
        block.extend_from_slice(&later);
        for i in (0..len).rev().filter(|i| block[*i] == b'\n') {
            // A line feed at `i` ends one line and begins the next; a part of a
            // split line does not count as one.
            let before = &block[..i];
            let begin = before.iter().rposition(|b| *b == b'\n').map_or(0, |p| p + 1);
            if start > 0 && begin == 0 {
                continue;
            }
            if parse(&before[begin..]).is_some_and(|l| l.partial) {
                continue;
            }
            seen += 1;
            if seen > lines {
                return Ok(start + i as u64 + 1);
            }
        }
        // The first line of this block may have begun in the one before.
        let first = block.iter().position(|b| *b == b'\n').map_or(block.len(), |p| p + 1);
        if start == 0 {
            return Ok(0);
        }
        if first >= block.len() || first > MAX_LINE {
            later.clear();
            end = start;
        } else {
            later.clear();
            end = start + first as u64;
            if end >= start + len as u64 {
                end = start;
            }
        }
    }
    Ok(0)
}

/// The text of the last lines of a log, at most `max` bytes of it.
pub fn last_lines(path: &Path, lines: i64, max: usize) -> Vec<u8> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let from = tail_offset(&mut file, lines.max(0).unsigned_abs())?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(MAX_LINE as u64).read_to_end(&mut bytes)?;
        let mut out = Reader::new(Options { timestamps: false, since: None, limit_bytes: None }).feed(&bytes);
        if out.len() > max {
            out.drain(..out.len() - max);
        }
        Ok(out)
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LOG: &[u8] = b"2026-01-01T00:00:01.000000001Z stdout F one\n\
        2026-01-01T00:00:02.5Z stderr P tw\n2026-01-01T00:00:02.6Z stderr F o\n2026-01-01T00:00:03Z stdout F three\n";

    fn shown(options: Options, pieces: usize) -> String {
        let mut r = Reader::new(options);
        let out: Vec<u8> = LOG.chunks(pieces).flat_map(|c| r.feed(c)).collect();
        String::from_utf8(out).expect("text")
    }

    fn plain() -> Options {
        Options { timestamps: false, since: None, limit_bytes: None }
    }

    #[test]
    fn split_lines_are_joined_however_the_bytes_arrive() {
        for pieces in [1, 7, 1000] {
            assert_eq!(shown(plain(), pieces), "one\ntwo\nthree\n");
        }
    }

    #[test]
    fn times_limits_and_starts_are_kept() {
        let stamped = shown(Options { timestamps: true, ..plain() }, 9);
        assert!(stamped.starts_with("2026-01-01T00:00:01.000000001Z one\n2026-01-01T00:00:02.5Z two\n"), "{stamped}");
        let since = Some("2026-01-01T00:00:02.6Z".parse().expect("a time"));
        assert_eq!(shown(Options { since, ..plain() }, 9), "o\nthree\n");
        assert_eq!(shown(Options { limit_bytes: Some(5), ..plain() }, 9), "one\nt");
    }

    #[test]
    fn the_tail_counts_whole_lines_and_reads_only_the_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).expect("writes");
        assert_eq!(last_lines(&path, 1, 100), b"three\n");
        assert_eq!(last_lines(&path, 2, 100), b"two\nthree\n");
        assert_eq!(last_lines(&path, 9, 100), b"one\ntwo\nthree\n");
        assert_eq!(last_lines(&path, 2, 3), b"ee\n");
        let mut f = File::create(&path).expect("makes");
        for i in 0..20_000 {
            writeln!(f, "2026-01-01T00:00:01Z stdout F line {i:05}").expect("writes");
        }
        assert_eq!(last_lines(&path, 3, 1000), b"line 19997\nline 19998\nline 19999\n");
        let mut f = File::open(&path).expect("opens");
        let at = tail_offset(&mut f, 5000).expect("finds");
        let width = "2026-01-01T00:00:01Z stdout F line 00000\n".len() as u64;
        assert_eq!(at, 15_000 * width);
    }
}
