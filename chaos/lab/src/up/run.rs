//! Brings everything up and keeps it up, here or in a process of its own.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::binaries::{Binaries, Profile};
use crate::cluster::{Options, State};
use crate::error::{Context, LabError, Result};
use crate::lab::{Lab, LabOptions, Nodes};
use crate::preflight::{self, Preflight};
use crate::process::ProcessId;
use crate::progress::{Progress, line as say};
use crate::user::User;

/// Simulated nodes where containers cannot run.
const HOLLOW: usize = 2;
/// Between two looks whether all still runs.
const WATCH: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, clap::Args)]
pub struct UpArgs {
    /// Install nothing; fail with the list of what is missing
    #[arg(long)]
    no_install: bool,
    /// Return when everything is ready; it goes on running
    #[arg(long)]
    detach: bool,
    /// Where everything is kept
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Nodes with containers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    nodes: u8,
    /// Simulated nodes, even where containers can run
    #[arg(long)]
    hollow: bool,
    /// Be the process behind --detach
    #[arg(long, hide = true)]
    supervise: bool,
    /// Packages that the process in front has installed
    #[arg(long, hide = true)]
    installed: Vec<String>,
}

/// Runs it and prints the last line.
pub fn up(args: &UpArgs) -> ExitCode {
    let progress = Progress::new();
    let done = prepare(args, &progress).and_then(|ready| match ready {
        Ready::Already(line) => {
            progress.finish();
            say(line);
            Ok(())
        }
        Ready::Go(plan) if args.detach && !args.supervise => detach(args, &plan, &progress),
        Ready::Go(plan) => serve(args, plan, &progress),
    });
    progress.finish();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(format_args!("failed step={} reason={}", e.step, e.reason.replace('\n', " ")));
            ExitCode::FAILURE
        }
    }
}

struct Plan {
    dir: PathBuf,
    nodes: Nodes,
    installed: Vec<String>,
}

enum Ready {
    /// It runs: its last line.
    Already(String),
    Go(Plan),
}

/// What can run here, and what has to be installed for it.
fn prepare(args: &UpArgs, progress: &Progress) -> Result<Ready> {
    let dir = args.dir.clone().unwrap_or_else(super::default_dir);
    if let Some(state) = State::read(&dir)?
        && let Some(supervisor) = state.supervisor.filter(ProcessId::alive)
    {
        if state.ready.is_empty() {
            return Err(LabError::new("start", format!("process {} is starting it already", supervisor.pid)));
        }
        return Ok(Ready::Already(state.ready));
    }
    std::fs::create_dir_all(&dir).step("state", dir.display())?;
    if let Some(user) = User::caller() {
        user.own(&dir);
    }
    let plan = |nodes, installed| Ready::Go(Plan { dir: dir.clone(), nodes, installed });
    if args.hollow {
        return Ok(plan(Nodes::Hollow(HOLLOW), Vec::new()));
    }
    let lab = std::env::current_exe().step("preflight", "own program")?;
    progress.begin("can containers run here?");
    let mut found = Preflight::ask(&lab, &dir)?;
    let mut installed = args.installed.clone();
    if found.obstacle().is_none() && !found.missing.is_empty() {
        progress.finish();
        agree(args, &found.missing)?;
        progress.say(format!("installing {}", preflight::packages(&found.missing).join(", ")));
        installed.extend(preflight::install(&found.missing)?);
        found = Preflight::ask(&lab, &dir)?;
    }
    if let Some(why) = found.obstacle() {
        if !args.supervise {
            progress.say("Can containers run here?");
            found.lines().iter().for_each(|l| progress.say(format!("  {l}")));
            progress.say(format!("No ({why}). The nodes will be hollow: their containers are simulated."));
        }
        return Ok(plan(Nodes::Hollow(HOLLOW), installed));
    }
    // The supervisor's output follows that of who asked for it, and has said so.
    if !args.supervise {
        progress.done("containers can run here");
    }
    Ok(plan(Nodes::Real { count: args.nodes, snapshotter: found.snapshotter }, installed))
}

/// Asks once on a terminal; elsewhere installing is what `./up` is for.
fn agree(args: &UpArgs, missing: &[preflight::Missing]) -> Result<()> {
    let names: Vec<&str> = missing.iter().map(|m| m.what).collect();
    let packages = preflight::packages(missing).join(" ");
    let refused = |why: &str| {
        let reason = format!("missing: {} (packages {packages}); {why}: apt-get install {packages}", names.join(", "));
        Err(LabError::new("packages", reason))
    };
    if args.no_install {
        return refused("install them, or leave --no-install out");
    }
    if !std::io::stdin().is_terminal() {
        return Ok(());
    }
    print!("Missing: {}. Install the packages {packages}? [Y/n] ", names.join(", "));
    let mut answer = String::new();
    std::io::stdout().flush().and_then(|()| std::io::stdin().read_line(&mut answer)).step("packages", "ask")?;
    if answer.trim().is_empty() || answer.trim().to_lowercase().starts_with('y') {
        Ok(())
    } else {
        refused("not installed")
    }
}

/// Starts a process that does it, shows what it says until it is ready, and
/// lets go of it.
fn detach(args: &UpArgs, plan: &Plan, progress: &Progress) -> Result<()> {
    let own = std::env::current_exe().step("start", "own program")?;
    let mut command = Command::new(own);
    command.args(["up", "--supervise", "--nodes", &args.nodes.to_string(), "--dir"]).arg(&plan.dir);
    if matches!(plan.nodes, Nodes::Hollow(_)) {
        command.arg("--hollow");
    }
    for package in &plan.installed {
        command.args(["--installed", package]);
    }
    let log = log_file(&plan.dir)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    // SAFETY: setsid is async-signal-safe.
    unsafe {
        command.pre_exec(|| if libc::setsid() < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) });
    }
    let mut child = command.spawn().step("start", "supervisor")?;
    let out = child.stdout.take().ok_or_else(|| LabError::new("start", "no pipe to the supervisor"))?;
    progress.begin("starting");
    for line in BufReader::new(out).lines().map_while(std::result::Result::ok) {
        if let Some(failed) = line.strip_prefix("failed step=") {
            let (step, reason) = failed.split_once(" reason=").unwrap_or((failed, ""));
            return Err(LabError::new(known_step(step), reason));
        }
        let ready = line.starts_with("ready ");
        if ready {
            progress.finish();
        }
        progress.say(&line);
        if ready {
            return Ok(());
        }
    }
    let said = crate::process::tail(&plan.dir.join("logs/up.log"));
    Err(LabError::new("start", format!("the supervisor ended: {said}")))
}

/// Steps are `&'static str`; this one came through a pipe.
fn known_step(step: &str) -> &'static str {
    const STEPS: &[&str] = &[
        "build",
        "replicas",
        "ports",
        "kubeconfig",
        "api",
        "nodes",
        "namespace",
        "network",
        "containerd",
        "agent",
        "images",
        "sample",
        "app",
        "routes",
        "packages",
        "preflight",
        "state",
        "triarch",
        "status",
    ];
    STEPS.iter().find(|s| **s == step).copied().unwrap_or("start")
}

fn log_file(dir: &Path) -> Result<std::fs::File> {
    let path = dir.join("logs/up.log");
    std::fs::create_dir_all(dir.join("logs")).step("state", path.display())?;
    OpenOptions::new().create(true).append(true).open(&path).step("state", path.display())
}

/// Starts everything in this process and stays until told to stop.
fn serve(args: &UpArgs, plan: Plan, progress: &Progress) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().step("start", "runtime")?;
    runtime.block_on(async {
        let mut stop = Stop::new()?;
        let user = User::caller();
        let own = i32::try_from(std::process::id()).ok().and_then(ProcessId::of);
        let (dir, installed) = (plan.dir.clone(), plan.installed.clone());
        State::update(&dir, user.as_ref(), |s| {
            s.supervisor = own;
            s.ready = String::new();
            s.installed.extend(installed.into_iter().filter(|p| !s.installed.contains(p)).collect::<Vec<_>>());
        })?;
        let release = |e| {
            let _ = State::update(&dir, user.as_ref(), |s| s.supervisor = None);
            e
        };
        progress.begin("building");
        let binaries = Binaries::obtain(Profile::Release).map_err(release)?;
        let cluster = Options { binaries: Some(binaries), user: user.clone(), ..Options::release(&dir) };
        let options = LabOptions { cluster, nodes: plan.nodes, sample: true };
        let started = {
            let start = std::pin::pin!(Lab::start(options, progress));
            let stopped = std::pin::pin!(stop.told());
            match futures::future::select(start, stopped).await {
                futures::future::Either::Left((started, _)) => started.map_err(release)?,
                futures::future::Either::Right(_) => return Err(release(LabError::new("start", "told to stop"))),
            }
        };
        let mut lab = started;
        let line = lab.ready_line();
        let ready = line.clone();
        State::update(&dir, user.as_ref(), move |s| s.ready = ready)?;
        progress.finish();
        say(next_steps(&lab.cluster().kubeconfig_path(), lab.app(), args.supervise).trim_end_matches('\n'));
        say(line);
        if args.supervise {
            let_go(&dir)?;
        }
        keep_up(&mut lab, &mut stop).await;
        say(format_args!("stopping; the state stays in {}", dir.display()));
        lab.stop();
        Ok(())
    })
}

/// Brings back what ends until told to stop.
async fn keep_up(lab: &mut Lab, stop: &mut Stop) {
    loop {
        let told = std::pin::pin!(stop.told());
        let tick = std::pin::pin!(tokio::time::sleep(WATCH));
        if let futures::future::Either::Left(_) = futures::future::select(told, tick).await {
            return;
        }
        match lab.revive() {
            Ok(revived) => revived.iter().for_each(|what| say(format_args!("{what} had ended and was started again"))),
            Err(e) => say(e),
        }
    }
}

/// SIGINT or SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> Result<Stop> {
        let on = |kind| signal(kind).step("start", "signals");
        Ok(Stop { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    async fn told(&mut self) {
        let (a, b) = (std::pin::pin!(self.interrupt.recv()), std::pin::pin!(self.terminate.recv()));
        futures::future::select(a, b).await;
    }
}

/// Standard output goes to the log from here on: whoever read it is free.
fn let_go(dir: &Path) -> Result<()> {
    use std::os::fd::AsRawFd;
    let log = log_file(dir)?;
    std::io::stdout().flush().step("start", "standard output")?;
    // SAFETY: both are open descriptors of this process.
    if unsafe { libc::dup2(log.as_raw_fd(), 1) } < 0 {
        return Err(LabError::new("start", std::io::Error::last_os_error()));
    }
    Ok(())
}

fn next_steps(kubeconfig: &Path, app: Option<u16>, detached: bool) -> String {
    let mut text = format!("\nWhat to try next:\n  export KUBECONFIG={}\n", kubeconfig.display());
    text += "  kubectl get pods -o wide\n  kubectl scale deployment web --replicas 5\n";
    text += "  kubectl set env deployment web VERSION=2 && kubectl rollout status deployment web\n";
    if let Some(port) = app {
        text += &format!("  curl http://127.0.0.1:{port}\n");
    }
    text += "  kill -9 the leader (`./up status` names it) and do it all again\n";
    if preflight::find("kubectl").is_none() {
        text += "(there is no kubectl on this machine; any release from the last years will do)\n";
    }
    text += if detached {
        "`./up down` removes it all.\n"
    } else {
        "Ctrl-C stops it (the state is kept); `./up down` removes it all.\n"
    };
    text
}
