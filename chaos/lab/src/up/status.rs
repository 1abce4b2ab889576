//! What runs, in the replicas' own words.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::binaries::{Binaries, Profile};
use crate::cluster::State;
use crate::error::Result;
use crate::process::ProcessId;

#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Where everything is kept
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// 0 when it is well, 1 when a part of it is not, 3 when nothing answers.
pub fn status(args: &StatusArgs) -> ExitCode {
    match show(args) {
        Ok(code) => code,
        Err(e) => {
            println!("failed step={} reason={}", e.step, e.reason);
            ExitCode::FAILURE
        }
    }
}

fn show(args: &StatusArgs) -> Result<ExitCode> {
    let dir = args.dir.clone().unwrap_or_else(super::default_dir);
    let Some(state) = State::read(&dir)? else {
        println!("nothing is up in {}", dir.display());
        return Ok(ExitCode::from(3));
    };
    match state.supervisor.filter(ProcessId::alive) {
        Some(process) => println!("kept up by process {}", process.pid),
        None => println!("nothing keeps it up (`./up` starts it again, `./up down` removes it)"),
    }
    let binaries = Binaries::obtain(Profile::Release)?;
    let mut code = ExitCode::from(3);
    for replica in state.replicas.iter().filter(|r| r.process.is_some_and(|p| p.alive())) {
        let data = dir.join("replicas").join(&replica.name);
        let out = Command::new(&binaries.server).arg("status").arg("--data-dir").arg(data).output();
        if let Ok(out) = out
            && out.status.code() != Some(3)
        {
            print!("{}", String::from_utf8_lossy(&out.stdout));
            code = ExitCode::from(u8::try_from(out.status.code().unwrap_or(1)).unwrap_or(1));
            break;
        }
    }
    if !state.ready.is_empty() {
        println!("{}", state.ready);
    }
    Ok(code)
}
