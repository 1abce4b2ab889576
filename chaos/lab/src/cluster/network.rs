//! Replicas in network namespaces of their own, on a bridge in this process's.
//!
//! ```text
//!   this process:  br-triarch 10.87.0.1/24        clients, `ip`, the balancer
//!        ├─ replica a: eth0 10.87.0.11   nft table: whom it does not hear,
//!        ├─ replica b: eth0 10.87.0.12              whom it does not reach
//!        └─ replica c: eth0 10.87.0.13
//!   10.87.0.100:6443   any replica in turn (nft, no health checks)
//! ```
//! Owns addresses, devices and rules. Packets of a cut are dropped in silence,
//! as by a network: connections stay and nothing arrives. Invariant: no route
//! leads out, since this process has left the machine's network before
//! ([`crate::netns::isolate`]).

use std::process::Command;

use crate::error::Result;
use crate::netns::NetNs;
use crate::process;

/// Addresses here: only ever seen inside the namespaces.
const PREFIX: &str = "10.87.0";
/// The client port of every replica and of the balancer.
pub const PORT: u16 = 6443;
/// The peers' port of every replica.
pub const PEER_PORT: u16 = 6480;
const BRIDGE: &str = "br-triarch";

/// Which packets between two replicas are lost, seen from the one that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Neither way.
    Both,
    /// What it sends is lost, what it is sent arrives.
    Sending,
    /// What it is sent is lost, what it sends arrives.
    Hearing,
}

/// Namespaces with addresses, one a replica.
#[derive(Clone, Debug)]
pub struct Network {
    seats: Vec<NetNs>,
}

impl Network {
    /// Makes bridge, namespaces and the balancer. This process must have been
    /// isolated before.
    pub fn make(replicas: usize) -> Result<Network> {
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["address", "add", &format!("{PREFIX}.1/24"), "dev", BRIDGE])?;
        ip(&["link", "set", BRIDGE, "up"])?;
        let mut seats = Vec::new();
        for i in 0..replicas {
            let (ns, port) = (NetNs::new()?, format!("v-{i}"));
            ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &ns.path()])?;
            ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
            ns.run("ip", &["address", "add", &format!("{}/24", host(i)), "dev", "eth0"])?;
            ns.run("ip", &["link", "set", "eth0", "up"])?;
            ns.run("nft", &[RULES])?;
            seats.push(ns);
        }
        process::run("network", Command::new("nft").arg(balancer(replicas)))?;
        Ok(Network { seats })
    }

    /// `10.87.0.100:6443`.
    pub fn balanced() -> String {
        format!("{PREFIX}.100:{PORT}")
    }

    /// Address of replica `i`.
    pub fn host(&self, i: usize) -> String {
        host(i)
    }

    pub(super) fn seat(&self, i: usize) -> &NetNs {
        &self.seats[i]
    }

    /// Cuts replica `i` off from `others`. What was cut before stays so.
    pub fn cut(&self, i: usize, others: &[usize], how: Cut) -> Result<()> {
        self.seats[i].run("nft", &[&cut_rules(others, how)]).map(drop)
    }

    /// All replicas reach one another again.
    pub fn heal(&self) -> Result<()> {
        self.seats.iter().try_for_each(|s| s.run("nft", &[HEAL]).map(drop))
    }
}

fn host(i: usize) -> String {
    format!("{PREFIX}.{}", 11 + i)
}

fn ip(arguments: &[&str]) -> Result<String> {
    process::run("network", Command::new("ip").args(arguments))
}

/// Two sets that decide, empty at first.
const RULES: &str = "add table ip cut; \
    add set ip cut unheard { type ipv4_addr; }; add set ip cut unreached { type ipv4_addr; }; \
    add chain ip cut hearing { type filter hook input priority 0; }; \
    add rule ip cut hearing ip saddr @unheard drop; \
    add chain ip cut sending { type filter hook output priority 0; }; \
    add rule ip cut sending ip daddr @unreached drop";
const HEAL: &str = "flush set ip cut unheard; flush set ip cut unreached";

fn cut_rules(others: &[usize], how: Cut) -> String {
    let list: Vec<String> = others.iter().map(|i| host(*i)).collect();
    let sets: &[&str] = match how {
        Cut::Both => &["unheard", "unreached"],
        Cut::Sending => &["unreached"],
        Cut::Hearing => &["unheard"],
    };
    let add = |set: &&str| format!("add element ip cut {set} {{ {} }}", list.join(", "));
    sets.iter().map(add).collect::<Vec<_>>().join("; ")
}

fn balancer(replicas: usize) -> String {
    let turns: Vec<String> = (0..replicas).map(|i| format!("{i} : {}", host(i))).collect();
    format!(
        "add table ip balance; add chain ip balance out {{ type nat hook output priority -100; }}; \
         add rule ip balance out ip daddr {PREFIX}.100 tcp dport {PORT} \
         dnat to numgen inc mod {replicas} map {{ {} }}",
        turns.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_names_the_others_in_the_sets_of_its_direction() {
        assert_eq!(
            cut_rules(&[0, 2], Cut::Both),
            "add element ip cut unheard { 10.87.0.11, 10.87.0.13 }; add element ip cut unreached { 10.87.0.11, 10.87.0.13 }"
        );
        assert_eq!(cut_rules(&[1], Cut::Hearing), "add element ip cut unheard { 10.87.0.12 }");
        assert_eq!(cut_rules(&[1], Cut::Sending), "add element ip cut unreached { 10.87.0.12 }");
    }
}
