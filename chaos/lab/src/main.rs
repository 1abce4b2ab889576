//! `triarch-lab`: the command behind `./up`, and the first process of a node.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use triarch_lab::crowd::{self, CrowdArgs};
use triarch_lab::node::init::{self, InitArgs};
use triarch_lab::preflight::{self, Preflight, ProbeArgs};
use triarch_lab::up::{self, DownArgs, StatusArgs, UpArgs};

/// Three replicas and two nodes on one machine.
#[derive(Debug, Parser)]
#[command(
    name = "triarch-lab",
    version,
    after_help = "\
Examples:
  ./up                 bring it up and stay
  ./up --detach        bring it up and return
  ./up status
  ./up down            remove everything"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring everything up
    Up(UpArgs),
    /// Show what runs
    Status(StatusArgs),
    /// Remove everything
    Down(DownArgs),
    /// Say whether containers can run here, and why not
    Preflight {
        /// Where containers would be kept
        #[arg(long, default_value = "/tmp")]
        dir: PathBuf,
    },
    /// Open many watches on one of three replicas, and write meanwhile
    Crowd(CrowdArgs),
    /// Be the first process of a namespace
    #[command(hide = true)]
    NodeInit(InitArgs),
    /// Try what containers need, in namespaces of its own
    #[command(hide = true)]
    Probe(ProbeArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Up(args) => up::up(&args),
        Command::Status(args) => up::status(&args),
        Command::Down(args) => up::down(&args),
        Command::Preflight { dir } => ask(&dir),
        Command::Crowd(args) => match crowd::run(&args) {
            Ok(line) => {
                println!("{line}");
                ExitCode::SUCCESS
            }
            Err(e) => {
                eprintln!("triarch-lab: {e}");
                ExitCode::FAILURE
            }
        },
        Command::NodeInit(args) => match init::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("triarch-lab: {e}");
                ExitCode::FAILURE
            }
        },
        Command::Probe(args) => {
            preflight::run_probe(&args);
            ExitCode::SUCCESS
        }
    }
}

fn ask(dir: &std::path::Path) -> ExitCode {
    let asked = std::env::current_exe().map_err(|e| e.to_string());
    let asked = asked.and_then(|lab| Preflight::ask(&lab, dir).map_err(|e| e.to_string()));
    match asked {
        Ok(found) => {
            found.lines().iter().for_each(|l| println!("{l}"));
            if found.obstacle().is_none() && found.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!("triarch-lab: {e}");
            ExitCode::FAILURE
        }
    }
}
