//! NodeResourcesFit: the node has what the pod asks for; the least allocated
//! node scores best.

use std::borrow::Cow;

use crate::cache::NodeInfo;
use crate::framework::{Filter, Rejection, Score};
use crate::pod_info::PodInfo;

pub struct Fit;

impl Filter for Fit {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let (ask, have, used) = (&pod.requests, &node.allocatable, &node.requested);
        let mut reasons: Vec<Cow<'static, str>> = Vec::new();
        let mut never = false;
        if node.pods + 1 > have.pods {
            reasons.push("Too many pods".into());
        }
        let mut short = |reason: &'static str, ask: i64, have: i64, used: i64| {
            if ask > 0 && ask > have - used {
                reasons.push(reason.into());
                // More than the whole node has: no removal of pods would help.
                never |= ask > have;
            }
        };
        short("Insufficient cpu", ask.milli_cpu, have.milli_cpu, used.milli_cpu);
        short("Insufficient memory", ask.memory, have.memory, used.memory);
        short("Insufficient ephemeral-storage", ask.ephemeral_storage, have.ephemeral_storage, used.ephemeral_storage);
        for (name, n) in &ask.scalar {
            let has = have.scalar(name);
            if *n > 0 && *n > has - used.scalar(name) {
                reasons.push(format!("Insufficient {name}").into());
                never |= *n > has;
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(Rejection { reasons, unresolvable: never }) }
    }
}

impl Score for Fit {
    /// The mean of what would be left of CPU and memory, in percent.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let left = |have: i64, used: i64, ask: i64| {
            let used = used + ask;
            if have == 0 { None } else { Some(if used > have { 0 } else { (have - used) * 100 / have }) }
        };
        let (have, used, ask) = (&node.allocatable, &node.nonzero, &pod.nonzero);
        let parts = [left(have.milli_cpu, used.milli_cpu, ask.milli_cpu), left(have.memory, used.memory, ask.memory)];
        let (sum, n) = parts.into_iter().flatten().fold((0, 0), |(s, n), v| (s + v, n + 1));
        if n == 0 { 0 } else { sum / n }
    }
}
