//! The one mapping from the store's errors to Status, and shorthands that take a kind.

use triarch_api::status::{ErrorList, Status};
use triarch_mvcc::CommitError;

use crate::Kind;

pub fn resource(kind: &Kind) -> (&'static str, &'static str) {
    (kind.group, kind.plural)
}

pub fn not_found(kind: &Kind, name: &str) -> Status {
    Status::not_found(resource(kind), name)
}

pub fn conflict(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Status {
    Status::conflict(resource(kind), name, why)
}

/// A newer write came first.
pub fn modified(kind: &Kind, name: &str) -> Status {
    conflict(kind, name, triarch_api::status::MODIFIED)
}

pub fn invalid(kind: &Kind, name: &str, errors: &ErrorList) -> Status {
    Status::invalid((kind.group, kind.kind), name, errors)
}

pub fn bad_request(message: impl Into<String>) -> Status {
    Status::bad_request(message)
}

pub fn internal(why: impl std::fmt::Display) -> Status {
    Status::internal(why)
}

/// Why the store has no answer. What was certainly not done may be retried by
/// the client at once (`Retry-After`); an unknown outcome may not.
pub fn commit(e: &CommitError) -> Status {
    match e {
        CommitError::NoLeader(_)
        | CommitError::Fenced(_)
        | CommitError::Stopped(_)
        | CommitError::FeatureLevel { .. } => Status::service_unavailable(e.to_string()).retry_after(1),
        CommitError::Overloaded => Status::too_many_requests(e.to_string(), 1),
        CommitError::Unknown(_) => {
            Status::timeout(format!("request did not complete within the allotted time: {e}"), 0)
        }
        CommitError::TooLarge { .. } => Status::request_too_large(e.to_string()),
    }
}
