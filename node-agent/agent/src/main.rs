//! `triarch-node`: command line, logs, signals, exit code. Everything else is in the library.

use std::io::IsTerminal;
use std::process::ExitCode as Status;

use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;
use triarch_agent::app;
use triarch_agent::cli::{Args, Command, LogFormat};
use triarch_env::{Env, ExitCode, TokioRuntime};

/// Thousands of objects of all sizes come and go at a time: the C library's
/// allocator gives pages back and clears them again, at a quarter of the CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Status {
    triarch_pki::install_crypto();
    let args = Args::parse();
    if let Some(Command::Completion { shell }) = args.command {
        clap_complete::generate(shell, &mut Args::command(), "triarch-node", &mut std::io::stdout());
        return ExitCode::Ok.into();
    }
    if let Err(e) = logs(&args) {
        eprintln!("triarch-node: --log {}: {e}", args.log);
        return ExitCode::Usage.into();
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(4).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("triarch-node: {e}");
            return ExitCode::Failed.into();
        }
    };
    let done = runtime.block_on(async { app::run(Env::new(TokioRuntime::current()), args, signalled()).await });
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::Ok.into(),
        Err(e) => {
            eprintln!("triarch-node: {e}");
            e.code.into()
        }
    }
}

fn logs(args: &Args) -> Result<(), String> {
    let filter = EnvFilter::try_new(&args.log).map_err(|e| e.to_string())?;
    // Colours are for people: a file or a pipe gets plain text.
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match args.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
    .map_err(|e| e.to_string())
}

/// Resolves at SIGTERM or SIGINT.
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    let (term, int) = (std::pin::pin!(term.recv()), std::pin::pin!(int.recv()));
    futures::future::select(term, int).await;
}
