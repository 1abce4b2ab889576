//! Somebody who types commands: each on a connection of its own to the one
//! address that all replicas share, retried as kubectl and client-go do.
//!
//! Tried again, and not a failure: a refused connection (nothing was sent), and
//! 429 or 5xx with `Retry-After`, after the time it says; ten times at most.
//! Anything else that is not a success is a request that failed: a connection
//! that broke after it was made, a time-out, an answer that is an error.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, header};
use serde_json::{Value, json};
use triarch_lab::{KubeClient, KubeError, Kubeconfig};

use crate::shared::Shared;

/// Where its objects are, apart from those whose history is checked.
pub const NAMESPACE: &str = "nemesis-requests";
/// Tries of one request.
const TRIES: u32 = 10;
/// Before a refused connection is tried again.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// Between two commands.
const PACE: Duration = Duration::from_millis(40);
/// Longest `Retry-After` that is waited for.
const LONGEST_WAIT: u64 = 10;
/// Failures that are kept with their words.
const KEPT: usize = 50;

/// What came of them.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub asked: u64,
    pub retried: u64,
    /// When each failed, nanoseconds of the run, and the first ones' words.
    pub failed: Vec<(u64, String)>,
    /// The slowest, nanoseconds.
    pub slowest: u64,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.asked += other.asked;
        self.retried += other.retried;
        self.failed.extend(other.failed);
        self.failed.sort_unstable();
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// What to do about an answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Done,
    /// Again, after this long.
    Again(Duration),
    Failed(String),
}

fn judge(answer: &Result<Response<Bytes>, KubeError>) -> Next {
    match answer {
        Ok(r) if r.status().is_success() => Next::Done,
        Ok(r) => {
            let again = r.status().as_u16() == 429 || r.status().is_server_error();
            let after = r.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
            match after {
                Some(seconds) if again => Next::Again(Duration::from_secs(seconds.min(LONGEST_WAIT))),
                _ => {
                    let text = String::from_utf8_lossy(&r.body()[..r.body().len().min(300)]).into_owned();
                    Next::Failed(format!("{}: {text}", r.status()))
                }
            }
        }
        // ECONNREFUSED, by its number on Linux: the words are the system's.
        Err(KubeError::Transport(what)) if what.contains("(os error 111)") => Next::Again(REFUSED_PAUSE),
        Err(e) => Next::Failed(e.to_string()),
    }
}

/// Types commands until writing stops.
pub async fn run(number: u32, config: Kubeconfig, shared: Arc<Shared>) -> Tally {
    let mut tally = Tally::default();
    let collection = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    for turn in 0u64.. {
        let name = format!("{}-{number}-{turn}", shared.namespace());
        let path = format!("{collection}/{name}");
        let object = |text: &str| {
            let metadata = json!({"name": name});
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"text": text}})
        };
        let commands = [
            (Method::POST, collection.as_str(), Some(object("made"))),
            (Method::GET, path.as_str(), None),
            (Method::PUT, path.as_str(), Some(object("changed"))),
            (Method::DELETE, path.as_str(), None),
        ];
        for (method, path, body) in commands {
            if shared.stopping() {
                return tally;
            }
            ask(&config, &shared, &method, path, body.as_ref(), &mut tally).await;
            tokio::time::sleep(PACE).await;
        }
    }
    tally
}

async fn ask(
    config: &Kubeconfig,
    shared: &Shared,
    method: &Method,
    path: &str,
    body: Option<&Value>,
    tally: &mut Tally,
) {
    let bytes: Bytes = body.map(|b| b.to_string().into()).unwrap_or_default();
    let media = body.map(|_| "application/json");
    let began = shared.now();
    tally.asked += 1;
    let mut last = String::new();
    for _ in 0..TRIES {
        // A new command is a new process with a new connection.
        let answer = match KubeClient::new(config.clone()) {
            Ok(client) => client.exchange(method.clone(), path, media, bytes.clone()).await,
            Err(e) => Err(KubeError::Body(e.to_string())),
        };
        match judge(&answer) {
            Next::Done => {
                tally.slowest = tally.slowest.max(shared.now() - began);
                return;
            }
            Next::Again(pause) => {
                tally.retried += 1;
                last = format!("{TRIES} tries, the last: {answer:?}");
                tokio::time::sleep(pause).await;
            }
            Next::Failed(what) => {
                last = what;
                break;
            }
        }
    }
    let words = match tally.failed.len() < KEPT {
        true => format!("{:.3} s: {method} {path}: {last}", shared.now() as f64 / 1e9),
        false => String::new(),
    };
    tally.failed.push((shared.now(), words));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, after: Option<&str>) -> Result<Response<Bytes>, KubeError> {
        let builder = Response::builder().status(code);
        let builder = after.into_iter().fold(builder, |b, v| b.header(header::RETRY_AFTER, v));
        Ok(builder.body(Bytes::from_static(b"why")).unwrap())
    }

    #[test]
    fn only_what_kubectl_tries_again_is_tried_again() {
        assert_eq!(judge(&answer(201, None)), Next::Done);
        assert_eq!(judge(&answer(503, Some("1"))), Next::Again(Duration::from_secs(1)));
        assert_eq!(judge(&answer(429, Some("1"))), Next::Again(Duration::from_secs(1)));
        assert!(matches!(judge(&answer(503, None)), Next::Failed(_)));
        assert!(matches!(judge(&answer(409, Some("1"))), Next::Failed(_)));
        let transport = |what: &str| Err(KubeError::Transport(what.to_owned()));
        assert_eq!(judge(&transport("Connection refused (os error 111)")), Next::Again(REFUSED_PAUSE));
        assert!(matches!(judge(&transport("Connection reset by peer (os error 104)")), Next::Failed(_)));
    }
}
