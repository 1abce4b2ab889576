//! A cluster that somebody else runs: what can be done to it through its API.
//!
//! Load and every check of histories work there as at home. Of the faults only
//! the transfer of leadership can be asked for; processes, disks and networks
//! are out of reach. Everything is made in namespaces of its own, which are
//! removed in the end.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use triarch_lab::{Binaries, Kubeconfig, process};

use super::checks::Check;
use super::{Outcome, Seen, judge, page, replay};
use crate::conduct::Done;
use crate::gaps;
use crate::load::{Clients, Load};
use crate::options::SuiteOptions;
use crate::requests;
use crate::shared::Shared;
use crate::stage::wait;

/// Between two transfers.
const PAUSE: Duration = Duration::from_secs(5);
/// Load of one round.
const ROUND: Duration = Duration::from_secs(180);
const WRITES_TIMEOUT: Duration = Duration::from_secs(30);

/// What would be done, in words.
pub fn plan(options: &SuiteOptions) -> anyhow::Result<String> {
    let path = options.kubeconfig.as_ref().context("--kubeconfig")?;
    let config = Kubeconfig::read(path)?;
    Ok(format!(
        "At {}, for {} minutes, this would\n\
         - make the namespaces nemesis-outside-1, -2, … and {}, and remove them in the end;\n\
         - write, read, create and delete ConfigMaps there with {} writers, and watch them;\n\
         - ask for a transfer of leadership every {} seconds;\n\
         - check every answer and every event, and write a report.\n\
         It would end no process and touch no disk, network or clock. Nothing was done: say --yes to do it.",
        config.server,
        options.minutes,
        requests::NAMESPACE,
        options.writers,
        PAUSE.as_secs()
    ))
}

/// Does it.
///
/// # Errors
/// The cluster does not answer, or the report cannot be written.
pub async fn outside(options: &SuiteOptions, binaries: &Binaries) -> anyhow::Result<Outcome> {
    let path = options.kubeconfig.as_ref().context("--kubeconfig")?;
    let admin = Kubeconfig::read(path)?;
    let server = admin.server.clone();
    // One address, however many replicas are behind it.
    let clients = Clients { admin, urls: vec![server.clone(); 3], shared_url: server.clone() };
    let mut outcome = Outcome {
        minutes: options.minutes,
        seed: options.seed,
        replay: format!("{} --kubeconfig {} --yes", replay(options), path.display()),
        about: format!("a cluster that runs already, at {server}"),
        report: options.report.clone().unwrap_or_else(|| format!("nemesis-{}.html", options.seed).into()),
        ..Outcome::default()
    };
    let (began, length) = (Instant::now(), Duration::from_secs(options.minutes * 60));
    for round in 1.. {
        if began.elapsed() >= length {
            break;
        }
        let shared = Arc::new(Shared::new(began, &format!("nemesis-outside-{round}")));
        let load = Load::start(clients.clone(), shared.clone(), options.writers, options.seed ^ round).await?;
        let until = Instant::now() + ROUND.min(length.saturating_sub(began.elapsed()));
        let first = outcome.faults.len();
        while Instant::now() < until {
            tokio::time::sleep(PAUSE.min(until.saturating_duration_since(Instant::now()))).await;
            match transfer(binaries, path, &shared).await {
                Ok(seen) => {
                    let late = seen.gap > 5_000_000_000;
                    let why = late.then(|| format!("nothing for {} ms", seen.gap / 1_000_000));
                    outcome.checks.look(Check::GoesOn, 1, why);
                    outcome.faults.push(seen);
                }
                Err(e) => outcome.checks.look(Check::GoesOn, 1, Some(format!("{e:#}"))),
            }
        }
        let collected = load.finish().await.context("the end of a round")?;
        judge(&mut outcome, first, &collected, &shared);
        let client = clients.set()?.swap_remove(0);
        let _ = client.delete(&format!("/api/v1/namespaces/{}", shared.namespace())).await;
    }
    let client = clients.set()?.swap_remove(0);
    let _ = client.delete(&format!("/api/v1/namespaces/{}", requests::NAMESPACE)).await;
    std::fs::write(&outcome.report, page::render(&outcome)).with_context(|| outcome.report.display().to_string())?;
    Ok(outcome)
}

async fn transfer(binaries: &Binaries, kubeconfig: &std::path::Path, shared: &Shared) -> anyhow::Result<Seen> {
    let at = shared.now();
    let mut command = Command::new(&binaries.server);
    command.args(["leader", "transfer", "--kubeconfig"]).arg(kubeconfig);
    let said = tokio::task::spawn_blocking(move || process::run("transfer", &mut command)).await??;
    let Some(leader) = said.trim().strip_prefix("leader=").and_then(|s| s.split(' ').next()) else {
        bail!("leader transfer: {said}");
    };
    let hurt = shared.now();
    let acked = shared.acked();
    wait(WRITES_TIMEOUT, || shared.acked() > acked + 50).await.context("no write was acknowledged after it")?;
    let whole = shared.now();
    let gap = gaps::after_faults(&shared.ack_times(), &[at], whole)[0].length;
    let (replica, hit) = (leader.to_owned(), usize::MAX);
    let done =
        Done { name: "transfer", replica, hit, led: false, at, hurt, healed: hurt, whole, elections: 1, disturbed: 0 };
    Ok(Seen { done, what: "triarch leader transfer", gap })
}
