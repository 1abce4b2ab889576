//! NodeName: a pod that names a node goes nowhere else.

use crate::cache::NodeInfo;
use crate::framework::{Filter, Rejection};
use crate::pod_info::PodInfo;

pub struct NodeName;

impl Filter for NodeName {
    fn pre_filter(&self, pod: &PodInfo) -> bool {
        pod.wanted_node().is_some()
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if pod.wanted_node().is_none_or(|n| n == &*node.name) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match the requested node name"))
    }
}
