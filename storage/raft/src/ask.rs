//! Questions to whoever leads, about what is not in the log: the answers are
//! functions of the leader's own memory (how long leases still run). What is
//! asked is not known here.
//!
//! Invariant: an answer comes from a replica that holds itself for the leader;
//! whether it still is one is for the answerer to make sure of ([`Answers`]).

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use triarch_mvcc::CommitError;

use crate::codec;
use crate::leader_call::at_the_leader;
use crate::shared::Shared;
use crate::transport::Call;
use crate::types::NodeId;

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
pub(crate) async fn ask(shared: &Shared, question: Bytes) -> Result<Bytes, CommitError> {
    if question.len() > MAX_QUESTION {
        return Err(CommitError::TooLarge { size: question.len(), limit: MAX_QUESTION });
    }
    let asking = at_the_leader(shared, |leader| once(shared, leader, question.clone()).map(Ok));
    shared.scope.run(asking).await.unwrap_or_else(|| Err(shared.stopped_error()))
}

/// Asks `leader`.
async fn once(shared: &Shared, leader: NodeId, question: Bytes) -> Option<Bytes> {
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
