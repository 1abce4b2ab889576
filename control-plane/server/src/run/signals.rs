//! What asks a replica to stop.

use crate::commands::Failure;

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

pub(super) fn signals() -> Result<Signals, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(Signals { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
}

impl Signals {
    /// Resolves at the first of them.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            biased;
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
        tracing::info!("stopping");
    }
}
