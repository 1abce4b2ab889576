//! Runs the transactions: `nft -f -`, then `conntrack` for what they cut off.
//!
//! The mirror is kept in a file beside the agent's ledger, and the kernel holds
//! the number of the last transaction. After a restart the two are compared: if
//! they agree, deltas go on from there; if not, the table is replaced at one
//! stroke. Either way there is no moment without rules.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use triarch_env::Env;

use crate::desired::Desired;
use crate::state::{Cleanup, State};
use crate::table::TABLE;

/// A transaction may take this long; ten thousand services take under a second.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
/// Clean-ups of one update; more are left to time out by themselves.
const MAX_CLEANUPS: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot run nft: {0}; install nftables")]
    NoNft(#[source] std::io::Error),
    #[error("nft refused the rules: {0}")]
    Refused(String),
    #[error("nft did not finish in time")]
    Late,
}

pub struct Applier {
    env: Env,
    path: PathBuf,
    state: State,
}

impl Applier {
    /// Takes up the mirror in `dir`, when the kernel agrees with it.
    pub async fn open(env: Env, dir: &Path) -> Applier {
        let path = dir.join("proxy.state");
        let kept = std::fs::read(&path).ok().and_then(|b| serde_json::from_slice::<State>(&b).ok());
        let state = match kept {
            Some(state) if !state.is_empty() && stamp().await == Some(state.sequence) => state,
            _ => State::default(),
        };
        Applier { env, path, state }
    }

    /// Brings the kernel to `want`; says whether anything changed.
    pub async fn apply(&mut self, want: &Desired) -> Result<bool, ApplyError> {
        let mut next = self.state.clone();
        let Some(update) = next.update(want) else { return Ok(false) };
        let ran = match self.env.timeout(LIMIT, nft(&update.script)).await {
            Ok(ran) => ran,
            Err(_) => Err(ApplyError::Late),
        };
        if let Err(e) = ran {
            // What the kernel holds is not known for sure: replace it next time.
            self.state = State::default();
            return Err(e);
        }
        self.state = next;
        self.save();
        for cleanup in update.cleanups.iter().take(MAX_CLEANUPS) {
            forget(cleanup).await;
        }
        Ok(true)
    }

    fn save(&self) {
        let fresh = self.path.with_extension("new");
        let bytes = serde_json::to_vec(&self.state).expect("the mirror is plain data");
        if let Err(e) = std::fs::write(&fresh, bytes).and_then(|()| std::fs::rename(&fresh, &self.path)) {
            tracing::warn!(path = %self.path.display(), error = %e, "the services' mirror could not be written");
        }
    }
}

async fn nft(script: &str) -> Result<(), ApplyError> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(ApplyError::NoNft)?;
    let mut stdin = child.stdin.take().expect("piped");
    let body = script.as_bytes().to_vec();
    let writing = async move {
        // When nft stops reading, its message below says why.
        let _ = stdin.write_all(&body).await;
    };
    let ((), out) = tokio::join!(writing, child.wait_with_output());
    let out = out.map_err(ApplyError::NoNft)?;
    match out.status.success() {
        true => Ok(()),
        false => Err(ApplyError::Refused(String::from_utf8_lossy(&out.stderr).chars().take(600).collect())),
    }
}

/// The number of the last transaction that the kernel took.
async fn stamp() -> Option<u32> {
    let mut command = Command::new("nft");
    let out = command.args(["list", "set", "ip", TABLE, "stamp"]).kill_on_drop(true).output().await.ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (_, elements) = text.split_once("elements = {")?;
    let number = elements.split('}').next()?.trim();
    match number.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => number.parse().ok(),
    }
}

async fn forget(c: &Cleanup) {
    let mut command = Command::new("conntrack");
    command.args(["-D", "-p", "udp", "--orig-dst", &c.destination.to_string()]);
    if let Some(endpoint) = c.endpoint {
        command.args(["--reply-src", &endpoint.to_string()]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    // It answers 1 when there was nothing to delete.
    let _ = command.status().await;
}
