//! Clients: some fight over a few keys in every way that the API has, the
//! others make many small writes at once.
//!
//! Every request is recorded with what its client was told and nothing more.

use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tonic::transport::Channel;
use triarch_check::transactions::{Answer, Key, Request};
use triarch_etcd::etcdserverpb::kv_client::KvClient;

use super::api::{self, Ask, PREFIX};
use crate::board::Board;

/// Clients that fight.
pub const FIGHTERS: u32 = 12;
/// Clients that write small values as fast as they are answered.
pub const STREAMS: u32 = 48;
/// Keys that are fought over.
const REGISTERS: u32 = 8;
/// Pairs of keys that are always written together.
const PAIRS: u32 = 3;
/// Keys of its own that a stream writes in turn.
const OWN: u64 = 20;
/// Of its writes, each so many-th compares all keys first.
const SURVEY: u64 = 10;
/// Between two requests of a fighter, milliseconds.
const PACE: std::ops::Range<u64> = 2..12;
/// After a failure, before the next member is tried.
const BACK_OFF: Duration = Duration::from_millis(10);
/// Answers after which a client goes back to the member that it began with.
const HOME: u32 = 200;
/// Requests that one client keeps; it stops there.
const MAX_REQUESTS: usize = 100_000;

/// Whether the search looks at this key: those that are fought over.
pub fn is_contended(key: &str) -> bool {
    key.starts_with("h/r") || key.starts_with("h/p")
}

fn register(i: u32) -> Key {
    format!("{PREFIX}r{i}").into()
}

fn pair(i: u32) -> [Key; 2] {
    ["a", "b"].map(|half| format!("{PREFIX}p{i}{half}").into())
}

pub struct Client {
    number: u32,
    board: Arc<Board>,
    /// One a member.
    members: Vec<KvClient<Channel>>,
    at: usize,
    answers: u32,
    rng: ChaCha8Rng,
    written: u64,
    history: Vec<Request>,
}

impl Client {
    pub fn new(number: u32, seed: u64, board: Arc<Board>, members: &[Channel]) -> Client {
        let at = number as usize % members.len();
        let members = members.iter().map(|c| KvClient::new(c.clone())).collect();
        let rng = ChaCha8Rng::seed_from_u64(seed ^ (u64::from(number) << 32));
        Client { number, board, members, at, answers: 0, rng, written: 0, history: Vec::new() }
    }

    /// Asks until told to stop; everything that was asked and answered.
    pub async fn run(mut self) -> Vec<Request> {
        while !self.board.stopping() && self.history.len() < MAX_REQUESTS {
            let answered = if self.number < FIGHTERS { self.fight().await } else { self.stream().await };
            if !answered {
                self.at = (self.at + 1) % self.members.len();
                tokio::time::sleep(BACK_OFF).await;
            } else if self.number < FIGHTERS {
                tokio::time::sleep(Duration::from_millis(self.rng.random_range(PACE))).await;
            }
            self.answers += u32::from(answered);
            if self.answers >= HOME {
                (self.at, self.answers) = (self.number as usize % self.members.len(), 0);
            }
        }
        self.history
    }

    async fn stream(&mut self) -> bool {
        self.written += 1;
        let key = format!("{PREFIX}w{}-{}", self.number, self.written % OWN).into();
        let writes = vec![(key, Some(self.board.value()))];
        let survey = self.written.is_multiple_of(SURVEY);
        self.ask(Ask { writes, survey, ..Ask::default() }).await
    }

    /// One thing to do; false when its member did not answer.
    async fn fight(&mut self) -> bool {
        let key = register(self.rng.random_range(0..REGISTERS));
        let [one, other] = pair(self.rng.random_range(0..PAIRS));
        let value = self.board.value();
        match self.rng.random_range(0..100) {
            0..25 => self.ask(Ask { writes: vec![(key, Some(value))], ..Ask::default() }).await,
            25..40 => self.ask(Ask { reads: vec![key], ..Ask::default() }).await,
            40..62 => {
                if !self.ask(Ask { reads: vec![key.clone()], ..Ask::default() }).await {
                    return false;
                }
                let Some(Request { answer: Answer::Saw { found, .. }, .. }) = self.history.last() else { return false };
                let modified = found.first().and_then(|(_, kept)| *kept).map_or(0, |kept| kept.modified);
                let (guard, writes) = (Some((key.clone(), modified)), vec![(key, Some(value))]);
                self.ask(Ask { guard, writes, ..Ask::default() }).await
            }
            62..72 => self.ask(Ask { writes: vec![(key, None)], ..Ask::default() }).await,
            72..84 => {
                let writes = vec![(one, Some(value)), (other, Some(self.board.value()))];
                self.ask(Ask { writes, ..Ask::default() }).await
            }
            84..89 => self.ask(Ask { writes: vec![(one, Some(value)), (other, None)], ..Ask::default() }).await,
            _ => self.ask(Ask { reads: vec![one, other], ..Ask::default() }).await,
        }
    }

    async fn ask(&mut self, ask: Ask) -> bool {
        let start = self.board.now();
        let answer = tokio::time::timeout(api::REQUEST, api::ask(&mut self.members[self.at], &ask)).await;
        let end = self.board.now();
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) if api::never_sent(&e) => return false,
            Ok(Err(_)) | Err(_) => Answer::Unknown,
        };
        let answered = answer != Answer::Unknown;
        if matches!(answer, Answer::Wrote { .. }) {
            self.board.ack();
        }
        let Ask { guard, writes, reads, .. } = ask;
        // A read without an answer tells nothing.
        if answered || reads.is_empty() {
            self.history.push(Request { client: self.number, start, end, guard, writes, answer });
        }
        answered
    }
}
