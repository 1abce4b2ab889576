//! The mirror of what the kernel holds, and the transaction that brings it up
//! to what is wanted. Pure.
//!
//! An endpoint keeps its index while others go: removal moves the last one into
//! the hole, so one endpoint's change is a few elements whatever the size.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::desired::{Desired, PortKey, Target};
use crate::objects::Protocol;
use crate::table::{self, MASQUERADE, TABLE};

/// Elements named in one command of a transaction.
const PER_COMMAND: usize = 512;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mirror {
    endpoints: Vec<(Ipv4Addr, u16)>,
    /// One for each endpoint, with affinity only.
    slots: Vec<u32>,
    affinity: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Number of the last transaction; the kernel holds it too.
    pub sequence: u32,
    next_id: u32,
    next_slot: u32,
    #[serde(with = "pairs")]
    ids: BTreeMap<PortKey, u32>,
    #[serde(with = "pairs")]
    backends: BTreeMap<u32, Mirror>,
    #[serde(with = "pairs")]
    addresses: BTreeMap<(Ipv4Addr, Protocol, u16), u32>,
    #[serde(with = "pairs")]
    node_ports: BTreeMap<(Protocol, u16), u32>,
    refused: BTreeSet<(Ipv4Addr, Protocol, u16)>,
    refused_ports: BTreeSet<(Protocol, u16)>,
    hairpin: BTreeSet<Ipv4Addr>,
    chains: BTreeSet<String>,
}

/// Connections to forget: UDP ones would go on to an endpoint that is gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cleanup {
    pub destination: Ipv4Addr,
    /// Only those answered by this endpoint.
    pub endpoint: Option<Ipv4Addr>,
}

/// A transaction for `nft -f` and what to do after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub script: String,
    pub cleanups: Vec<Cleanup>,
}

/// Elements to delete and to add, by map or set.
#[derive(Default)]
struct Script {
    chains: String,
    delete: BTreeMap<&'static str, Vec<String>>,
    add: BTreeMap<&'static str, Vec<String>>,
}

impl Script {
    fn delete(&mut self, of: &'static str, element: String) {
        self.delete.entry(of).or_default().push(element);
    }

    fn add(&mut self, of: &'static str, element: String) {
        self.add.entry(of).or_default().push(element);
    }

    fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.add.is_empty()
    }

    fn text(self) -> String {
        let mut out = self.chains;
        for (verb, all) in [("delete", self.delete), ("add", self.add)] {
            for (of, elements) in all {
                for some in elements.chunks(PER_COMMAND) {
                    let _ = writeln!(out, "{verb} element ip {TABLE} {of} {{ {} }}", some.join(", "));
                }
            }
        }
        out
    }
}

impl State {
    /// Whether nothing was ever loaded.
    pub fn is_empty(&self) -> bool {
        self.sequence == 0
    }

    /// Moves the mirror to `want`; `None` when the kernel has it already. From
    /// an empty mirror it is a full load that replaces the table at one stroke.
    pub fn update(&mut self, want: &Desired) -> Option<Update> {
        let full = self.is_empty();
        let mut script = Script::default();
        let mut cleanups = BTreeSet::new();
        if full {
            (self.next_id, self.next_slot) = (1, 1);
        }
        let gone: Vec<PortKey> = self.ids.keys().filter(|k| !want.backends.contains_key(k)).cloned().collect();
        for key in gone {
            let id = self.ids.remove(&key).expect("listed above");
            self.backend(id, &BTreeSet::new(), None, &mut script, &mut cleanups, key.protocol);
            self.backends.remove(&id);
        }
        for (key, backend) in &want.backends {
            let next = &mut self.next_id;
            let id = *self.ids.entry(key.clone()).or_insert_with(|| {
                *next += 1;
                *next - 1
            });
            self.backend(id, &backend.endpoints, backend.affinity, &mut script, &mut cleanups, key.protocol);
        }
        self.targets(want, &mut script);
        self.refusals(want, &mut script);
        let pair = |ip: &Ipv4Addr| format!("{ip} . {ip}");
        self.hairpin.difference(&want.hairpin).for_each(|ip| script.delete("hairpin", pair(ip)));
        want.hairpin.difference(&self.hairpin).for_each(|ip| script.add("hairpin", pair(ip)));
        self.hairpin.clone_from(&want.hairpin);
        if script.is_empty() && !full {
            return None;
        }
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let stamp = format!("flush set ip {TABLE} stamp\nadd element ip {TABLE} stamp {{ {} }}\n", self.sequence);
        let head = match full {
            true => format!("add table ip {TABLE}\ndelete table ip {TABLE}\n{}", table::skeleton()),
            false => String::new(),
        };
        Some(Update { script: head + &script.text() + &stamp, cleanups: cleanups.into_iter().collect() })
    }

    fn backend(
        &mut self,
        id: u32,
        want: &BTreeSet<(Ipv4Addr, u16)>,
        affinity: Option<u32>,
        script: &mut Script,
        cleanups: &mut BTreeSet<Cleanup>,
        protocol: Protocol,
    ) {
        let old = self.backends.get(&id).cloned().unwrap_or_default();
        let mut new = old.clone();
        new.affinity = affinity;
        let mut at = 0;
        while at < new.endpoints.len() {
            if want.contains(&new.endpoints[at]) {
                at += 1;
                continue;
            }
            let (gone, _) = new.endpoints.swap_remove(at);
            if let Some(slot) = (at < new.slots.len()).then(|| new.slots.swap_remove(at)) {
                let (ip, port) = old.endpoints[old.slots.iter().position(|s| *s == slot).expect("it was there")];
                script.delete("slotep", format!("{slot} : {ip} . {port}"));
                script.delete("live", format!("{slot} : goto {}", table::stick_name(old.affinity.unwrap_or(0))));
            }
            if protocol == Protocol::Udp {
                self.clean(id, Some(gone), cleanups);
            }
        }
        let have: BTreeSet<_> = new.endpoints.iter().copied().collect();
        new.endpoints.extend(want.difference(&have));
        self.slots(&old, &mut new, script);
        if old == new {
            self.backends.insert(id, new);
            return;
        }
        if protocol == Protocol::Udp && old.endpoints.is_empty() {
            self.clean(id, None, cleanups);
        }
        for i in 0..old.endpoints.len().max(new.endpoints.len()) {
            let (was, is) = (old.endpoints.get(i), new.endpoints.get(i));
            if was != is {
                was.iter().for_each(|(ip, port)| script.delete("ep", format!("{id} . {i} : {ip} . {port}")));
                is.iter().for_each(|(ip, port)| script.add("ep", format!("{id} . {i} : {ip} . {port}")));
            }
            let (was, is) = (old.slots.get(i), new.slots.get(i));
            if was != is {
                was.iter().for_each(|slot| script.delete("slot", format!("{id} . {i} : {slot}")));
                is.iter().for_each(|slot| script.add("slot", format!("{id} . {i} : {slot}")));
            }
        }
        let chain = |m: &Mirror| {
            (!m.endpoints.is_empty()).then(|| (m.endpoints.len(), table::chain_name(m.endpoints.len(), m.affinity)))
        };
        let (was, is) = (chain(&old), chain(&new));
        if was != is {
            was.iter().for_each(|(_, name)| script.delete("n", format!("{id} : goto {name}")));
            if let Some((n, name)) = is {
                if self.chains.insert(name.clone()) {
                    script.chains += &table::chain(n, new.affinity);
                }
                script.add("n", format!("{id} : goto {name}"));
            }
        }
        self.backends.insert(id, new);
    }

    /// Gives each endpoint of a service with affinity a number of its own,
    /// which it keeps while its index changes.
    fn slots(&mut self, old: &Mirror, new: &mut Mirror, script: &mut Script) {
        if old.affinity != new.affinity {
            // Another time-out is another verdict for each; also on and off.
            for (slot, (ip, port)) in new.slots.drain(..).zip(&new.endpoints) {
                script.delete("slotep", format!("{slot} : {ip} . {port}"));
                script.delete("live", format!("{slot} : goto {}", table::stick_name(old.affinity.unwrap_or(0))));
            }
        }
        let Some(seconds) = new.affinity else { return };
        for (ip, port) in &new.endpoints[new.slots.len()..] {
            let slot = self.next_slot;
            self.next_slot += 1;
            new.slots.push(slot);
            script.add("slotep", format!("{slot} : {ip} . {port}"));
            script.add("live", format!("{slot} : goto {}", table::stick_name(seconds)));
        }
    }

    fn clean(&self, id: u32, endpoint: Option<Ipv4Addr>, cleanups: &mut BTreeSet<Cleanup>) {
        for ((destination, protocol, _), mark) in &self.addresses {
            if *protocol == Protocol::Udp && mark & !MASQUERADE == id {
                cleanups.insert(Cleanup { destination: *destination, endpoint });
            }
        }
    }

    fn mark(&self, target: &Target) -> u32 {
        let id = self.ids.get(&target.to).copied().unwrap_or(0);
        if target.masquerade { id | MASQUERADE } else { id }
    }

    fn targets(&mut self, want: &Desired, script: &mut Script) {
        let address = |(ip, p, port): &(Ipv4Addr, Protocol, u16)| format!("{ip} . {} . {port}", p.name());
        let wanted: BTreeMap<_, u32> = want.addresses.iter().map(|(k, t)| (*k, self.mark(t))).collect();
        difference(&self.addresses, &wanted, |k, mark| format!("{} : {mark}", address(k)), "svc", script);
        self.addresses = wanted;
        let port = |(p, port): &(Protocol, u16)| format!("{} . {port}", p.name());
        let wanted: BTreeMap<_, u32> = want.node_ports.iter().map(|(k, t)| (*k, self.mark(t))).collect();
        difference(&self.node_ports, &wanted, |k, mark| format!("{} : {mark}", port(k)), "np", script);
        self.node_ports = wanted;
    }

    fn refusals(&mut self, want: &Desired, script: &mut Script) {
        let empty = |t: &Target| want.backends.get(&t.to).is_none_or(|b| b.endpoints.is_empty());
        let wanted: BTreeSet<_> = want.addresses.iter().filter(|(_, t)| empty(t)).map(|(k, _)| *k).collect();
        let text = |(ip, p, port): &(Ipv4Addr, Protocol, u16)| format!("{ip} . {} . {port}", p.name());
        self.refused.difference(&wanted).for_each(|k| script.delete("noep", text(k)));
        wanted.difference(&self.refused).for_each(|k| script.add("noep", text(k)));
        self.refused = wanted;
        let wanted: BTreeSet<_> = want.node_ports.iter().filter(|(_, t)| empty(t)).map(|(k, _)| *k).collect();
        let text = |(p, port): &(Protocol, u16)| format!("{} . {port}", p.name());
        self.refused_ports.difference(&wanted).for_each(|k| script.delete("noepnp", text(k)));
        wanted.difference(&self.refused_ports).for_each(|k| script.add("noepnp", text(k)));
        self.refused_ports = wanted;
    }
}

fn difference<K: Ord>(
    old: &BTreeMap<K, u32>,
    new: &BTreeMap<K, u32>,
    text: impl Fn(&K, u32) -> String,
    of: &'static str,
    script: &mut Script,
) {
    for (key, mark) in old.iter().filter(|(k, m)| new.get(k) != Some(m)) {
        script.delete(of, text(key, *mark));
    }
    for (key, mark) in new.iter().filter(|(k, m)| old.get(k) != Some(m)) {
        script.add(of, text(key, *mark));
    }
}

/// Maps whose keys are no strings, as lists of pairs.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(m: &BTreeMap<K, V>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(m.iter())
    }

    pub fn deserialize<'de, K, V, D>(d: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(d)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Backend;

    fn key(service: &str, protocol: Protocol) -> PortKey {
        PortKey { namespace: "d".into(), service: service.into(), port: "p".into(), protocol, external: false }
    }

    fn want(services: &[(&str, &[u8], Option<u32>)], protocol: Protocol) -> Desired {
        let mut d = Desired::default();
        for (i, (name, endpoints, affinity)) in services.iter().enumerate() {
            let key = key(name, protocol);
            let endpoints = endpoints.iter().map(|e| (Ipv4Addr::new(10, 1, 0, *e), 80)).collect();
            d.backends.insert(key.clone(), Backend { endpoints, affinity: *affinity });
            let target = Target { to: key, masquerade: false };
            d.addresses.insert((Ipv4Addr::new(10, 96, 0, i as u8 + 1), protocol, 80), target);
        }
        d
    }

    /// Runs transactions on a model of the maps, as the kernel would.
    #[derive(Default)]
    struct Kernel(BTreeMap<String, BTreeSet<String>>);

    impl Kernel {
        fn run(&mut self, script: &str) {
            for line in script.lines() {
                if line.starts_with("delete table") {
                    self.0.clear();
                }
                let Some((verb, rest)) = line.split_once(" element ip triarch_v1 ") else { continue };
                let (of, elements) = rest.split_once(" { ").expect("elements");
                let set = self.0.entry(of.to_owned()).or_default();
                for e in elements.trim_end_matches(" }").split(", ") {
                    match verb {
                        "add" => assert!(of == "stamp" || set.insert(e.to_owned()), "added twice: {of} {e}"),
                        _ => assert!(set.remove(e), "deleted and not there: {of} {e}"),
                    }
                }
            }
            self.0.retain(|of, set| of != "stamp" && !set.is_empty());
        }
    }

    #[test]
    fn one_endpoint_more_or_less_is_a_few_elements() {
        let mut s = State::default();
        s.update(&want(&[("a", &[1, 2, 3], None), ("b", &[9], None)], Protocol::Tcp)).expect("a full load");
        let u = s.update(&want(&[("a", &[2, 3], None), ("b", &[9], None)], Protocol::Tcp)).expect("a delta");
        assert!(!u.script.contains("table"), "{}", u.script);
        let elements = u.script.lines().filter(|l| l.contains("element") && !l.contains("stamp")).count();
        assert_eq!(elements, 4, "{}", u.script);
        assert_eq!(s.update(&want(&[("a", &[2, 3], None), ("b", &[9], None)], Protocol::Tcp)), None);
    }

    #[test]
    fn a_service_without_endpoints_is_refused_until_it_has_some() {
        let mut s = State::default();
        let u = s.update(&want(&[("a", &[], None)], Protocol::Tcp)).expect("a full load");
        assert!(u.script.contains("noep { 10.96.0.1 . tcp . 80 }"), "{}", u.script);
        let u = s.update(&want(&[("a", &[1], None)], Protocol::Tcp)).expect("a delta");
        assert!(u.script.contains("delete element ip triarch_v1 noep { 10.96.0.1 . tcp . 80 }"), "{}", u.script);
    }

    #[test]
    fn udp_connections_to_a_lost_endpoint_are_forgotten() {
        let mut s = State::default();
        s.update(&want(&[("a", &[1, 2], None)], Protocol::Udp)).expect("a full load");
        let u = s.update(&want(&[("a", &[2], None)], Protocol::Udp)).expect("a delta");
        let (destination, endpoint) = (Ipv4Addr::new(10, 96, 0, 1), Some(Ipv4Addr::new(10, 1, 0, 1)));
        assert_eq!(u.cleanups, [Cleanup { destination, endpoint }]);
    }

    #[test]
    fn the_mirror_survives_its_file() {
        let mut s = State::default();
        s.update(&want(&[("a", &[1, 2], Some(60))], Protocol::Tcp)).expect("a full load");
        let back: State = serde_json::from_str(&serde_json::to_string(&s).expect("writes")).expect("reads");
        assert_eq!(back, s);
    }

    proptest::proptest! {
        #[test]
        fn deltas_and_a_full_load_give_the_same_maps(
            steps in proptest::collection::vec(
                proptest::collection::vec((0usize..4, proptest::collection::vec(1u8..8, 0..6), 0u32..3), 0..4), 1..6)
        ) {
            let names = ["a", "b", "c", "d"];
            let (mut state, mut kernel) = (State::default(), Kernel::default());
            let mut last = Desired::default();
            for step in &steps {
                let services: BTreeMap<usize, _> = step.iter().map(|(i, e, a)| (*i, (e, a))).collect();
                let list: Vec<_> = services.iter()
                    .map(|(i, (e, a))| (names[*i], e.as_slice(), (**a > 0).then(|| **a * 60))).collect();
                last = want(&list, Protocol::Udp);
                if let Some(u) = state.update(&last) {
                    kernel.run(&u.script);
                }
            }
            // Ids, slots and order differ; what each address leads to does not.
            let resolve = |s: &State, k: &Kernel| -> BTreeMap<String, (BTreeSet<String>, Option<u32>)> {
                let ep = k.0.get("ep").cloned().unwrap_or_default();
                let n = k.0.get("n").cloned().unwrap_or_default();
                s.addresses.iter().map(|((ip, _, _), id)| {
                    let prefix = format!("{id} . ");
                    let to: BTreeSet<String> = ep.iter().filter(|e| e.starts_with(&prefix))
                        .map(|e| e.split(" : ").nth(1).expect("data").to_owned()).collect();
                    let verdict = n.iter().find(|e| e.starts_with(&format!("{id} : "))).cloned();
                    let m = &s.backends[id];
                    assert_eq!(verdict.is_some(), !to.is_empty());
                    if let Some(v) = verdict {
                        assert!(v.ends_with(&table::chain_name(to.len(), m.affinity)), "{v}");
                    }
                    (ip.to_string(), (to, m.affinity))
                }).collect()
            };
            let (mut fresh, mut loaded) = (State::default(), Kernel::default());
            loaded.run(&fresh.update(&last).expect("a full load").script);
            proptest::prop_assert_eq!(resolve(&state, &kernel), resolve(&fresh, &loaded));
            let count = |k: &Kernel, of: &str| k.0.get(of).map_or(0, BTreeSet::len);
            for of in ["svc", "n", "ep", "slot", "slotep", "live", "noep"] {
                proptest::prop_assert_eq!(count(&kernel, of), count(&loaded, of), "left over in {}", of);
            }
        }
    }
}
