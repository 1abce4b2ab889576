//! Routes to other nodes' pods, through those nodes' addresses.
//!
//! Routes of ours carry a protocol number of their own, so that a restarted
//! agent knows them and nobody else's are touched.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tokio::process::Command;

/// Marks the agent's routes in the kernel's table.
const PROTOCOL: &str = "186";
const MAX_NODES: usize = 10_000;

#[derive(Debug, Default)]
pub struct Routes {
    /// Destination to gateway; `None` before the kernel was asked.
    have: Option<BTreeMap<String, String>>,
}

impl Routes {
    /// Sets what is missing and removes what is no longer wanted.
    pub async fn apply(&mut self, own: &str, nodes: &[Arc<Value>]) -> Result<(), String> {
        let want = wanted(own, nodes);
        if self.have.is_none() {
            self.have = Some(parse(&ip(&["-4", "route", "show", "proto", PROTOCOL]).await?));
        }
        let Some(have) = &mut self.have else { return Ok(()) };
        for (destination, gateway) in &want {
            if have.get(destination) != Some(gateway) {
                ip(&["-4", "route", "replace", destination, "via", gateway, "proto", PROTOCOL]).await?;
                have.insert(destination.clone(), gateway.clone());
            }
        }
        let stale: Vec<String> = have.keys().filter(|d| !want.contains_key(*d)).cloned().collect();
        for destination in stale {
            let _ = ip(&["-4", "route", "del", &destination, "proto", PROTOCOL]).await;
            have.remove(&destination);
        }
        Ok(())
    }
}

fn wanted(own: &str, nodes: &[Arc<Value>]) -> BTreeMap<String, String> {
    let of = |n: &Value| {
        let cidr = n.pointer("/spec/podCIDR")?.as_str().filter(|c| !c.is_empty())?;
        let addresses = n.pointer("/status/addresses")?.as_array()?;
        let internal = addresses.iter().find(|a| a["type"] == "InternalIP")?["address"].as_str()?;
        let name = n.pointer("/metadata/name")?.as_str()?;
        (name != own && internal.parse::<std::net::Ipv4Addr>().is_ok()).then(|| (cidr.to_owned(), internal.to_owned()))
    };
    nodes.iter().take(MAX_NODES).filter_map(|n| of(n)).collect()
}

/// `10.1.2.0/24 via 192.0.2.2 dev eth0` for each line.
fn parse(text: &str) -> BTreeMap<String, String> {
    let line = |l: &str| {
        let mut words = l.split_whitespace();
        let destination = words.next()?.to_owned();
        (words.next() == Some("via")).then(|| Some((destination, words.next()?.to_owned())))?
    };
    text.lines().filter_map(line).collect()
}

async fn ip(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("ip");
    let out = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let out = out.map_err(|e| format!("cannot run ip: {e}; install iproute2"))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr).trim())),
    }
}

/// The node passes packets between its pods and the network.
pub fn forward() {
    if let Err(e) = std::fs::write("/proc/sys/net/ipv4/ip_forward", "1") {
        tracing::warn!(error = %e, "IP forwarding could not be switched on");
    }
}

/// Where there is no default route, the service addresses need one of their own,
/// or a connection from the node fails before its address is translated.
pub async fn service_route(cidr: &str, node_ip: &str) {
    if cidr.is_empty() || node_ip.is_empty() {
        return;
    }
    if ip(&["-4", "route", "show", "default"]).await.is_ok_and(|t| !t.trim().is_empty()) {
        return;
    }
    let Ok(addresses) = ip(&["-4", "-o", "addr", "show", "to", node_ip]).await else { return };
    let Some(device) = addresses.split_whitespace().nth(1) else { return };
    // Another protocol number than pod routes have, which are compared and removed.
    if let Err(e) = ip(&["-4", "route", "replace", cidr, "dev", device, "proto", "187"]).await {
        tracing::warn!(error = %e, "no route for the service addresses");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_node_with_a_range_and_an_address_gets_a_route() {
        let node = |name: &str, cidr: &str, ip: &str| {
            Arc::new(serde_json::json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr},
                "status": {"addresses": [{"type": "InternalIP", "address": ip}]}}))
        };
        let all = [
            node("n1", "10.1.0.0/24", "192.0.2.1"),
            node("n2", "10.1.1.0/24", "192.0.2.2"),
            node("n3", "", "192.0.2.3"),
        ];
        let want = wanted("n1", &all);
        assert_eq!(want, BTreeMap::from([("10.1.1.0/24".to_owned(), "192.0.2.2".to_owned())]));
        assert_eq!(parse("10.1.1.0/24 via 192.0.2.2 dev eth0 \nblackhole 10.0.0.0/8\n"), want);
    }
}
