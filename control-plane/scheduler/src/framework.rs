//! What a plugin is.

use std::borrow::Cow;

use crate::cache::NodeInfo;
use crate::pod_info::PodInfo;

/// Why a node cannot have a pod, in the words of FailedScheduling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reasons: Vec<Cow<'static, str>>,
    /// Removing pods from the node would not help.
    pub unresolvable: bool,
}

impl Rejection {
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Rejection {
        Rejection { reasons: vec![reason.into()], unresolvable: true }
    }

    pub fn resolvable(reason: impl Into<Cow<'static, str>>) -> Rejection {
        Rejection { reasons: vec![reason.into()], unresolvable: false }
    }
}

/// Says whether a node can have a pod. Pure and cheap: called per pod and node.
pub trait Filter: Sync {
    /// `false` when the plugin has nothing to say about this pod on any node.
    fn pre_filter(&self, _pod: &PodInfo) -> bool {
        true
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection>;
}

/// Says how well a node suits a pod that it can have.
pub trait Score: Sync {
    /// `false` when all nodes would score the same.
    fn pre_score(&self, _pod: &PodInfo) -> bool {
        true
    }

    /// Higher is better; 0 to 100 after [`Score::normalize`].
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64;

    /// Brings raw scores into 0..=100.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Scales scores so that the highest becomes 100; `reverse` turns them round.
pub fn default_normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    if max == 0 {
        if reverse {
            scores.fill(100);
        }
        return;
    }
    for s in scores {
        let n = *s * 100 / max;
        *s = if reverse { 100 - n } else { n };
    }
}

/// A line of the list of plugins.
pub struct Plugin {
    /// As its file is named.
    pub name: &'static str,
    pub filter: Option<&'static dyn Filter>,
    /// With its weight.
    pub score: Option<(&'static dyn Score, i64)>,
}
