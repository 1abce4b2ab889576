//! Getting a container's image onto the node, by its pull policy.
//!
//! The runtime always goes to the registry when it is asked to pull, so the
//! policy is kept here: ask for the image first, pull only when it says so.

use std::time::Duration;

use serde_json::Value;
use triarch_env::Secret;

use super::memory::Memory;
use crate::model::{Container, Pod, Waiting};
use crate::ports::{NodeContext, Note};
use crate::runtime::{ImageInfo, RegistryAuth};

/// A failed pull is shown as such this long, then as being waited for.
pub const SHOWN: Duration = Duration::from_secs(3);

/// The image, or why the container waits.
pub async fn ensure(ctx: &NodeContext, pod: &Pod, c: &Container, memory: &mut Memory) -> Result<ImageInfo, Waiting> {
    let image = c.image.as_str();
    let note = |warning: bool, reason: &'static str, message: String| {
        ctx.reporter.event(pod, Note { warning, reason, message, field_path: pod.field_path(&c.name) });
    };
    let waiting = |reason: &str, message: String| Waiting { reason: reason.to_owned(), message };
    let present = match ctx.runtime.image(image).await {
        Ok(found) => found,
        Err(e) => {
            let message = format!("Failed to inspect image \"{image}\": {e}");
            note(true, "InspectFailed", message.clone());
            return Err(waiting("ImageInspectError", message));
        }
    };
    let policy = policy(c);
    if let Some(found) = present.filter(|_| policy != Policy::Always) {
        let message = format!("Container image \"{image}\" already present on machine and can be accessed by the pod");
        note(false, "Pulled", message);
        return Ok(found);
    }
    if policy == Policy::Never {
        let message = format!("Container image \"{image}\" is not present with pull policy of Never");
        note(true, "ErrImageNeverPull", message.clone());
        return Err(waiting("ErrImageNeverPull", message));
    }
    let now = ctx.env.wall();
    if let Some((when, error)) = memory.pull_errors.get(image)
        && memory.pulls.waiting(image, *when, now).is_some()
    {
        // What just went wrong is shown for a moment before the waiting is,
        // however often the pod is looked at meanwhile.
        if now.micros - when.micros < SHOWN.as_micros() as i64 {
            return Err(waiting("ErrImagePull", error.clone()));
        }
        note(false, "BackOff", format!("Back-off pulling image \"{image}\""));
        note(true, "Failed", "Error: ImagePullBackOff".into());
        return Err(waiting("ImagePullBackOff", format!("Back-off pulling image \"{image}\": ErrImagePull: {error}")));
    }
    note(false, "Pulling", format!("Pulling image \"{image}\""));
    let start = ctx.env.mono();
    let auth = credentials(ctx, pod, image);
    let pulled = match ctx.runtime.pull(image, auth.as_ref()).await {
        Ok(()) => ctx.runtime.image(image).await.and_then(|found| {
            found.ok_or_else(|| {
                crate::runtime::RuntimeError::Failed(format!("image \"{image}\" is missing after its pull"))
            })
        }),
        Err(e) => Err(e),
    };
    let now = ctx.env.wall();
    match pulled {
        Ok(found) => {
            let took = format!("{:.3}s", (ctx.env.mono() - start).as_secs_f64());
            let size = found.size;
            note(
                false,
                "Pulled",
                format!(
                    "Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {size} bytes."
                ),
            );
            memory.pull_errors.remove(image);
            memory.pulls.forget(image);
            Ok(found)
        }
        Err(e) => {
            let error = e.to_string();
            note(true, "Failed", format!("Failed to pull image \"{image}\": {error}"));
            note(true, "Failed", "Error: ErrImagePull".into());
            memory.pulls.next(image, now, now);
            memory.pull_errors.insert(image.to_owned(), (now, error.clone()));
            Err(waiting("ErrImagePull", error))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

fn policy(c: &Container) -> Policy {
    match c.image_pull_policy.as_str() {
        "Always" => Policy::Always,
        "Never" => Policy::Never,
        "IfNotPresent" => Policy::IfNotPresent,
        _ if tag(&c.image) == "latest" => Policy::Always,
        _ => Policy::IfNotPresent,
    }
}

/// The tag of an image reference; `latest` when it has none and no digest.
fn tag(image: &str) -> &str {
    if image.contains('@') {
        return "";
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').map_or("latest", |(_, tag)| tag)
}

/// The registry of an image reference, as docker's configuration names it.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// The first of the pod's pull secrets that has an entry for the registry.
fn credentials(ctx: &NodeContext, pod: &Pod, image: &str) -> Option<RegistryAuth> {
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD;
    let wanted = registry(image);
    for reference in pod.spec.image_pull_secrets.iter().take(64) {
        let Some(secret) = ctx.objects.get("secrets", &pod.metadata.namespace, &reference.name) else { continue };
        let Some(data) = secret.pointer("/data/.dockerconfigjson").and_then(Value::as_str) else { continue };
        let Ok(bytes) = engine.decode(data) else { continue };
        let Ok(config) = serde_json::from_slice::<Value>(&bytes) else { continue };
        let Some(auths) = config.get("auths").and_then(Value::as_object) else { continue };
        for (server, entry) in auths {
            let host = server.trim_start_matches("https://").trim_start_matches("http://");
            let host = host.split('/').next().unwrap_or(host);
            let same = host == wanted || (wanted == "docker.io" && host == "index.docker.io");
            if !same {
                continue;
            }
            let field = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (mut username, mut password) = (field("username"), field("password"));
            if let Ok(pair) = engine.decode(field("auth"))
                && let Some((u, p)) = String::from_utf8_lossy(&pair).split_once(':')
            {
                (username, password) = (u.to_owned(), p.to_owned());
            }
            return Some(RegistryAuth { username, password: Some(Secret::new(password)), server: server.clone() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_is_pulled_always_and_other_tags_when_absent() {
        let of = |image: &str, policy_text: &str| {
            policy(&Container { image: image.into(), image_pull_policy: policy_text.into(), ..Default::default() })
        };
        assert_eq!(of("web", ""), Policy::Always);
        assert_eq!(of("reg.example:5000/web", ""), Policy::Always);
        assert_eq!(of("reg.example:5000/web:1", ""), Policy::IfNotPresent);
        assert_eq!(of("web@sha256:00", ""), Policy::IfNotPresent);
        assert_eq!(of("web:latest", "Never"), Policy::Never);
    }

    #[test]
    fn the_registry_is_the_first_part_when_it_is_a_host() {
        assert_eq!(registry("web:1"), "docker.io");
        assert_eq!(registry("library/web:1"), "docker.io");
        assert_eq!(registry("ghcr.io/x/web:1"), "ghcr.io");
        assert_eq!(registry("localhost/web"), "localhost");
    }
}
