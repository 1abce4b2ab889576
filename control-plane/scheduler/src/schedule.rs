//! One scheduling cycle, pure: a pod, the nodes, where to start and a random
//! number in; a node, or the reasons of all nodes, out.

use crate::cache::Cache;
use crate::diagnosis::Diagnosis;
use crate::framework::{Filter, Score};
use crate::plugins::PLUGINS;
use crate::pod_info::PodInfo;

/// Clusters smaller than this are looked at in full.
const MIN_FEASIBLE: usize = 100;
/// The sample is never less than this share.
const MIN_PERCENT: usize = 5;

/// What a cycle decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub node: String,
    /// Nodes looked at: where the next cycle starts from this one's start.
    pub examined: usize,
}

/// How many feasible nodes are enough: all of a hundred, then ever fewer of a
/// hundred, `50 - nodes/125` percent and at least 5.
pub fn feasible_enough(nodes: usize) -> usize {
    if nodes < MIN_FEASIBLE {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(MIN_PERCENT);
    (nodes * percent / 100).max(MIN_FEASIBLE)
}

/// Finds the best of a sample of the nodes that can have the pod. The sample
/// begins at `start`, so that all nodes get their turn; `random` decides
/// between equals.
pub fn schedule(pod: &PodInfo, nodes: &Cache, start: usize, random: u64) -> Result<Choice, Diagnosis> {
    let filters: Vec<&dyn Filter> = PLUGINS.iter().filter_map(|p| p.filter).filter(|f| f.pre_filter(pod)).collect();
    let n = nodes.len();
    let enough = feasible_enough(n);
    let mut diagnosis = Diagnosis::new(n);
    let mut feasible: Vec<usize> = Vec::with_capacity(enough);
    let mut examined = 0;
    while examined < n && feasible.len() < enough {
        let i = (start + examined) % n;
        examined += 1;
        let node = nodes.nth(i);
        match filters.iter().try_for_each(|f| f.filter(pod, node)) {
            Ok(()) => feasible.push(i),
            Err(r) => diagnosis.reject(r),
        }
    }
    let best = match feasible.as_slice() {
        [] => return Err(diagnosis),
        [only] => *only,
        _ => best(pod, nodes, &feasible, random),
    };
    Ok(Choice { node: nodes.nth(best).name.to_string(), examined })
}

fn best(pod: &PodInfo, nodes: &Cache, feasible: &[usize], random: u64) -> usize {
    let mut total = vec![0i64; feasible.len()];
    let mut scores = vec![0i64; feasible.len()];
    let plugins: Vec<(&dyn Score, i64)> =
        PLUGINS.iter().filter_map(|p| p.score).filter(|(s, _)| s.pre_score(pod)).collect();
    for (plugin, weight) in plugins {
        for (score, i) in scores.iter_mut().zip(feasible) {
            *score = plugin.score(pod, nodes.nth(*i));
        }
        plugin.normalize(&mut scores);
        for (sum, score) in total.iter_mut().zip(&scores) {
            *sum += score * weight;
        }
    }
    let max = total.iter().copied().max().unwrap_or(0);
    let top: Vec<usize> = feasible.iter().zip(&total).filter(|(_, t)| **t == max).map(|(i, _)| *i).collect();
    top[(random % top.len() as u64) as usize]
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
