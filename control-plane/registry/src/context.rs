//! Who asks, how, and what is said back beside the answer.
//!
//! A [`RequestContext`] is made once for a request (or once for a controller)
//! and is cheap to clone. It holds nothing of HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use triarch_mvcc::Epoch;

/// At most so many warnings are kept for one request.
const MAX_WARNINGS: usize = 64;
/// At most so many audit annotations are kept for one request.
const MAX_AUDIT_ANNOTATIONS: usize = 64;

/// An authenticated identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    pub fn new(name: impl Into<String>, groups: &[&str]) -> UserInfo {
        UserInfo { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..UserInfo::default() }
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// What a verb handler, rules and admission know about the request.
#[derive(Clone, Debug, Default)]
pub struct RequestContext {
    pub user: Arc<UserInfo>,
    /// Carried in logs and audit from the door to apply.
    pub request_id: Arc<str>,
    /// Set by leader-only writers: the write is fenced by this leadership.
    pub epoch: Option<Epoch>,
    side: Arc<Mutex<Side>>,
}

#[derive(Debug, Default)]
struct Side {
    warnings: Vec<String>,
    annotations: BTreeMap<String, String>,
}

impl RequestContext {
    pub fn new(user: UserInfo, request_id: impl Into<Arc<str>>) -> RequestContext {
        RequestContext { user: Arc::new(user), request_id: request_id.into(), ..RequestContext::default() }
    }

    /// The identity of a component of the control plane, e.g. `system:kube-scheduler`.
    pub fn component(name: &str, epoch: Option<Epoch>) -> RequestContext {
        let user = UserInfo::new(name, &["system:authenticated"]);
        RequestContext { epoch, ..RequestContext::new(user, name) }
    }

    /// The same identity with warnings and annotations of its own.
    pub fn fresh(&self) -> RequestContext {
        RequestContext { side: Arc::default(), ..self.clone() }
    }

    /// Adds a `Warning` header to the answer; duplicates and what exceeds the bound are dropped.
    pub fn warn(&self, text: impl Into<String>) {
        let (mut side, text) = (self.side.lock(), text.into());
        if side.warnings.len() < MAX_WARNINGS && !side.warnings.contains(&text) {
            side.warnings.push(text);
        }
    }

    pub fn warnings(&self) -> Vec<String> {
        self.side.lock().warnings.clone()
    }

    /// Adds an annotation to the request's audit event.
    pub fn audit(&self, key: impl Into<String>, value: impl Into<String>) {
        let mut side = self.side.lock();
        if side.annotations.len() < MAX_AUDIT_ANNOTATIONS {
            side.annotations.insert(key.into(), value.into());
        }
    }

    pub fn audit_annotations(&self) -> BTreeMap<String, String> {
        self.side.lock().annotations.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_bounded_and_not_repeated() {
        let ctx = RequestContext::default();
        for i in 0..200 {
            ctx.warn(format!("w{}", i % 100));
        }
        assert_eq!(ctx.warnings().len(), MAX_WARNINGS);
        assert_eq!(ctx.warnings()[1], "w1");
    }
}
