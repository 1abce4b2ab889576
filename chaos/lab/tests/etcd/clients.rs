//! The programs in `clients/`: built into the target folder, run, and their
//! cases passed on. Each fails when a case did, and when it told of none.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use triarch_lab::binaries::workspace_root;
use triarch_lab::preflight;

use crate::{MISSING, Outcome, World, text};

/// A build or a program that runs longer is ended.
const SECONDS: &str = "600";
/// How long sessions compete, in seconds, and how often the leader dies meanwhile.
const COMPETE: u64 = 24;
const KILL_EVERY: Duration = Duration::from_secs(5);

fn source(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(language)
}

/// Where what is built for these tests is kept.
fn built() -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace_root().join("target"), PathBuf::from);
    let dir = target.join("etcd-clients");
    std::fs::create_dir_all(&dir).map_err(text)?;
    Ok(dir)
}

fn needs(program: &str) -> Result<PathBuf, String> {
    preflight::find(program).ok_or(format!("{MISSING}{program}"))
}

fn limited(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg(SECONDS).arg(program).stdin(Stdio::null());
    command
}

/// A step of a build; what it said only when it failed.
async fn build(mut command: Command) -> Outcome {
    let what = format!("{command:?}");
    let out = tokio::task::spawn_blocking(move || command.output()).await.map_err(text)?.map_err(text)?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{what}: {}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

/// Runs a program of cases.
async fn cases(mut command: Command) -> Outcome {
    let out = tokio::task::spawn_blocking(move || command.output()).await.map_err(text)?.map_err(text)?;
    let said = String::from_utf8_lossy(&out.stdout);
    print!("{said}");
    let told: Vec<&str> = said.lines().filter(|l| l.starts_with("case ")).collect();
    let failed: Vec<&str> = told.iter().filter(|l| l.contains(" FAILED")).copied().collect();
    if !out.status.success() || !failed.is_empty() || told.is_empty() {
        return Err(format!(
            "{}, {} cases: {failed:?} {}",
            out.status,
            told.len(),
            String::from_utf8_lossy(&out.stderr)
        ));
    }
    Ok(())
}

async fn go_program() -> Result<PathBuf, String> {
    let (go, program) = (needs("go")?, built()?.join("etcd-clients-go"));
    let mut command = limited(&go);
    command.args(["build", "-mod=readonly", "-o"]).arg(&program).arg(".").current_dir(source("go"));
    build(command).await?;
    Ok(program)
}

fn go_command(world: &World, program: &Path, part: &str) -> Command {
    let mut command = limited(program);
    command.args(["-endpoints", &world.urls(), "-cacert", &world.file("ca.crt")]);
    command.args(["-cert", &world.file("client.crt"), "-key", &world.file("client.key")]);
    command.args(["-seconds", &COMPETE.to_string(), part]);
    command
}

pub async fn go(world: &mut World) -> Outcome {
    let program = go_program().await?;
    cases(go_command(world, &program, "uses")).await
}

pub async fn rust(world: &mut World) -> Outcome {
    needs("protoc")?;
    let cargo = std::env::var_os("CARGO").map_or(needs("cargo")?, PathBuf::from);
    let mut command = limited(&cargo);
    command.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(source("rust").join("Cargo.toml"));
    let target = built()?.join("rust");
    command.arg("--target-dir").arg(&target);
    build(command).await?;
    let mut command = limited(&target.join("debug/etcd-clients-rust"));
    command.arg(world.urls()).args(["ca.crt", "client.crt", "client.key"].map(|f| world.file(f)));
    cases(command).await
}

pub async fn python(world: &mut World) -> Outcome {
    let (python, venv) = (needs("python3")?, built()?.join("python"));
    let requirements = source("python").join("requirements.txt");
    // Whole only with this file, which says for what it was made.
    let (wanted, done) = (std::fs::read(&requirements).map_err(text)?, venv.join("requirements.txt"));
    if std::fs::read(&done).ok().as_ref() != Some(&wanted) {
        let mut command = limited(&python);
        command.args(["-m", "venv", "--clear"]).arg(&venv);
        build(command).await?;
        let mut command = limited(&venv.join("bin/pip"));
        command.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&requirements);
        build(command).await?;
        std::fs::write(&done, &wanted).map_err(text)?;
    }
    let mut command = limited(&venv.join("bin/python"));
    command.arg(source("python").join("uses.py")).arg(&world.addresses[0]);
    command.args(["ca.crt", "client.crt", "client.key"].map(|f| world.file(f)));
    cases(command).await
}

pub async fn mutex(world: &mut World) -> Outcome {
    competing(world, "mutex").await
}

pub async fn election(world: &mut World) -> Outcome {
    competing(world, "election").await
}

/// Sessions compete while leaders die.
async fn competing(world: &mut World, part: &str) -> Outcome {
    let program = go_program().await?;
    let end = Instant::now() + Duration::from_secs(COMPETE);
    let running = tokio::spawn(cases(go_command(world, &program, part)));
    let mut kills = 0;
    while Instant::now() + KILL_EVERY < end {
        tokio::time::sleep(KILL_EVERY).await;
        world.kill_leader().await?;
        kills += 1;
    }
    let outcome = running.await.map_err(text)?;
    println!("leaders killed: {kills}");
    if kills == 0 { Err("no leader was killed".into()) } else { outcome }
}
