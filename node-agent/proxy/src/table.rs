//! The fixed part of the node's table: maps, sets, hooks.
//!
//! A service port is a number in the packet's mark (bit 31: masquerade), the
//! chosen endpoint's index a number in the connection's mark. `nN` chooses
//! among N; `aN_T` does so once per client and T seconds.

/// The table's name carries the layout's version: another layout is another table.
pub const TABLE: &str = "triarch_v1";

/// Masquerade flag in a mark.
pub const MASQUERADE: u32 = 0x8000_0000;

/// Everything besides elements and chains of numbers.
pub fn skeleton() -> String {
    format!(
        "table ip {TABLE} {{
  set stamp {{ type mark; }}
  map svc {{ type ipv4_addr . inet_proto . inet_service : mark; }}
  map np {{ type inet_proto . inet_service : mark; }}
  map ep {{ type mark . mark : ipv4_addr . inet_service; }}
  map slot {{ type mark . mark : mark; }}
  map slotep {{ type mark : ipv4_addr . inet_service; }}
  map aff {{ type mark . ipv4_addr : mark; flags dynamic, timeout; size 65535; }}
  set noep {{ type ipv4_addr . inet_proto . inet_service; }}
  set noepnp {{ type inet_proto . inet_service; }}
  set hairpin {{ type ipv4_addr . ipv4_addr; }}
  chain stick {{
    meta l4proto {{ tcp, udp, sctp }} dnat ip to ct mark map @slotep
  }}
  map n {{ type mark : verdict; }}
  map live {{ type mark : verdict; }}
  chain dispatch {{
    meta mark & 0x7fffffff vmap @n
  }}
  chain lookup {{
    meta mark set ip daddr . meta l4proto . th dport map @svc goto dispatch
    fib daddr type local meta mark set meta l4proto . th dport map @np goto dispatch
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmp port-unreachable
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    jump lookup
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump lookup
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr . ip daddr @hairpin masquerade
    meta mark & 0x80000000 == 0x80000000 masquerade
  }}
  chain forward_new {{
    type filter hook forward priority 0; policy accept;
    ct state new ip daddr . meta l4proto . th dport @noep goto refuse
  }}
  chain output_new {{
    type filter hook output priority 0; policy accept;
    ct state new ip daddr . meta l4proto . th dport @noep goto refuse
  }}
  chain input_new {{
    type filter hook input priority 0; policy accept;
    ct state new meta l4proto . th dport @noepnp goto refuse
    ct state new ip daddr . meta l4proto . th dport @noep goto refuse
  }}
}}
"
    )
}

/// The chain that chooses among `n` endpoints, with affinity for `seconds`.
pub fn chain_name(n: usize, affinity: Option<u32>) -> String {
    match affinity {
        None => format!("n{n}"),
        Some(seconds) => format!("a{n}_{seconds}"),
    }
}

/// The chain that remembers a client's endpoint for `seconds` and goes there.
pub fn stick_name(seconds: u32) -> String {
    format!("s{seconds}")
}

/// Makes that chain.
pub fn chain(n: usize, affinity: Option<u32>) -> String {
    let name = chain_name(n, affinity);
    let rule = |text: &str| format!("add rule ip {TABLE} {name} {text}\n");
    let mut out = format!("add chain ip {TABLE} {name}\n");
    let choose = format!("ct mark set numgen random mod {n}");
    match affinity {
        None => {
            out += &rule(&choose);
            out += &rule("meta l4proto { tcp, udp, sctp } dnat ip to meta mark & 0x7fffffff . ct mark map @ep");
        }
        Some(seconds) => {
            let stick = stick_name(seconds);
            out += &format!("add chain ip {TABLE} {stick}\n");
            out += &format!("flush chain ip {TABLE} {stick}\n");
            let refresh = format!("update @aff {{ meta mark . ip saddr timeout {seconds}s : ct mark }}");
            out += &format!("add rule ip {TABLE} {stick} {refresh}\nadd rule ip {TABLE} {stick} goto stick\n");
            out += &rule("ct mark set meta mark . ip saddr map @aff ct mark vmap @live");
            // The endpoint that this client stuck to is gone: forget it.
            out += &rule("delete @aff { meta mark . ip saddr : ct mark }");
            out += &rule(&choose);
            out += &rule("ct mark set meta mark & 0x7fffffff . ct mark map @slot");
            out += &rule(&format!("goto {stick}"));
        }
    }
    out
}
