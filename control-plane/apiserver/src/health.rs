//! /livez, /readyz, /healthz: named checks, each also under its own path.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use crate::query::Query;
use crate::respond::{self, Body};

/// One named check; the error says why it is not well (shown only in logs, as upstream does).
#[derive(Clone)]
pub struct Check {
    pub name: &'static str,
    /// Part of /livez too; every check is part of /readyz and /healthz.
    pub live: bool,
    pub run: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl Check {
    pub fn new(name: &'static str, live: bool, run: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Check {
        Check { name, live, run: Arc::new(run) }
    }
}

/// Answers a path that starts with one of the three endpoints; `None` for others.
pub fn answer(checks: &[Check], path: &str, query: &Query) -> Option<Response<Body>> {
    let mut parts = path.trim_matches('/').splitn(2, '/');
    let endpoint = parts.next().filter(|e| matches!(*e, "livez" | "readyz" | "healthz"))?;
    let relevant = |c: &&Check| endpoint != "livez" || c.live;
    if let Some(name) = parts.next() {
        if name == "ping" {
            return Some(respond::text(200, "ok"));
        }
        let Some(check) = checks.iter().filter(relevant).find(|c| c.name == name) else {
            return Some(respond::page_not_found());
        };
        return Some(match (check.run)() {
            Ok(()) => respond::text(200, "ok"),
            Err(why) => respond::text(500, format!("internal server error: {why}\n")),
        });
    }
    let excluded: Vec<&str> = query.0.iter().filter(|(k, _)| k == "exclude").map(|(_, v)| v.as_str()).collect();
    let (mut lines, mut failed) = (String::from("[+]ping ok\n"), Vec::new());
    for check in checks.iter().filter(relevant) {
        if excluded.contains(&check.name) {
            lines.push_str(&format!("[+]{} excluded: ok\n", check.name));
            continue;
        }
        match (check.run)() {
            Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name)),
            Err(why) => {
                tracing::info!(check = check.name, endpoint, reason = %why, "health check failed");
                lines.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
                failed.push(check.name);
            }
        }
    }
    if !failed.is_empty() {
        return Some(respond::text(500, format!("{lines}{endpoint} check failed\n")));
    }
    if query.has("verbose") {
        return Some(respond::text(200, format!("{lines}{endpoint} check passed\n")));
    }
    Some(respond::text(200, Bytes::from_static(b"ok")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn ask(checks: &[Check], path: &str, query: &str) -> (u16, String) {
        let r = answer(checks, path, &Query::parse(query)).unwrap();
        let code = r.status().as_u16();
        (code, String::from_utf8(r.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_failed_check_is_named_and_liveness_ignores_readiness() {
        let checks = [Check::new("log", true, || Ok(())), Check::new("caught-up", false, || Err("behind".into()))];
        assert_eq!(ask(&checks, "/livez", "").await, (200, "ok".into()));
        assert_eq!(ask(&checks, "/readyz", "").await.0, 500);
        assert!(ask(&checks, "/readyz", "verbose").await.1.contains("[-]caught-up failed: reason withheld"));
        assert_eq!(ask(&checks, "/readyz/log", "").await, (200, "ok".into()));
        assert_eq!(ask(&checks, "/readyz", "exclude=caught-up").await.0, 200);
        assert_eq!(ask(&checks, "/livez", "verbose").await.1, "[+]ping ok\n[+]log ok\nlivez check passed\n");
        assert!(answer(&checks, "/metrics", &Query::default()).is_none());
    }
}
