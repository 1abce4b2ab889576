//! Deletes what has a time to live: Events an hour after they were last
//! written, bootstrap tokens after their expiration.
//!
//! A sweep reads a page and goes on from its end a moment later, so that a
//! hundred thousand Events never hold up anything else.

use std::time::Duration;

use base64::Engine;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use crate::world::Change;
use crate::*;

pub const EVENT_TTL: Duration = Duration::from_secs(3600);
const PAGE: usize = 500;
const BETWEEN_PAGES: Duration = Duration::from_secs(1);
const BETWEEN_SWEEPS: Duration = Duration::from_secs(60);

/// The key's name is where the sweep stands.
const EVENTS_SWEEP: &str = "~events";
const TOKENS_SWEEP: &str = "~bootstrap-tokens";

pub struct Expiry {
    /// How long Events are kept after they were last seen.
    pub event_ttl: Duration,
}

impl Default for Expiry {
    fn default() -> Expiry {
        Expiry { event_ttl: EVENT_TTL }
    }
}

impl Controller for Expiry {
    fn name(&self) -> &'static str {
        "expiry"
    }

    fn keys(&self, _: &World, _: &Change, _: &mut Vec<Key>) {}

    fn first(&self) -> Vec<Key> {
        vec![Key::new(EVENTS_SWEEP, Name::cluster("")), Key::new(TOKENS_SWEEP, Name::cluster(""))]
    }

    fn reconcile(&self, cx: &Context<'_>, key: &Key) -> Plan {
        let (resource, namespace) = match key.resource {
            EVENTS_SWEEP => (resources::EVENTS, None),
            _ => (resources::SECRETS, Some("kube-system")),
        };
        let after =
            (!key.name.name.is_empty()).then(|| triarch_mvcc::Key::new(resource, &key.name.namespace, &key.name.name));
        let page = cx.store.page(resource, namespace, after, PAGE);
        let writes: Vec<Write> = page
            .iter()
            .filter(|i| if namespace.is_none() { event_expired(i, self.event_ttl, cx) } else { token_expired(i, cx) })
            .map(|i| {
                let name = Name::new(i.key.namespace(), i.key.name());
                let options =
                    DeleteOptions { resource_version: Some(i.revision.to_string()), ..DeleteOptions::default() };
                Op::Delete { resource, name, options }.into()
            })
            .collect();
        let mut plan = Plan::default();
        if !writes.is_empty() {
            plan.steps.push(Step::All(writes));
        }
        match page.last().filter(|_| page.len() == PAGE) {
            Some(last) => {
                plan.after(&Key::new(key.resource, Name::new(last.key.namespace(), last.key.name())), BETWEEN_PAGES)
            }
            None => plan.after(&Key::new(key.resource, Name::cluster("")), BETWEEN_SWEEPS),
        }
        plan
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct EventTimes {
    metadata: EventMeta,
    last_timestamp: Option<Timestamp>,
    event_time: Option<Timestamp>,
    series: Option<Series>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct EventMeta {
    creation_timestamp: Option<Timestamp>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Series {
    last_observed_time: Option<Timestamp>,
}

fn event_expired(item: &Item, ttl: Duration, cx: &Context<'_>) -> bool {
    let Ok(t) = crate::world::parse::<EventTimes>(&item.object, item.revision) else { return false };
    let times =
        [t.metadata.creation_timestamp, t.last_timestamp, t.event_time, t.series.and_then(|s| s.last_observed_time)];
    let last = times.into_iter().flatten().max();
    last.is_some_and(|l| l.as_second() + (ttl.as_secs() as i64) < cx.now.secs())
}

fn token_expired(item: &Item, cx: &Context<'_>) -> bool {
    if !item.key.name().starts_with("bootstrap-token-") {
        return false;
    }
    let v = item.value();
    if v["type"] != "bootstrap.kubernetes.io/token" {
        return false;
    }
    let Some(encoded) = v["data"]["expiration"].as_str() else { return false };
    let text = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
    // An expiration that cannot be read counts as passed: such a token is refused anyway.
    let at: Option<Timestamp> = std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok());
    at.is_none_or(|t| t.as_second() < cx.now.secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;
    use serde_json::json;

    fn gone(plan: &Plan) -> Vec<String> {
        plan.writes()
            .map(|w| match &w.op {
                Op::Delete { name, .. } => name.name.to_string(),
                o => panic!("{o:?}"),
            })
            .collect()
    }

    #[test]
    fn events_go_an_hour_after_they_were_last_seen() {
        let e = |n: &str, created: &str, last: &str| json!({"metadata": {"name": n, "namespace": "d", "creationTimestamp": created}, "lastTimestamp": last});
        let (old, fresh) = ("1970-01-12T12:40:00Z", "1970-01-12T13:00:00Z"); // 4000 s and 2800 s ago
        let f = Fixture::new()
            .put(resources::EVENTS, e("a", old, old))
            .put(resources::EVENTS, e("b", old, fresh))
            .put(resources::EVENTS, e("c", fresh, fresh));
        assert_eq!(gone(&f.reconcile(&Expiry::default(), &Expiry::default().first()[0])), ["a"]);
    }

    #[test]
    fn a_long_sweep_goes_on_where_it_stood() {
        let mut f = Fixture::new();
        for i in 0..=PAGE {
            f.set(resources::EVENTS, json!({"metadata": {"name": format!("e{i:04}"), "namespace": "d"}}));
        }
        let plan = f.reconcile(&Expiry::default(), &Expiry::default().first()[0]);
        assert_eq!(plan.requeue, [(Key::new(EVENTS_SWEEP, Name::new("d", "e0499")), BETWEEN_PAGES)]);
        let plan = f.reconcile(&Expiry::default(), &plan.requeue[0].0);
        assert_eq!(plan.requeue, [(Expiry::default().first()[0].clone(), BETWEEN_SWEEPS)]);
    }

    #[test]
    fn expired_bootstrap_tokens_go_and_other_secrets_stay() {
        let secret = |n: &str, kind: &str, at: &str| {
            let at = base64::engine::general_purpose::STANDARD.encode(at);
            json!({"metadata": {"name": n, "namespace": "kube-system"}, "type": kind, "data": {"expiration": at}})
        };
        let token = "bootstrap.kubernetes.io/token";
        let f = Fixture::new()
            .put(resources::SECRETS, secret("bootstrap-token-a", token, "1970-01-02T00:00:00Z"))
            .put(resources::SECRETS, secret("bootstrap-token-b", token, "1970-02-02T00:00:00Z"))
            .put(resources::SECRETS, secret("mine", "Opaque", "1970-01-02T00:00:00Z"));
        assert_eq!(gone(&f.reconcile(&Expiry::default(), &Expiry::default().first()[1])), ["bootstrap-token-a"]);
    }
}
