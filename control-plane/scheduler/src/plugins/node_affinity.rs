//! NodeAffinity: `nodeSelector`, and required and preferred node affinity.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use crate::cache::NodeInfo;
use crate::framework::{Filter, Rejection, Score, default_normalize};
use crate::pod_info::PodInfo;

pub struct NodeAffinity;

impl Filter for NodeAffinity {
    fn pre_filter(&self, pod: &PodInfo) -> bool {
        pod.node_selector().is_some() || pod.required_affinity().is_some()
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let labels = node.labels();
        let selected = pod.node_selector().is_none_or(|s| triarch_controllers::selector::subset(s, labels));
        let liked = pod.required_affinity().is_none_or(|a| a.node_selector_terms.iter().any(|t| matches(t, node)));
        if selected && liked {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }
}

impl Score for NodeAffinity {
    fn pre_score(&self, pod: &PodInfo) -> bool {
        !pod.preferred_affinity().is_empty()
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let liked = pod.preferred_affinity().iter().filter(|t| matches(&t.preference, node));
        liked.map(|t| i64::from(t.weight)).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        default_normalize(scores, false);
    }
}

/// A term with no requirement matches nothing; all of its requirements must hold.
fn matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |k: &str| node.labels().and_then(|l| l.get(k)).map(String::as_str);
    let field = |k: &str| (k == "metadata.name").then_some(&*node.name);
    expressions.iter().all(|r| holds(r, label(&r.key))) && fields.iter().all(|r| holds(r, field(&r.key)))
}

fn holds(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = r.values.as_deref().unwrap_or_default();
    let compare = |less: bool| {
        let (Some(a), [b]) = (value.and_then(|v| v.parse::<i64>().ok()), values) else { return false };
        b.parse::<i64>().is_ok_and(|b| if less { a < b } else { a > b })
    };
    match r.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|x| x == v)),
        "NotIn" => value.is_none_or(|v| !values.iter().any(|x| x == v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(false),
        "Lt" => compare(true),
        _ => false,
    }
}
