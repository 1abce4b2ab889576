//! NodeResourcesBalancedAllocation: CPU and memory are used up together.

use crate::cache::NodeInfo;
use crate::framework::Score;
use crate::pod_info::PodInfo;

pub struct BalancedAllocation;

impl Score for BalancedAllocation {
    /// A pod that asks for neither changes no balance.
    fn pre_score(&self, pod: &PodInfo) -> bool {
        pod.requests.milli_cpu > 0 || pod.requests.memory > 0
    }

    /// 100 less the distance between the shares of CPU and memory in use.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let share =
            |have: i64, used: i64, ask: i64| if have <= 0 { 1.0 } else { ((used + ask) as f64 / have as f64).min(1.0) };
        let (have, used, ask) = (&node.allocatable, &node.requested, &pod.requests);
        let cpu = share(have.milli_cpu, used.milli_cpu, ask.milli_cpu);
        let memory = share(have.memory, used.memory, ask.memory);
        // The standard deviation of two numbers is half their distance.
        ((1.0 - (cpu - memory).abs() / 2.0) * 100.0) as i64
    }
}
