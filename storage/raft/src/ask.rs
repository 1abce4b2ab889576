//! Questions to whoever leads, about what is not in the log: the answers are
//! functions of the leader's own memory (how long leases still run). What is
//! asked is not known here.
//!
//! Invariant: an answer comes from a replica that holds itself for the leader;
//! whether it still is one is for the answerer to make sure of ([`Answers`]).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use triarch_mvcc::CommitError;

use crate::codec;
use crate::leadership::LeaderView;
use crate::shared::Shared;
use crate::transport::Call;

/// A leader that does not answer as one yet, or is not reached, is asked again after this.
const RETRY: Duration = Duration::from_millis(10);
/// Largest question and answer, bytes.
const MAX_QUESTION: usize = 64 << 10;

/// Answers for this replica while it leads.
#[async_trait]
pub trait Answers: Send + Sync + 'static {
    /// `None`: this replica does not lead; ask another.
    async fn answer(&self, question: Bytes) -> Option<Bytes>;
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum AskReply {
    Answer(Bytes),
    NotLeader,
}

/// What this replica answers to whoever takes it for the leader.
pub(crate) async fn answer(shared: &Shared, question: Bytes) -> AskReply {
    let answers = shared.answers.read().clone();
    match answers {
        Some(answers) if question.len() <= MAX_QUESTION => {
            answers.answer(question).await.map_or(AskReply::NotLeader, AskReply::Answer)
        }
        _ => AskReply::NotLeader,
    }
}

/// Has the leader answer, within the bound for a missing leader.
pub(crate) async fn ask(shared: &Arc<Shared>, question: Bytes) -> Result<Bytes, CommitError> {
    if question.len() > MAX_QUESTION {
        return Err(CommitError::TooLarge { size: question.len(), limit: MAX_QUESTION });
    }
    let bound = shared.config.timers.no_leader_hold;
    let asking = async {
        loop {
            let view = shared.leadership.view();
            futures::select_biased! {
                answer = once(shared, view, question.clone()).fuse() => if let Some(answer) = answer {
                    return answer;
                },
                _ = shared.leadership.await_leader_change(view).fuse() => continue,
            }
            futures::select_biased! {
                _ = shared.leadership.await_leader_change(view).fuse() => {}
                () = shared.env.sleep(RETRY).fuse() => {}
            }
        }
    };
    match shared.scope.run(shared.env.timeout(bound, asking)).await {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(_)) => Err(CommitError::NoLeader(bound)),
        None => Err(shared.stopped_error()),
    }
}

/// Asks the leader of `view`; waits for ever while it names none.
async fn once(shared: &Arc<Shared>, view: LeaderView, question: Bytes) -> Option<Bytes> {
    let Some(leader) = view.leader else { return std::future::pending().await };
    if leader == shared.id() {
        return match answer(shared, question).await {
            AskReply::Answer(answer) => Some(answer),
            AskReply::NotLeader => None,
        };
    }
    let peer = shared.peer(leader)?;
    let call = shared.transport.call(&peer, Call::Ask, question);
    let body = shared.env.timeout(shared.config.timers.call, call).await.ok()?.ok()?;
    match codec::decode("the leader's answer", &body) {
        Ok(AskReply::Answer(answer)) => Some(answer),
        Ok(AskReply::NotLeader) => None,
        Err(e) => {
            tracing::warn!(error = %e, leader, "cannot read the leader's answer");
            None
        }
    }
}
