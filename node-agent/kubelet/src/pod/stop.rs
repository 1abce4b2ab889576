//! Stopping containers and pods: preStop, SIGTERM, grace, SIGKILL, sandbox.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::model::{Container, Handler, Pod};
use crate::ports::{NodeContext, Note};
use crate::probe::{self, Outcome};
use crate::runtime::{ContainerInfo, Observed, RuntimeError};

/// Even a grace of zero leaves a process this long to go.
const LEAST: Duration = Duration::from_secs(1);

/// Runs a hook in a running container.
pub async fn hook(
    ctx: &NodeContext,
    c: &Container,
    handler: &Handler,
    id: &str,
    ip: &str,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        return match ctx.runtime.exec(id, &exec.command, limit).await {
            Ok(r) if r.exit_code == 0 => Ok(()),
            Ok(r) => {
                let output = String::from_utf8_lossy(&r.output).into_owned();
                Err(format!("command '{}' exited with {}: {output}", exec.command.join(" "), r.exit_code))
            }
            Err(e) => Err(e.to_string()),
        };
    }
    if let Some(sleep) = &handler.sleep {
        ctx.env.sleep(Duration::from_secs(sleep.seconds).min(limit)).await;
        return Ok(());
    }
    if let Some(http) = &handler.http_get {
        let request = probe::resolve(c, http, ip).ok_or_else(|| format!("couldn't find port: {:?}", http.port))?;
        return match ctx.dialer.http(&request, limit).await {
            Outcome::Success => Ok(()),
            Outcome::Failure(text) | Outcome::Unknown(text) => Err(text),
        };
    }
    Err("Invalid handler: nothing to run".into())
}

/// Stops one container: preStop inside the grace, then the runtime.
pub async fn container(
    ctx: &NodeContext,
    pod: &Pod,
    info: &ContainerInfo,
    ip: &str,
    grace: Duration,
    message: Option<&str>,
) -> Result<(), RuntimeError> {
    let name = &info.name;
    let field_path = pod.field_path(name);
    let text = message.map_or_else(|| format!("Stopping container {name}"), str::to_owned);
    let note = Note { warning: false, reason: "Killing", message: text, field_path: field_path.clone() };
    ctx.reporter.event(pod, note);
    let mut left = grace;
    let spec = pod.container(name);
    let pre_stop = spec.and_then(|c| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
    if let (Some(c), Some(handler)) = (spec, pre_stop)
        && !grace.is_zero()
    {
        let start = ctx.env.mono();
        let done = ctx.env.timeout(grace, hook(ctx, c, handler, &info.id, ip, grace)).await;
        if !matches!(done, Ok(Ok(()))) {
            let note =
                Note { warning: true, reason: "FailedPreStopHook", message: "PreStopHook failed".into(), field_path };
            ctx.reporter.event(pod, note);
        }
        left = grace.saturating_sub(ctx.env.mono() - start);
    }
    match ctx.runtime.stop_container(&info.id, left.max(LEAST)).await {
        Err(e) if !e.is_not_found() => Err(e),
        _ => Ok(()),
    }
}

/// Stops everything that runs, the pod's containers together and its sidecars
/// after them in reverse order, and then its sandboxes.
pub async fn pod(ctx: &NodeContext, pod: &Pod, seen: &Observed, grace: Duration) -> Result<(), RuntimeError> {
    let start = ctx.env.mono();
    let ip = seen.sandbox().and_then(|s| s.ips.first().cloned()).unwrap_or_default();
    let sidecar =
        |c: &ContainerInfo| pod.spec.init_containers.iter().position(|i| i.name == c.name && i.is_sidecar(true));
    let (beside, mut main): (Vec<_>, Vec<_>) = seen.running().partition(|c| sidecar(c).is_some());
    // A container that was made but never started still holds its place.
    main.retain(|c| !c.id.is_empty());
    let mut all: FuturesUnordered<_> = main.into_iter().map(|c| container(ctx, pod, c, &ip, grace, None)).collect();
    let mut outcome = Ok(());
    while let Some(done) = all.next().await {
        outcome = outcome.and(done);
    }
    let mut beside = beside;
    beside.sort_by_key(|c| std::cmp::Reverse(sidecar(c)));
    for c in beside {
        let left = grace.saturating_sub(ctx.env.mono() - start);
        outcome = outcome.and(container(ctx, pod, c, &ip, left, None).await);
    }
    outcome?;
    for sandbox in seen.sandboxes.iter().filter(|s| s.ready) {
        match ctx.runtime.stop_sandbox(&sandbox.id).await {
            Err(e) if !e.is_not_found() => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Removes what the runtime keeps of an ended pod.
pub async fn remove(ctx: &NodeContext, seen: &Observed) -> Result<(), RuntimeError> {
    let ignore = |r: Result<(), RuntimeError>| match r {
        Err(e) if !e.is_not_found() => Err(e),
        _ => Ok(()),
    };
    for c in &seen.containers {
        ignore(ctx.runtime.remove_container(&c.id).await)?;
    }
    for s in &seen.sandboxes {
        ignore(ctx.runtime.stop_sandbox(&s.id).await)?;
        ignore(ctx.runtime.remove_sandbox(&s.id).await)?;
    }
    Ok(())
}
