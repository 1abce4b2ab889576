//! A client that writes, at its own replica as long as that one answers.
//!
//! Every request is recorded with what its client was told and nothing more:
//! an answer, a refusal, or that there was none.

use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use triarch_check::{Action, Operation, Outcome};
use triarch_lab::{KubeClient, KubeError};

use crate::shared::Shared;

/// Keys that all writers fight over.
pub const REGISTERS: u32 = 24;
/// A request without an answer by then has an unknown outcome.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two requests of a writer, milliseconds. Uneven, since writers that
/// a fault has brought into step would make gaps of their own.
const PACE: std::ops::Range<u64> = 10..30;
/// After a failure, before the next replica is tried.
const BACK_OFF: Duration = Duration::from_millis(2);
/// Objects of its own that a writer keeps.
const OWN_OBJECTS: usize = 6;

/// Name of a shared key.
pub fn register(i: u32) -> String {
    format!("r-{i}")
}

/// The object that holds a value.
pub fn object(name: &str, value: u64, revision: Option<u64>) -> Value {
    let mut metadata = json!({"name": name});
    if let Some(revision) = revision {
        metadata["resourceVersion"] = revision.to_string().into();
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"v": value.to_string()}})
}

/// Revision and value of an object; `None` for one that is not ours.
pub fn contents(object: &Value) -> Option<(u64, u64)> {
    let revision = object["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
    Some((revision, object["data"]["v"].as_str()?.parse().ok()?))
}

pub struct Writer {
    number: u32,
    shared: Arc<Shared>,
    collection: String,
    /// One a replica.
    clients: Vec<KubeClient>,
    home: usize,
    at: usize,
    generation: u64,
    rng: ChaCha8Rng,
    own: Vec<String>,
    made: u64,
    history: Vec<Operation>,
}

impl Writer {
    pub fn new(number: u32, seed: u64, shared: Arc<Shared>, clients: Vec<KubeClient>) -> Writer {
        let home = number as usize % clients.len();
        let rng = ChaCha8Rng::seed_from_u64(seed ^ (u64::from(number) << 32));
        let (own, history) = (Vec::new(), Vec::new());
        let collection = shared.collection();
        Writer { number, shared, collection, clients, home, at: home, generation: 0, rng, own, made: 0, history }
    }

    /// Writes until told to stop; everything that was asked and answered.
    pub async fn run(mut self) -> Vec<Operation> {
        while !self.shared.stopping() {
            let generation = self.shared.generation();
            if generation != self.generation {
                (self.generation, self.at) = (generation, self.home);
            }
            let answered = self.step().await;
            if answered {
                let pace = Duration::from_millis(self.rng.random_range(PACE));
                tokio::time::sleep(pace).await;
            } else {
                self.at = (self.at + 1) % self.clients.len();
                tokio::time::sleep(BACK_OFF).await;
            }
        }
        self.history
    }

    /// One thing to do; false when its replica did not answer.
    async fn step(&mut self) -> bool {
        let key = register(self.rng.random_range(0..REGISTERS));
        let value = self.shared.value();
        match self.rng.random_range(0..100) {
            0..60 => self.ask(key, Action::Write(value)).await,
            60..72 => self.ask(key, Action::Read).await,
            72..84 => {
                let answered = self.ask(key.clone(), Action::Read).await;
                let read = self.history.last().and_then(Operation::revision);
                match read {
                    Some(from) => self.ask(key, Action::Swap { from, to: value }).await,
                    None => answered,
                }
            }
            _ if self.own.len() < OWN_OBJECTS => {
                self.made += 1;
                let key = format!("w{}-{}", self.number, self.made);
                let answered = self.ask(key.clone(), Action::Create(value)).await;
                if self.history.last().is_some_and(Operation::is_acked) {
                    self.own.push(key);
                }
                answered
            }
            _ => {
                let at = self.rng.random_range(0..self.own.len());
                let key = self.own.swap_remove(at);
                self.ask(key, Action::Delete).await
            }
        }
    }

    async fn ask(&mut self, key: String, action: Action) -> bool {
        let client = &self.clients[self.at];
        let path = format!("{}/{key}", self.collection);
        let start = self.shared.now();
        let request = async {
            match &action {
                Action::Read => client.get(&path).await,
                Action::Write(v) => client.replace(&path, &object(&key, *v, None)).await,
                Action::Swap { from, to } => client.replace(&path, &object(&key, *to, Some(*from))).await,
                Action::Create(v) => client.create(&self.collection, &object(&key, *v, None)).await,
                Action::Delete => client.delete(&path).await,
            }
        };
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, request).await;
        let end = self.shared.now();
        let answer = answer.unwrap_or_else(|_| Err(KubeError::Transport("no answer in time".into())));
        let (outcome, answered) = judge(&action, &answer);
        if let (Outcome::Ok { revision, .. }, true) = (outcome, action != Action::Read) {
            self.shared.ack(end, revision);
        }
        self.history.push(Operation { client: self.number, key, action, outcome, start, end });
        answered
    }
}

/// What a client was told, and whether its replica is of use.
fn judge(action: &Action, answer: &Result<Value, KubeError>) -> (Outcome, bool) {
    match answer {
        Ok(object) if *action == Action::Delete => {
            let _ = object;
            // A deletion's answer names no revision: watchers tell it.
            (Outcome::Ok { revision: 0, value: None }, true)
        }
        Ok(object) => match contents(object) {
            Some((revision, value)) => {
                let value = (*action == Action::Read).then_some(value);
                (Outcome::Ok { revision, value }, true)
            }
            // An answer that says nothing.
            None => (Outcome::Unknown, false),
        },
        Err(KubeError::Status { code: 409, reason, .. }) if reason == "Conflict" => (Outcome::Refused, true),
        Err(KubeError::Status { code: 404, .. }) if *action == Action::Read => {
            (Outcome::Ok { revision: 0, value: None }, true)
        }
        Err(KubeError::Status { code: 400..=404 | 422, .. }) => (Outcome::Refused, true),
        // Also of a creation that is refused because it is there: perhaps by this very request.
        Err(_) => (Outcome::Unknown, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, reason: &str) -> Result<Value, KubeError> {
        Err(KubeError::Status { code, reason: reason.into(), message: String::new() })
    }

    #[test]
    fn only_what_the_server_surely_did_not_do_counts_as_refused() {
        let write = Action::Write(1);
        assert_eq!(judge(&write, &refused(409, "Conflict")).0, Outcome::Refused);
        assert_eq!(judge(&Action::Create(1), &refused(409, "AlreadyExists")).0, Outcome::Unknown);
        assert_eq!(judge(&write, &refused(500, "InternalError")), (Outcome::Unknown, false));
        assert_eq!(judge(&write, &refused(429, "TooManyRequests")).0, Outcome::Unknown);
        assert_eq!(judge(&write, &Err(KubeError::Transport("broken".into()))).0, Outcome::Unknown);
    }

    #[test]
    fn an_acknowledged_object_comes_back_with_its_revision() {
        let stored = object("r-1", 7, Some(41));
        assert_eq!(judge(&Action::Write(7), &Ok(stored.clone())).0, Outcome::Ok { revision: 41, value: None });
        assert_eq!(judge(&Action::Read, &Ok(stored)).0, Outcome::Ok { revision: 41, value: Some(7) });
        assert_eq!(judge(&Action::Read, &refused(404, "NotFound")).0, Outcome::Ok { revision: 0, value: None });
    }
}
