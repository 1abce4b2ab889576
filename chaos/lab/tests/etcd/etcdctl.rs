//! `clients/etcdctl.txt`, played with the machine's own etcdctl.

use std::process::Command;
use std::time::{Duration, Instant};

use triarch_lab::preflight;
use triarch_lab::scenario::{Action, compare, parse};

use crate::{MISSING, Outcome, World, text};

/// A patient step is given up after this.
const PATIENCE: Duration = Duration::from_secs(30);
/// A command that runs longer is ended.
const COMMAND_SECONDS: &str = "60";

/// The environment that names the cluster and the certificate.
pub fn environment(world: &World) -> [(&'static str, String); 5] {
    [
        ("ETCDCTL_API", "3".into()),
        ("ETCDCTL_ENDPOINTS", world.urls()),
        ("ETCDCTL_CACERT", world.file("ca.crt")),
        ("ETCDCTL_CERT", world.file("client.crt")),
        ("ETCDCTL_KEY", world.file("client.key")),
    ]
}

pub async fn script(world: &mut World) -> Outcome {
    preflight::find("etcdctl").ok_or(format!("{MISSING}etcdctl"))?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/etcdctl.txt");
    let steps = parse(&std::fs::read_to_string(script).map_err(text)?)?;
    for step in &steps {
        let Action::Run { command, fails, patient } = &step.action else {
            return Err(format!("etcdctl.txt:{}: there are no faults here", step.line));
        };
        let end = Instant::now() + PATIENCE;
        loop {
            let (ok, output) = run(world, command).await?;
            let outcome = if ok == *fails {
                Err(format!("{}: {output}", if ok { "succeeded" } else { "failed" }))
            } else {
                compare(&output, &step.expected)
            };
            match outcome {
                Ok(()) => break,
                Err(_) if *patient && Instant::now() < end => tokio::time::sleep(Duration::from_millis(200)).await,
                Err(why) => return Err(format!("etcdctl.txt:{}: {command}: {why}", step.line)),
            }
        }
        println!("case etcdctl line {} ok", step.line);
    }
    Ok(())
}

/// Both streams together, and whether it succeeded.
pub async fn run(world: &World, command: &str) -> Result<(bool, String), String> {
    let mut shell = Command::new("timeout");
    shell.args([COMMAND_SECONDS, "bash", "-c", &format!("exec 2>&1\n{command}")]);
    shell.envs(environment(world));
    let out = tokio::task::spawn_blocking(move || shell.output()).await.map_err(text)?.map_err(text)?;
    Ok((out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned()))
}
