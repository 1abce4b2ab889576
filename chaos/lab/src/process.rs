//! Child processes that never outlive the lab: each is told by the kernel to
//! die when the thread that started it ends, and that thread lives as long as
//! this process.
//!
//! Owns starting, signalling and reaping. Does not know what the programs do.
//! Invariant: a pid is only ever signalled together with its start time, so a
//! reused number is never hit.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Context, LabError, Result};
use crate::user::User;

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(5);
/// Bytes of a log that an error quotes.
const TAIL: u64 = 2048;

type Job = Box<dyn FnOnce() + Send>;

/// Runs `f` on the one thread that starts children. `PR_SET_PDEATHSIG` counts
/// from the death of the starting *thread*, so it must be one that stays.
fn on_spawner<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let jobs = SPAWNER.get_or_init(|| {
        let (tx, rx) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("lab-spawner".into())
            .spawn(move || rx.into_iter().for_each(|job| job()))
            .expect("a thread can be started at the beginning");
        Mutex::new(tx)
    });
    let (tx, rx) = mpsc::sync_channel(1);
    let job: Job = Box::new(move || {
        let _ = tx.send(f());
    });
    jobs.lock().expect("no holder panics").send(job).expect("the spawner lives as long as the process");
    rx.recv().expect("the spawner answers every job")
}

/// A process by number and start time (clock ticks since boot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    pub started: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<ProcessId> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold spaces and brackets: fields start after the last ')'.
        let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(ProcessId { pid, started })
    }

    /// Whether that very process is still there (a zombie is not).
    pub fn alive(&self) -> bool {
        ProcessId::of(self.pid) == Some(*self) && !self.is_zombie()
    }

    /// Its children, in order of start.
    pub fn children(&self) -> Vec<ProcessId> {
        let list = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).unwrap_or_default();
        list.split_whitespace().filter_map(|p| ProcessId::of(p.parse().ok()?)).collect()
    }

    fn is_zombie(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    }

    /// Sends a signal; false when that process is gone.
    pub fn signal(&self, signal: Signal) -> bool {
        self.alive() && signal::kill(Pid::from_raw(self.pid), signal).is_ok()
    }

    /// SIGTERM, then SIGKILL after `grace`; returns when it is gone.
    pub fn end(&self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        if !wait_for(grace, || !self.alive()) {
            self.signal(Signal::SIGKILL);
            wait_for(Duration::from_secs(5), || !self.alive());
        }
    }
}

/// Looks until `done` or until `limit` has passed; says which.
pub fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// A running program with its output in a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    id: ProcessId,
    child: Child,
}

impl Process {
    /// Starts `command`, output appended to `log`, in a process group of its own
    /// (so that Ctrl-C at the terminal reaches only the lab). Not in a session of
    /// its own: Linux shares the CPU out by session before it looks at what
    /// the threads in it may have (autogroups, sched(7)).
    pub fn spawn(name: &str, mut command: Command, log: &Path, user: Option<&User>) -> Result<Process> {
        let out = open_log(log, user)?;
        let err = out.try_clone().step("start", name)?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        if let Some(user) = user {
            user.apply(&mut command);
        }
        let parent = std::process::id();
        // SAFETY: only async-signal-safe calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                if libc::setpgid(0, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // The lab may have died before the line above.
                if libc::getppid() as u32 != parent {
                    return Err(io::Error::other("the lab is gone"));
                }
                Ok(())
            });
        }
        let program = command.get_program().to_string_lossy().into_owned();
        let child = on_spawner(move || command.spawn()).step("start", format!("{name} ({program})"))?;
        let pid = i32::try_from(child.id()).expect("pids are positive 32-bit numbers");
        let id = ProcessId::of(pid).unwrap_or(ProcessId { pid, started: 0 });
        Ok(Process { name: name.to_owned(), log: log.to_owned(), id, child })
    }

    pub fn id(&self) -> ProcessId {
        self.id
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, when it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn is_running(&mut self) -> bool {
        self.exited().is_none()
    }

    /// An error that says how it ended and what it said last.
    pub fn failure(&mut self, step: &'static str) -> LabError {
        let how = self.exited().map_or("does not answer".to_owned(), |s| format!("ended: {s}"));
        LabError::new(step, format!("{} {how}; {}: {}", self.name, self.log.display(), self.log_tail()))
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    fn send(&mut self, signal: Signal) {
        if self.is_running() {
            // Not reaped yet, so the number is still its own.
            let _ = signal::kill(Pid::from_raw(self.id.pid), signal);
        }
    }

    /// `kill -9`, reaped.
    pub fn kill(&mut self) {
        self.send(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// SIGTERM; SIGKILL after `grace`. True when it went by itself.
    pub fn stop(&mut self, grace: Duration) -> bool {
        self.send(Signal::SIGTERM);
        let gone = wait_for(grace, || !self.is_running());
        if !gone {
            self.kill();
        }
        gone
    }

    /// SIGTERM without waiting.
    pub fn terminate(&mut self) {
        self.send(Signal::SIGTERM);
    }

    pub fn pause(&mut self) {
        self.send(Signal::SIGSTOP);
    }

    pub fn resume(&mut self) {
        self.send(Signal::SIGCONT);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn open_log(path: &Path, user: Option<&User>) -> Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).step("start", parent.display())?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path).step("start", path.display())?;
    if let Some(user) = user {
        user.own(path);
    }
    Ok(file)
}

/// The last lines of a file, on one line.
pub fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

/// Runs a program to its end and gives its standard output.
///
/// # Errors
/// Names the program and quotes what it said.
pub fn run(step: &'static str, command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.stdin(Stdio::null()).output().step(step, &program)?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let said = if said.trim().is_empty() { String::from_utf8_lossy(&out.stdout) } else { said };
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    let said: String = said.trim().chars().take(2000).collect();
    Err(LabError::new(step, format!("{program} {}: {}: {said}", arguments.join(" "), out.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path) -> Process {
        let mut command = Command::new("sleep");
        command.arg("60");
        Process::spawn("sleeper", command, &dir.join("log"), None).unwrap()
    }

    #[test]
    fn a_dropped_process_is_gone_and_its_number_is_not_mistaken_for_another() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(dir.path());
        let id = process.id();
        assert!(id.alive());
        assert!(!ProcessId { started: id.started + 1, ..id }.alive());
        drop(process);
        assert!(!id.alive() && !id.signal(Signal::SIGTERM));
    }

    #[test]
    fn a_paused_process_stays_and_a_stopped_one_goes_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = sleeper(dir.path());
        process.pause();
        assert!(process.is_running());
        process.resume();
        assert!(process.stop(Duration::from_secs(5)));
        assert!(!process.is_running());
    }

    #[test]
    fn children_die_with_the_thread_that_outlives_their_caller() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let mut process = std::thread::spawn(move || sleeper(&path)).join().unwrap();
        // The calling thread has ended: the child must not have been told to die.
        std::thread::sleep(Duration::from_millis(50));
        assert!(process.is_running());
    }

    #[test]
    fn a_failed_program_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such bridge >&2; exit 3"]);
        let e = run("network", &mut command).unwrap_err();
        assert!(e.reason.contains("no such bridge") && e.reason.contains("exit status: 3"), "{e}");
        assert_eq!(e.step, "network");
    }
}
