//! Audit at Metadata level: one audit.k8s.io/v1 Event a line.
//!
//! Events go through a bounded queue to one writer thread, which rotates files
//! by size and keeps a bounded number of them. When the queue is full the event
//! is dropped and counted: audit never holds up a request.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};
use triarch_env::Wall;
use triarch_registry::{RequestContext, UserInfo};

use crate::info::RequestInfo;

/// Events between requests and the writer.
const QUEUE: usize = 10_000;
/// Written bytes are flushed at least this often.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Where audit goes and how much of it is kept.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    pub path: PathBuf,
    /// Bytes of one file.
    pub max_bytes: u64,
    /// Rotated files beside the current one (`audit.log.1` is the newest).
    pub max_files: u32,
}

/// The door to the writer; cheap to clone.
#[derive(Clone)]
pub struct Audit {
    queue: Option<SyncSender<Vec<u8>>>,
    dropped: Arc<AtomicU64>,
}

impl Audit {
    /// Writes nothing.
    pub fn disabled() -> Audit {
        Audit { queue: None, dropped: Arc::default() }
    }

    /// Opens the file and starts the writer, which ends when the last clone is gone.
    pub fn open(config: AuditConfig) -> std::io::Result<Audit> {
        let mut log = Log::open(config)?;
        let (tx, rx) = sync_channel(QUEUE);
        std::thread::Builder::new().name("audit".into()).spawn(move || log.run(&rx))?;
        Ok(Audit { queue: Some(tx), dropped: Arc::default() })
    }

    /// Events that were dropped because the writer could not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn enabled(&self) -> bool {
        self.queue.is_some()
    }

    pub(crate) fn record(&self, event: &Value) {
        let Some(queue) = &self.queue else { return };
        let mut line = event.to_string().into_bytes();
        line.push(b'\n');
        if queue.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the event says about the exchange beside the request itself.
pub(crate) struct Exchange<'a> {
    pub id: &'a str,
    pub stage: &'a str,
    pub uri: &'a str,
    pub user: &'a UserInfo,
    pub source: &'a str,
    pub user_agent: &'a str,
    pub received: Wall,
    pub now: Wall,
    pub code: u16,
}

/// One audit.k8s.io/v1 Event.
pub(crate) fn event(info: &RequestInfo, ctx: &RequestContext, x: &Exchange<'_>) -> Value {
    let mut user = json!({"username": x.user.name, "groups": x.user.groups});
    if !x.user.uid.is_empty() {
        user["uid"] = x.user.uid.clone().into();
    }
    if !x.user.extra.is_empty() {
        user["extra"] = json!(x.user.extra);
    }
    let mut event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": x.id,
        "stage": x.stage,
        "requestURI": x.uri,
        "verb": info.verb,
        "user": user,
        "sourceIPs": [x.source],
        "userAgent": x.user_agent,
        "responseStatus": {"metadata": {}, "code": x.code},
        "requestReceivedTimestamp": x.received.rfc3339_micro(),
        "stageTimestamp": x.now.rfc3339_micro(),
    });
    if info.is_resource {
        let mut object = json!({"resource": info.resource, "apiVersion": info.version});
        for (key, v) in [
            ("namespace", &info.namespace),
            ("name", &info.name),
            ("apiGroup", &info.group),
            ("subresource", &info.subresource),
        ] {
            if !v.is_empty() {
                object[key] = v.clone().into();
            }
        }
        event["objectRef"] = object;
    }
    let annotations = ctx.audit_annotations();
    if !annotations.is_empty() {
        event["annotations"] = json!(annotations);
    }
    event
}

struct Log {
    config: AuditConfig,
    file: BufWriter<File>,
    written: u64,
    /// Events since the last one that was written: a full disk is said once, not for each.
    missing: u64,
}

impl Log {
    fn open(config: AuditConfig) -> std::io::Result<Log> {
        let file = append(&config.path)?;
        let written = file.metadata()?.len();
        Ok(Log { config, file: BufWriter::new(file), written, missing: 0 })
    }

    /// Says when events begin to be missing, and when they are written again.
    fn say(&mut self, done: std::io::Result<()>) {
        let path = self.config.path.display();
        match done {
            Ok(()) if self.missing == 0 => {}
            Ok(()) => {
                tracing::warn!(events = self.missing, %path, "audit events are written again; these are missing");
                self.missing = 0;
            }
            Err(error) => {
                if self.missing == 0 {
                    tracing::warn!(%error, %path, "audit event not written, nor those to come");
                }
                self.missing += 1;
            }
        }
    }

    fn run(&mut self, queue: &Receiver<Vec<u8>>) {
        loop {
            match queue.recv_timeout(FLUSH_EVERY) {
                Ok(line) => {
                    let done = self.write(&line);
                    self.say(done);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.file.flush();
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.file.flush();
                    return;
                }
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.written > 0 && self.written + line.len() as u64 > self.config.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.written += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        self.file.flush()?;
        let path = &self.config.path;
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
        for n in (1..self.config.max_files).rev() {
            let _ = std::fs::rename(numbered(n), numbered(n + 1));
        }
        if self.config.max_files > 0 {
            std::fs::rename(path, numbered(1))?;
        } else {
            std::fs::remove_file(path)?;
        }
        self.file = BufWriter::new(append(path)?);
        self.written = 0;
        Ok(())
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_rotate_by_size_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut log = Log::open(AuditConfig { path: path.clone(), max_bytes: 100, max_files: 2 }).unwrap();
        for i in 0..20 {
            log.write(format!("{i:040}\n").as_bytes()).unwrap();
        }
        log.file.flush().unwrap();
        let mut names: Vec<String> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2"]);
        assert!(std::fs::read_to_string(path).unwrap().contains("19\n"));
    }
}
