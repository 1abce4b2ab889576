//! NodePorts: a host port is one pod's at a time.

use crate::cache::NodeInfo;
use crate::framework::{Filter, Rejection};
use crate::pod_info::PodInfo;

pub struct NodePorts;

impl Filter for NodePorts {
    fn pre_filter(&self, pod: &PodInfo) -> bool {
        !pod.host_ports.is_empty()
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if pod.host_ports.iter().any(|p| node.host_ports.iter().any(|used| used.conflicts(p))) {
            return Err(Rejection::resolvable("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }
}
