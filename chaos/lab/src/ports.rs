//! Loopback ports that nobody listens on. They are given back before their
//! user binds them, so a loser of that race reports the port as taken.

use std::net::{Ipv4Addr, TcpListener};

use crate::error::{Context, Result};

/// Largest number asked for at once.
const MAX: usize = 64;

/// `n` different free ports of 127.0.0.1.
pub fn free(n: usize) -> Result<Vec<u16>> {
    let held: std::io::Result<Vec<TcpListener>> =
        (0..n.min(MAX)).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    let held = held.step("ports", "bind 127.0.0.1")?;
    held.iter().map(|l| l.local_addr().map(|a| a.port()).step("ports", "local address")).collect()
}

/// Whether somebody listens on it.
pub fn taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        let mut ports = free(16).unwrap();
        assert!(ports.iter().all(|p| *p > 0));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 16);
    }

    #[test]
    fn a_port_with_a_listener_is_taken() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(taken(held.local_addr().unwrap().port()));
    }
}
