//! TaintToleration: a node's taints keep away pods that do not tolerate them.

use triarch_controllers::controllers::node_lifecycle::taint_eviction::tolerates;

use crate::cache::NodeInfo;
use crate::framework::{Filter, Rejection, Score, default_normalize};
use crate::pod_info::PodInfo;

pub struct TaintToleration;

impl Filter for TaintToleration {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let hard = node.taints().iter().filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
        for taint in hard {
            if !pod.tolerations().iter().any(|t| tolerates(t, taint)) {
                // Which taint is not told: pods' statuses are read by more people than nodes are.
                return Err(Rejection::unresolvable("node(s) had untolerated taint(s)"));
            }
        }
        Ok(())
    }
}

impl Score for TaintToleration {
    /// Soft taints that are not tolerated; fewer is better.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let soft = node.taints().iter().filter(|t| t.effect == "PreferNoSchedule");
        soft.filter(|taint| !pod.tolerations().iter().any(|t| tolerates(t, taint))).count() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        default_normalize(scores, true);
    }
}
