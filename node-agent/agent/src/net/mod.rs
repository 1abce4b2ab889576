//! The node's network: pod network configuration, routes to other nodes' pods,
//! services, and the relays of the lab.
//!
//! One task, woken when Services, EndpointSlices, Nodes or pods' host ports change; what it does is
//! the difference to what it did, so repeating it costs nothing.

pub mod host_ports;
pub mod relay;
mod routes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use triarch_proxy::{Applier, desired};

use crate::node::Node;
use routes::Routes;

/// Changes that come together are one transaction.
const GATHER: Duration = Duration::from_millis(10);
const RETRY: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct NetConfig {
    pub data_dir: PathBuf,
    /// Where the runtime reads its network configuration; `None`: somebody else's.
    pub cni_conf_dir: Option<PathBuf>,
    pub service_cidr: String,
    pub proxy: bool,
    pub routes: bool,
}

/// Keeps the node's network as the assignment says.
pub async fn keep(node: Arc<Node>, config: NetConfig) {
    let env = node.env().clone();
    let mut applier = match config.proxy {
        true => Some(Applier::open(env.clone(), &config.data_dir).await),
        false => None,
    };
    let mut routes = Routes::default();
    if config.routes {
        routes::forward();
        routes::service_route(&config.service_cidr, node.config().ips.first().map(String::as_str).unwrap_or_default())
            .await;
    }
    loop {
        let mut retry = None;
        if let Some(dir) = &config.cni_conf_dir
            && let Some(cidr) = own_cidr(&node)
        {
            match write_cni(dir, &config.data_dir, &cidr) {
                // The runtime takes it up by itself; the node is ready when it has.
                Ok(true) => node.look.notify_one(),
                Ok(false) => {}
                Err(e) => {
                    tracing::warn!(dir = %dir.display(), error = %e, "the pod network's configuration could not be written");
                    retry = Some(RETRY);
                }
            }
        }
        if config.routes
            && let Err(e) = routes.apply(node.name(), &node.store().nodes()).await
        {
            tracing::warn!(error = %e, "a route could not be set");
            retry = Some(RETRY);
        }
        if let Some(applier) = &mut applier
            && node.position().1 > 0
        {
            let (services, slices) = node.store().proxied();
            let mut want = desired(&services, &slices, node.name());
            want.add_host_ports(&host_ports::wanted(node.kubelet()));
            if let Err(e) = applier.apply(&want).await {
                tracing::error!(error = %e, "services could not be programmed");
                retry = Some(RETRY);
            }
        }
        let changed = node.store().network.notified();
        match retry {
            Some(d) => drop(env.timeout(d, changed).await),
            None => changed.await,
        }
        env.sleep(GATHER).await;
    }
}

/// The node's own share of the pod network.
fn own_cidr(node: &Node) -> Option<String> {
    let nodes = node.store().nodes();
    let own = nodes.iter().find(|n| n.pointer("/metadata/name").and_then(Value::as_str) == Some(node.name()))?;
    own.pointer("/spec/podCIDR").and_then(Value::as_str).filter(|c| !c.is_empty()).map(str::to_owned)
}

/// ptp with host-local: pods are routed, so a pod reaches itself and its
/// neighbours through a service without bridge filtering.
fn cni(cidr: &str, state: &std::path::Path) -> Value {
    json!({
        "cniVersion": "0.4.0", "name": "triarch",
        "plugins": [{
            "type": "ptp", "ipMasq": false, "mtu": 1500,
            "ipam": {
                "type": "host-local", "dataDir": state,
                "ranges": [[{"subnet": cidr}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

/// Writes it unless it is there; says whether it did.
fn write_cni(dir: &std::path::Path, data_dir: &std::path::Path, cidr: &str) -> std::io::Result<bool> {
    let path = dir.join("10-triarch.conflist");
    let text = serde_json::to_vec_pretty(&cni(cidr, &data_dir.join("cni")))?;
    if std::fs::read(&path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    std::fs::create_dir_all(dir)?;
    let fresh = dir.join(".10-triarch.new");
    std::fs::write(&fresh, &text)?;
    std::fs::rename(&fresh, &path).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_network_is_written_once_for_a_range() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(write_cni(dir.path(), dir.path(), "10.1.2.0/24").expect("writes"));
        let path = dir.path().join("10-triarch.conflist");
        let first = std::fs::metadata(&path).expect("there").modified().expect("a time");
        assert!(!write_cni(dir.path(), dir.path(), "10.1.2.0/24").expect("nothing to do"));
        assert_eq!(std::fs::metadata(&path).expect("there").modified().expect("a time"), first);
        let v: Value = serde_json::from_slice(&std::fs::read(&path).expect("reads")).expect("json");
        assert_eq!(v["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.1.2.0/24");
    }
}
