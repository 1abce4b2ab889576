//! Errors in etcd's own codes and words, which its clients match on.

use tonic::{Code, Status};
use triarch_mvcc::{CommitError, ReadError};

macro_rules! errors {
    ($($name:ident = $code:ident, $text:literal;)*) => {
        $(pub(crate) fn $name() -> Status { Status::new(Code::$code, $text) })*
    };
}

errors! {
    empty_key = InvalidArgument, "etcdserver: key is not provided";
    key_not_found = InvalidArgument, "etcdserver: key not found";
    value_provided = InvalidArgument, "etcdserver: value is provided";
    lease_provided = InvalidArgument, "etcdserver: lease is provided";
    too_many_ops = InvalidArgument, "etcdserver: too many operations in txn request";
    duplicate_key = InvalidArgument, "etcdserver: duplicate key given in txn request";
    invalid_sort = InvalidArgument, "etcdserver: invalid sort option";
    too_large = InvalidArgument, "etcdserver: request is too large";
    compacted = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    future_revision = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    lease_not_found = NotFound, "etcdserver: requested lease not found";
    lease_exists = FailedPrecondition, "etcdserver: lease already exists";
    lease_ttl_too_large = OutOfRange, "etcdserver: too large lease TTL";
    not_leader = FailedPrecondition, "etcdserver: not leader";
    bad_leader_transferee = FailedPrecondition, "etcdserver: bad leader transferee";
    not_capable = Unavailable, "etcdserver: not capable";
    auth_not_enabled = FailedPrecondition, "etcdserver: authentication is not enabled";
    root_user_not_exist = FailedPrecondition, "etcdserver: root user does not exist";
    user_not_found = FailedPrecondition, "etcdserver: user name not found";
    role_not_found = FailedPrecondition, "etcdserver: role name not found";
    too_many_requests = ResourceExhausted, "etcdserver: too many requests";
    no_leader = Unavailable, "etcdserver: no leader";
    timeout = Unavailable, "etcdserver: request timed out";
    stopped = Unavailable, "etcdserver: server stopped";
}

pub(crate) fn read(e: ReadError) -> Status {
    match e {
        ReadError::Compacted { .. } => compacted(),
        ReadError::Future { .. } => future_revision(),
    }
}

pub(crate) fn commit(e: CommitError) -> Status {
    match e {
        CommitError::NoLeader(_) => no_leader(),
        // The client may find the write done: etcd says so with a timeout too.
        CommitError::Unknown(_) => timeout(),
        CommitError::Overloaded => too_many_requests(),
        CommitError::TooLarge { .. } => too_large(),
        CommitError::Stopped(_) => stopped(),
        CommitError::FeatureLevel { .. } => Status::unavailable(format!("{}: {e}", not_capable().message())),
        CommitError::Fenced(_) => Status::internal(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_clusters_feature_level_does_not_allow_is_not_capable_and_says_why() {
        let status = commit(CommitError::FeatureLevel { needs: 2, level: 1 });
        assert_eq!(status.code(), Code::Unavailable);
        let text = "etcdserver: not capable: feature level 2 is needed, and the cluster is at 1, until every replica \
                    runs a release that supports it";
        assert_eq!(status.message(), text);
    }
}
