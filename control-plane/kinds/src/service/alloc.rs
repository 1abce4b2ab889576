//! Cluster IPs and node ports, taken and given back in the Service's own
//! transaction.
//!
//! An address that is taken is a key: `~alloc.clusterip//10.96.0.10` and
//! `~alloc.nodeport//30080`, whose value is the owner, `namespace/name`. The
//! write of a Service carries `Absent` guards and puts for what it takes and
//! deletes for what it gives back, so an address never has two owners and none
//! is lost when a write fails. When a guard fails the registry calls again, and
//! another value is drawn.
//!
//! The ranges are `~config//service-cidr` (`10.96.0.0/12` when it is not set)
//! and `~config//service-node-port-range` (`30000-32767`), written at birth.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};
use triarch_api::status::{ErrorList, Status};
use triarch_mvcc::{Guard, Key, Mvcc, Object, Op, Txn};
use triarch_registry::RuleContext;

use super::is_headless;
use super::shape::{needs_cluster_ip, needs_health_check, needs_node_port};
use crate::field::{self, Path};
use crate::stored;
use crate::value::{child, each_mut, get, int_of, list, set, str_at, str_of};

pub const CONFIG: &str = "~config";
pub const CLUSTER_IPS: &str = "~alloc.clusterip";
pub const NODE_PORTS: &str = "~alloc.nodeport";
pub const DEFAULT_CIDR: &str = "10.96.0.0/12";
pub const DEFAULT_PORTS: (i64, i64) = (30_000, 32_767);
/// So many values are looked at before the range is said to be full.
const PROBES: u128 = 65_536;

/// The range of cluster IPs.
pub fn service_cidr(store: &Mvcc) -> IpNet {
    let configured = stored::system(store, &Key::new(CONFIG, "", "service-cidr"));
    let parsed = configured.and_then(|text| text.trim().parse::<IpNet>().ok());
    parsed.unwrap_or_else(|| DEFAULT_CIDR.parse().expect("a constant that is a CIDR")).trunc()
}

/// The range of node ports, both ends included.
pub fn node_port_range(store: &Mvcc) -> (i64, i64) {
    let configured = stored::system(store, &Key::new(CONFIG, "", "service-node-port-range"));
    let parsed = configured.as_deref().and_then(|text| {
        let (low, high) = text.trim().split_once('-')?;
        Some((low.parse::<i64>().ok()?, high.parse::<i64>().ok()?))
    });
    parsed.filter(|(low, high)| *low > 0 && low <= high && *high <= 65_535).unwrap_or(DEFAULT_PORTS)
}

/// The family of the cluster's services.
pub fn family(store: &Mvcc) -> &'static str {
    if service_cidr(store).addr().is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The first address, which is `default/kubernetes`'s.
pub fn api_server_ip(store: &Mvcc) -> IpAddr {
    let cidr = service_cidr(store);
    nth(cidr, 1)
}

fn nth(cidr: IpNet, n: u128) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(base) => {
            IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(u32::try_from(n).unwrap_or(u32::MAX))))
        }
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(n))),
    }
}

/// Usable addresses: neither the network's own nor the broadcast one.
fn size(cidr: IpNet) -> u128 {
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
    let all = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
    all.saturating_sub(2)
}

/// The allocation hook: `new` is `None` on delete, `old` on create.
pub fn allocate(
    ctx: &RuleContext<'_>,
    new: Option<&mut Value>,
    old: Option<&Value>,
    txn: &mut Txn,
) -> Result<(), Status> {
    let held = old.map(held).unwrap_or_default();
    let mut wanted = BTreeSet::new();
    if let Some(new) = new {
        let owner = format!("{}/{}", str_at(new, &["metadata", "namespace"]), str_at(new, &["metadata", "name"]));
        let mut errs = ErrorList::new();
        cluster_ip(ctx, new, &owner, &held, &mut wanted, &mut errs)?;
        node_ports(ctx, new, &held, &mut wanted, &mut errs)?;
        if !errs.is_empty() {
            return Err(Status::invalid(("", "Service"), str_at(new, &["metadata", "name"]), &errs));
        }
        for key in wanted.difference(&held) {
            txn.guards.push(Guard::Absent(key.clone()));
            txn.ops.push(Op::Put(key.clone(), Object::plain(owner.clone())));
        }
    }
    for key in held.difference(&wanted) {
        txn.ops.push(Op::Delete(key.clone()));
    }
    Ok(())
}

fn ip_key(ip: &str) -> Key {
    Key::new(CLUSTER_IPS, "", ip)
}

fn port_key(port: i64) -> Key {
    Key::new(NODE_PORTS, "", &port.to_string())
}

/// What a stored Service holds.
fn held(service: &Value) -> BTreeSet<Key> {
    let spec = get(service, "spec");
    let mut keys = BTreeSet::new();
    if needs_cluster_ip(spec) && !is_headless(spec) {
        keys.extend(list(spec, "clusterIPs").iter().filter_map(Value::as_str).filter(|ip| !ip.is_empty()).map(ip_key));
    }
    let ports = list(spec, "ports").iter().map(|p| int_of(p, "nodePort"));
    let health = std::iter::once(int_of(spec, "healthCheckNodePort"));
    keys.extend(ports.chain(health).filter(|p| *p != 0).map(port_key));
    keys
}

fn taken(ctx: &RuleContext<'_>, key: &Key, held: &BTreeSet<Key>) -> bool {
    !held.contains(key) && ctx.store.get(key).is_some()
}

fn cluster_ip(
    ctx: &RuleContext<'_>,
    new: &mut Value,
    owner: &str,
    held: &BTreeSet<Key>,
    wanted: &mut BTreeSet<Key>,
    errs: &mut ErrorList,
) -> Result<(), Status> {
    let spec = child(new, "spec");
    if !needs_cluster_ip(spec) || is_headless(spec) {
        return Ok(());
    }
    let cidr = service_cidr(ctx.store);
    let first = nth(cidr, 1);
    let asked = str_of(spec, "clusterIP").to_owned();
    if asked.is_empty() {
        let ip = draw_ip(ctx, cidr, held)
            .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?;
        set(spec, "clusterIP", ip.clone());
        set(spec, "clusterIPs", json!([ip]));
        wanted.insert(ip_key(&ip));
        return Ok(());
    }
    let (key, ips) = (ip_key(&asked), get(spec, "clusterIPs").clone());
    let p = Path::new("spec").child("clusterIPs");
    let mut refuse =
        |why: String| field::invalid(errs, &p, ips.clone(), format!("failed to allocate IP {asked}: {why}"));
    match asked.parse::<IpAddr>() {
        // The rules have refused it already.
        Err(_) => {}
        Ok(ip)
            if !held.contains(&key)
                && (!cidr.contains(&ip) || ip == cidr.network() || (size(cidr) > 2 && ip == cidr.broadcast())) =>
        {
            refuse(format!("the provided IP ({asked}) is not in the valid range. The range of valid IPs is {cidr}"));
        }
        Ok(ip) if ip == first && owner != "default/kubernetes" && !held.contains(&key) => {
            refuse("provided IP is already allocated".to_owned());
        }
        Ok(_) if taken(ctx, &key, held) => refuse("provided IP is already allocated".to_owned()),
        Ok(_) => {
            wanted.insert(key);
        }
    }
    Ok(())
}

/// A free address: drawn from the upper part of the range, so that the lower
/// part stays free for addresses that people choose, and from there on upwards.
fn draw_ip(ctx: &RuleContext<'_>, cidr: IpNet, held: &BTreeSet<Key>) -> Option<String> {
    let size = size(cidr);
    // Addresses 2..=size; the first is the API server's.
    let count = size.checked_sub(1).filter(|n| *n > 0)?;
    let band = if size < 16 { 0 } else { (size / 16).clamp(16, 256).min(count - 1) };
    let upper = count - band;
    let start = u128::from(ctx.env.random_u64()) % upper;
    let order = (0..upper).map(|i| band + (start + i) % upper).chain(0..band);
    for n in order.take(usize::try_from(PROBES.min(count)).unwrap_or(usize::MAX)) {
        let ip = nth(cidr, n + 2).to_string();
        if !taken(ctx, &ip_key(&ip), held) {
            return Some(ip);
        }
    }
    None
}

fn node_ports(
    ctx: &RuleContext<'_>,
    new: &mut Value,
    held: &BTreeSet<Key>,
    wanted: &mut BTreeSet<Key>,
    errs: &mut ErrorList,
) -> Result<(), Status> {
    let spec = child(new, "spec");
    let range = node_port_range(ctx.store);
    let full = || Status::internal("failed to allocate a nodePort: range is full");
    let needed = needs_node_port(spec);
    // Ports that the user chose come first, or a drawn one could be in their way.
    let ports = list(spec, "ports").to_vec();
    for (i, port) in ports.iter().enumerate() {
        let node = int_of(port, "nodePort");
        if node != 0 {
            claim(ctx, &Path::new("spec").child("ports").index(i).child("nodePort"), node, range, held, wanted, errs);
        }
    }
    if needed {
        // The same port over TCP and UDP gets the same node port.
        let mut by_port: Vec<(i64, i64)> =
            ports.iter().map(|p| (int_of(p, "port"), int_of(p, "nodePort"))).filter(|(_, n)| *n != 0).collect();
        for port in each_mut(spec, "ports") {
            if int_of(port, "nodePort") != 0 {
                continue;
            }
            let number = int_of(port, "port");
            let node = match by_port.iter().find(|(p, _)| *p == number) {
                Some((_, node)) => *node,
                None => draw_port(ctx, range, held, wanted).ok_or_else(full)?,
            };
            wanted.insert(port_key(node));
            by_port.push((number, node));
            set(port, "nodePort", node);
        }
    }
    if needs_health_check(spec) {
        match int_of(spec, "healthCheckNodePort") {
            0 => {
                let node = draw_port(ctx, range, held, wanted).ok_or_else(full)?;
                wanted.insert(port_key(node));
                set(spec, "healthCheckNodePort", node);
            }
            node => claim(ctx, &Path::new("spec").child("healthCheckNodePort"), node, range, held, wanted, errs),
        }
    }
    Ok(())
}

fn claim(
    ctx: &RuleContext<'_>,
    p: &Path,
    node: i64,
    (low, high): (i64, i64),
    held: &BTreeSet<Key>,
    wanted: &mut BTreeSet<Key>,
    errs: &mut ErrorList,
) {
    let key = port_key(node);
    if !held.contains(&key) && !(low..=high).contains(&node) {
        let detail = format!("provided port is not in the valid range. The range of valid ports is {low}-{high}");
        field::invalid(errs, p, node, detail);
    } else if taken(ctx, &key, held) {
        field::invalid(errs, p, node, "provided port is already allocated");
    } else {
        wanted.insert(key);
    }
}

/// As for addresses, the lower part of the range is drawn from last.
fn draw_port(
    ctx: &RuleContext<'_>,
    (low, high): (i64, i64),
    held: &BTreeSet<Key>,
    wanted: &BTreeSet<Key>,
) -> Option<i64> {
    let count = high - low + 1;
    let band = if count < 32 { 0 } else { (count / 32).clamp(16, 128) };
    let upper = count - band;
    let start = i64::try_from(ctx.env.random_u64() % upper.unsigned_abs()).unwrap_or(0);
    let mut order = (0..upper).map(|i| band + (start + i) % upper).chain(0..band).map(|n| low + n);
    order.find(|port| {
        let key = port_key(*port);
        !wanted.contains(&key) && !taken(ctx, &key, held)
    })
}
