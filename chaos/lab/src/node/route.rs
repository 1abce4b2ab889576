//! The cluster's networks in the root namespace: black holes, so that a stray
//! dial to a pod or a Service cannot leave by the uplink and even be answered.

use std::net::Ipv4Addr;
use std::process::Command;

use serde_json::Value;

use crate::error::{LabError, Result};
use crate::process;

/// Marks our routes: a number that has no name in iproute2's table, so that
/// it is printed as it is given.
const PROTOCOL: &str = "217";

/// Addresses of pods and of Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks {
    pub cluster_cidr: String,
    pub service_cidr: String,
}

impl Default for Networks {
    fn default() -> Networks {
        Networks { cluster_cidr: "10.244.0.0/16".into(), service_cidr: "10.96.0.0/16".into() }
    }
}

/// Routes that we added; removed when dropped.
#[derive(Debug, Default)]
pub struct Blackholes {
    routes: Vec<String>,
}

impl Networks {
    /// The usual ones, or the next that this machine does not route yet.
    pub fn choose() -> Result<Networks> {
        let taken = routed()?;
        let free = |candidates: Vec<String>| {
            candidates.into_iter().find(|c| !taken.iter().any(|t| overlap(c, t))).ok_or_else(|| {
                LabError::new("routes", "every network that could be the cluster's is routed on this machine already")
            })
        };
        Ok(Networks {
            cluster_cidr: free((0..16).map(|i| format!("10.{}.0.0/16", 244 - i)).collect())?,
            service_cidr: free((0..16).map(|i| format!("10.{}.0.0/16", 96 + i)).collect())?,
        })
    }
}

impl Blackholes {
    /// Adds what is not there yet.
    pub fn add(networks: &Networks) -> Result<Blackholes> {
        let mut added = Blackholes::default();
        for cidr in [&networks.cluster_cidr, &networks.service_cidr] {
            if !ours()?.contains(cidr) {
                ip(&["route", "add", "blackhole", cidr, "proto", PROTOCOL])?;
                added.routes.push(cidr.clone());
            }
        }
        Ok(added)
    }

    pub fn routes(&self) -> &[String] {
        &self.routes
    }

    /// Removes routes that an earlier run added.
    pub fn remove(routes: &[String]) -> Result<usize> {
        let present = ours()?;
        let mut removed = 0;
        for cidr in routes.iter().filter(|c| present.contains(c)) {
            ip(&["route", "del", "blackhole", cidr, "proto", PROTOCOL])?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Black holes with our mark, whoever added them.
    pub fn left() -> Result<Vec<String>> {
        ours()
    }
}

impl Drop for Blackholes {
    fn drop(&mut self) {
        // `down` removes what could not be removed here.
        let _ = Blackholes::remove(&self.routes);
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    process::run("routes", Command::new("ip").args(arguments))
}

fn routes() -> Result<Vec<Value>> {
    let text = ip(&["-4", "-j", "route", "show", "table", "all"])?;
    let text = if text.trim().is_empty() { "[]" } else { text.as_str() };
    serde_json::from_str(text).map_err(|e| LabError::new("routes", format!("ip route: {e}")))
}

fn ours() -> Result<Vec<String>> {
    let is_ours = |r: &Value| r["protocol"] == PROTOCOL && r["type"] == "blackhole";
    Ok(routes()?.iter().filter(|r| is_ours(r)).filter_map(|r| Some(r["dst"].as_str()?.to_owned())).collect())
}

/// Networks that this machine routes, apart from the default route and ours.
fn routed() -> Result<Vec<String>> {
    let foreign = |r: &&Value| r["protocol"] != PROTOCOL;
    let all = routes()?;
    Ok(all
        .iter()
        .filter(foreign)
        .filter_map(|r| r["dst"].as_str())
        .filter(|d| *d != "default")
        .map(str::to_owned)
        .collect())
}

fn range(cidr: &str) -> Option<(u32, u32)> {
    let (address, length) = cidr.split_once('/').unwrap_or((cidr, "32"));
    let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let host = u32::MAX.checked_shr(length.parse().ok()?).unwrap_or(0);
    Some((address & !host, address | host))
}

fn overlap(a: &str, b: &str) -> bool {
    match (range(a), range(b)) {
        (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_overlap_when_they_share_an_address() {
        assert!(overlap("10.96.0.0/16", "10.96.3.4"));
        assert!(overlap("10.96.0.0/16", "10.0.0.0/8"));
        assert!(!overlap("10.96.0.0/16", "10.97.0.0/16"));
        assert!(!overlap("10.96.0.0/16", "local"));
        assert!(overlap("10.96.0.0/16", "0.0.0.0/0"));
    }
}
