//! A range of pod addresses for each node, from the cluster's.
//!
//! One key for all nodes: two nodes never choose from the same snapshot.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::json;

use crate::world::{Any, Change};
use crate::*;

pub struct NodeIpam {
    cluster: IpNet,
    mask: u8,
}

impl NodeIpam {
    /// `mask` below the cluster's own prefix length is taken as that length.
    pub fn new(cluster: IpNet, mask: u8) -> NodeIpam {
        NodeIpam { cluster, mask: mask.clamp(cluster.prefix_len(), cluster.max_prefix_len()) }
    }

    fn key() -> Key {
        Key::new(resources::NODES, Name::cluster(""))
    }

    /// Ranges of a node in the cluster's range; at most 2¹⁶ are handed out.
    fn len(&self) -> u32 {
        1 << u32::from(self.mask - self.cluster.prefix_len()).min(16)
    }

    fn range(&self, i: u32) -> Option<IpNet> {
        let shift = self.cluster.max_prefix_len() - self.mask;
        let address = match self.cluster.network() {
            IpAddr::V4(a) => {
                IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() | u32::checked_shl(i, shift.into()).unwrap_or(0)))
            }
            IpAddr::V6(a) => {
                IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() | u128::checked_shl(i.into(), shift.into()).unwrap_or(0)))
            }
        };
        IpNet::new(address, self.mask).ok()
    }
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam"
    }

    fn keys(&self, _: &World, change: &Change, out: &mut Vec<Key>) {
        let wants = match (&change.new, change.resource) {
            (Some(Any::Node(n)), _) => n.spec.as_ref().and_then(|s| s.pod_cidr.as_ref()).is_none(),
            // A range came free.
            (None, resources::NODES) => true,
            _ => false,
        };
        if wants {
            out.push(NodeIpam::key());
        }
    }

    fn reconcile(&self, cx: &Context<'_>, _: &Key) -> Plan {
        let range = |n: &k8s_openapi::api::core::v1::Node| n.spec.as_ref().and_then(|s| s.pod_cidr.clone());
        let wanting: Vec<_> =
            cx.world.nodes.values().filter(|n| range(n).is_none() && !deleting(&n.metadata)).collect();
        if wanting.is_empty() {
            return Plan::nothing();
        }
        let used: BTreeSet<IpNet> = cx.world.nodes.values().filter_map(|n| range(n)?.parse().ok()).collect();
        let mut free = (0..self.len()).filter_map(|i| self.range(i)).filter(|r| !used.contains(r));
        let mut plan = Plan::default();
        let mut writes = Vec::new();
        for node in wanting {
            let name = name_of(&node.metadata);
            match free.next() {
                Some(r) => {
                    let r = r.to_string();
                    let patch =
                        json!({"metadata": {"uid": node.metadata.uid}, "spec": {"podCIDR": r, "podCIDRs": [r]}});
                    writes.push(Op::Patch { resource: resources::NODES, name, subresource: None, patch }.into());
                }
                None => {
                    let message = format!("Node {} status is now: CIDRNotAvailable", name.name);
                    plan.note(note(&**node, "cidrAllocator", "Normal", "CIDRNotAvailable", message));
                }
            }
        }
        if !writes.is_empty() {
            plan.steps.insert(0, Step::All(writes));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    fn node(name: &str, cidr: Option<&str>) -> serde_json::Value {
        json!({"metadata": {"name": name, "uid": name}, "spec": {"podCIDR": cidr}})
    }

    #[test]
    fn nodes_that_came_together_get_different_free_ranges() {
        let c = NodeIpam::new("10.244.0.0/22".parse().unwrap(), 24);
        let mut f = Fixture::new().put(resources::NODES, node("a", Some("10.244.1.0/24")));
        for n in ["b", "c", "d", "e"] {
            f.set(resources::NODES, node(n, None));
        }
        let plan = f.reconcile(&c, &NodeIpam::key());
        let given: Vec<_> = plan
            .writes()
            .map(|w| match &w.op {
                Op::Patch { name, patch, .. } => {
                    format!("{} {}", name.name, patch["spec"]["podCIDR"].as_str().unwrap())
                }
                o => panic!("{o:?}"),
            })
            .collect();
        assert_eq!(given, ["b 10.244.0.0/24", "c 10.244.2.0/24", "d 10.244.3.0/24"]);
        let Some(Step::Note(n)) = plan.steps.last() else { panic!() };
        assert_eq!(n.message, "Node e status is now: CIDRNotAvailable");
    }

    #[test]
    fn ranges_of_ipv6_are_counted_too() {
        let c = NodeIpam::new("fd00::/56".parse().unwrap(), 64);
        assert_eq!((c.len(), c.range(2).unwrap().to_string()), (256, "fd00:0:0:2::/64".to_owned()));
    }
}
