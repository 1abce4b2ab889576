//! Runs `scenarios/*.txt` with the real kubectl against three replicas and
//! hollow nodes. Each script has a namespace of its own, made before and
//! deleted after.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use triarch_lab::scenario::{Action, Step, compare, parse};
use triarch_lab::suite::Suite;
use triarch_lab::{Binaries, Lab, LabOptions, Nodes, Options, Profile, Progress, preflight};

/// A patient step is given up after this.
const PATIENCE: Duration = Duration::from_secs(60);
/// A command that runs longer is ended.
const COMMAND_SECONDS: &str = "90";

fn main() -> ExitCode {
    Suite::main(run)
}

fn scripts() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut all: Vec<(String, String)> = std::fs::read_dir(dir)
        .expect("the folder is part of the source")
        .map(|e| e.expect("a readable folder").path())
        .filter(|p| p.extension().is_some_and(|e| e == "txt"))
        .map(|p| {
            let name = p.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&p).expect("a readable script"))
        })
        .collect();
    all.sort();
    let wanted = std::env::var("SCENARIO").unwrap_or_default();
    all.retain(|(name, _)| wanted.is_empty() || wanted.split(',').any(|w| w == name));
    all
}

async fn run(suite: &mut Suite, dir: &TempDir) {
    let scripts = scripts();
    if preflight::find("kubectl").is_none() {
        return scripts.iter().for_each(|(name, _)| suite.skip(name, "there is no kubectl"));
    }
    let began = Instant::now();
    let mut lab = match start(dir.path()).await {
        Ok(lab) => lab,
        Err(e) => return suite.record("a_lab_starts", began, Err(e)),
    };
    for (name, text) in &scripts {
        let began = Instant::now();
        let outcome = play(&mut lab, name, text).await;
        suite.record(name, began, outcome);
    }
    lab.stop();
}

async fn start(dir: &Path) -> Result<Lab, String> {
    let binaries = Binaries::obtain(Profile::Dev).map_err(|e| e.to_string())?;
    let cluster = Options { binaries: Some(binaries), ..Options::new(dir) };
    let options = LabOptions { cluster, nodes: Nodes::Hollow(3), sample: false };
    Lab::start(options, &Progress::quiet()).await.map_err(|e| e.to_string())
}

async fn play(lab: &mut Lab, name: &str, text: &str) -> Result<(), String> {
    let steps = parse(text)?;
    let client = lab.client().map_err(|e| e.to_string())?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    client.ensure(&namespace).await.map_err(|e| e.to_string())?;
    let mut outcome = Ok(());
    for step in &steps {
        if let Err(why) = take(lab, name, step).await {
            outcome = Err(format!("{name}.txt:{}: {why}", step.line));
            break;
        }
    }
    // The next script does not depend on it; `stop` ends the rest.
    let _ = client.delete(&format!("/api/v1/namespaces/{name}")).await;
    outcome
}

async fn take(lab: &mut Lab, namespace: &str, step: &Step) -> Result<(), String> {
    let (command, fails, patient) = match &step.action {
        Action::Fault(fault) => return inflict(lab, fault).await,
        Action::Run { command, fails, patient } => (command, *fails, *patient),
    };
    let end = Instant::now() + PATIENCE;
    loop {
        let (ok, output) = shell(lab, namespace, command).await?;
        let outcome = if ok == fails {
            Err(format!("{command}: {}: {output}", if ok { "succeeded" } else { "failed" }))
        } else {
            compare(&output, &step.expected).map_err(|e| format!("{command}: {e}"))
        };
        if outcome.is_ok() || !patient || Instant::now() >= end {
            return outcome;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Both streams together, and whether it succeeded.
async fn shell(lab: &mut Lab, namespace: &str, command: &str) -> Result<(bool, String), String> {
    let mut shell = Command::new("timeout");
    // kubectl's flags come from the environment of a function around it.
    let script = format!("kubectl() {{ command kubectl -n {namespace} \"$@\"; }}\n{command}");
    shell.args([COMMAND_SECONDS, "bash", "-c", &format!("exec 2>&1\n{script}")]);
    shell.env("KUBECONFIG", lab.cluster().kubeconfig_path()).env("HOME", lab.cluster().dir());
    let out = tokio::task::spawn_blocking(move || shell.output()).await.map_err(|e| e.to_string())?;
    let out = out.map_err(|e| e.to_string())?;
    Ok((out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned()))
}

async fn inflict(lab: &mut Lab, fault: &str) -> Result<(), String> {
    match fault {
        "kill-leader" => {
            let leader = lab.cluster().leader().await.map_err(|e| e.to_string())?.ok_or("there is no leader")?;
            lab.cluster().kill(leader).map_err(|e| e.to_string())
        }
        "revive" => {
            lab.revive().map_err(|e| e.to_string())?;
            lab.cluster().wait_all_ready().await.map_err(|e| e.to_string())
        }
        "transfer" => lab.cluster().triarch(&["leader", "transfer"]).await.map(drop).map_err(|e| e.to_string()),
        other => Err(format!("there is no fault {other:?}")),
    }
}
