//! Why no node fits, in upstream's words: `0/3 nodes are available: …`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::framework::Rejection;

/// Reasons by how many nodes gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    pub nodes: usize,
    reasons: BTreeMap<Cow<'static, str>, usize>,
    unresolvable: usize,
}

impl Diagnosis {
    pub fn new(nodes: usize) -> Diagnosis {
        Diagnosis { nodes, ..Diagnosis::default() }
    }

    pub fn reject(&mut self, r: Rejection) {
        self.unresolvable += usize::from(r.unresolvable);
        for reason in r.reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    /// The message of the FailedScheduling event and of the PodScheduled condition.
    pub fn message(&self, never_preempts: bool) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".into();
        }
        let mut text = format!("0/{} nodes are available:", self.nodes);
        let mut parts: Vec<String> = self.reasons.iter().map(|(r, n)| format!("{n} {r}")).collect();
        parts.sort();
        if !parts.is_empty() {
            text.push_str(&format!(" {}.", parts.join(", ")));
        }
        text.push_str(" preemption: ");
        if never_preempts {
            text.push_str("not eligible due to preemptionPolicy=Never.");
            return text;
        }
        let resolvable = self.nodes.saturating_sub(self.unresolvable);
        let mut parts = Vec::new();
        if resolvable > 0 {
            parts.push(format!("{resolvable} No preemption victims found for incoming pod"));
        }
        if self.unresolvable > 0 {
            parts.push(format!("{} Preemption is not helpful for scheduling", self.unresolvable));
        }
        parts.sort();
        text.push_str(&format!("0/{} nodes are available: {}.", self.nodes, parts.join(", ")));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_sorted_and_followed_by_what_preemption_would_bring() {
        let mut d = Diagnosis::new(3);
        d.reject(Rejection::resolvable("Insufficient cpu"));
        d.reject(Rejection::unresolvable("node(s) had untolerated taint(s)"));
        d.reject(Rejection::unresolvable("node(s) had untolerated taint(s)"));
        assert_eq!(
            d.message(false),
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
        );
        assert_eq!(Diagnosis::new(0).message(false), "no nodes available to schedule pods");
        assert!(d.message(true).ends_with("preemption: not eligible due to preemptionPolicy=Never."));
    }
}
