//! The network between nodes: a namespace with a bridge that no route of the
//! machine leads to.

use std::path::Path;

use super::NodeOptions;
use super::inside::{self, Namespaces};
use crate::error::Result;
use crate::process::ProcessId;

/// The bridge's own address.
const ADDRESS: &str = "10.89.0.1/24";

/// The bridge's namespace; gone when dropped.
#[derive(Debug)]
pub struct Hub {
    namespaces: Namespaces,
}

impl Hub {
    pub fn start(lab: &Path, logs: &Path) -> Result<Hub> {
        let hub = Hub { namespaces: Namespaces::network(lab, "hub", logs)? };
        hub.ip(&["link", "add", "br0", "type", "bridge"])?;
        hub.ip(&["address", "add", ADDRESS, "dev", "br0"])?;
        hub.ip(&["link", "set", "br0", "up"])?;
        Ok(hub)
    }

    pub fn process(&self) -> ProcessId {
        self.namespaces.process()
    }

    fn ip(&self, arguments: &[&str]) -> Result<String> {
        inside::run("network", &self.namespaces, "ip", arguments)
    }

    /// Gives a node its `eth0` on the bridge, and the service network a route
    /// to nowhere in particular: without one a dial from the node to a Service
    /// fails before the address is translated.
    pub(super) fn attach(&self, options: &NodeOptions, node: &Namespaces) -> Result<()> {
        let port = format!("v-{}", options.name);
        let pid = node.init().pid.to_string();
        self.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
        self.ip(&["link", "set", &port, "master", "br0", "up"])?;
        let address = format!("{}/24", options.ip());
        inside::run("network", node, "ip", &["address", "add", &address, "dev", "eth0"])?;
        inside::run("network", node, "ip", &["link", "set", "eth0", "up"])?;
        inside::run("network", node, "ip", &["route", "add", &options.service_cidr, "dev", "eth0"])?;
        Ok(())
    }
}
