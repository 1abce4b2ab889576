//! The plugins, one file each as upstream names them, and the list of them.

pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_balanced_allocation;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod taint_toleration;

use crate::framework::Plugin;

/// In the order in which filters run; the first that rejects a node tells why.
pub const PLUGINS: &[Plugin] = &[
    Plugin { name: "node_unschedulable", filter: Some(&node_unschedulable::NodeUnschedulable), score: None },
    Plugin { name: "node_name", filter: Some(&node_name::NodeName), score: None },
    Plugin {
        name: "taint_toleration",
        filter: Some(&taint_toleration::TaintToleration),
        score: Some((&taint_toleration::TaintToleration, 3)),
    },
    Plugin {
        name: "node_affinity",
        filter: Some(&node_affinity::NodeAffinity),
        score: Some((&node_affinity::NodeAffinity, 2)),
    },
    Plugin { name: "node_ports", filter: Some(&node_ports::NodePorts), score: None },
    Plugin {
        name: "node_resources_fit",
        filter: Some(&node_resources_fit::Fit),
        score: Some((&node_resources_fit::Fit, 1)),
    },
    Plugin {
        name: "node_resources_balanced_allocation",
        filter: None,
        score: Some((&node_resources_balanced_allocation::BalancedAllocation, 1)),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_every_plugin_in_the_folder() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plugins");
        let mut found: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().trim_end_matches(".rs").to_owned())
            .filter(|n| n != "mod")
            .collect();
        found.sort();
        let mut listed: Vec<_> = PLUGINS.iter().map(|p| p.name).collect();
        listed.sort();
        assert_eq!(listed, found);
    }
}
