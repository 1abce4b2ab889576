//! `ServerConfiguration`: a strict file, overridden by `TRIARCH_…` variables,
//! overridden by flags. Every key has a default; a bad value is refused with
//! the key, what it got and what it takes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `apiVersion` of configuration files.
pub const API_VERSION: &str = "config.triarch.io/v1alpha1";
/// `kind` of a server's configuration file.
pub const KIND: &str = "ServerConfiguration";
/// Configuration files larger than this are refused, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// How one replica runs. Keys marked *cluster* must be the same on every
/// replica: the first one's are kept in the store and win.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServerConfiguration {
    pub api_version: String,
    pub kind: String,
    /// Address that clients use (HTTPS): `host:port`.
    pub listen: String,
    /// Address for the other replicas (mutual TLS): `host:port`.
    pub peer_listen: String,
    /// Address shared by several replicas of one machine (SO_REUSEPORT); empty: none.
    pub shared_listen: String,
    /// What others are told to dial for `listen`; empty: the same.
    pub advertise: String,
    /// What other replicas are told to dial for `peerListen`; empty: the same.
    pub peer_advertise: String,
    /// What pods are told to dial behind the `kubernetes` Service; empty: as
    /// `advertise`. Where nodes have no route to the replicas, agents hold this
    /// address inside their node and relay it.
    pub api_endpoint: String,
    /// Unix sockets on which node agents may reach this replica (TLS as well).
    pub node_sockets: Vec<PathBuf>,
    /// More host names and addresses for the serving certificate.
    pub tls_san: Vec<String>,
    /// *cluster*: addresses of Services.
    pub service_cidr: String,
    /// *cluster*: addresses of pods; nodes get /24s of it.
    pub cluster_cidr: String,
    /// *cluster*: DNS domain.
    pub cluster_domain: String,
    /// Raft heartbeat, milliseconds (10 to 10,000).
    pub heartbeat_ms: u64,
    /// Raft election timeout, milliseconds, at least 5 heartbeats.
    pub election_timeout_ms: u64,
    /// Seconds without a sign of life until a node counts as gone (5 to 3,600).
    pub node_monitor_grace_seconds: u64,
    /// Seconds that Events are kept (60 to 604,800).
    pub event_ttl_seconds: u64,
    pub log: LogConfiguration,
    pub audit: AuditConfiguration,
    pub watch_window: WindowConfiguration,
    pub etcd_facade: EtcdFacadeConfiguration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogConfiguration {
    /// `text` or `json`.
    pub format: String,
    /// tracing filter, e.g. `info` or `info,triarch_raft=debug`.
    pub filter: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuditConfiguration {
    /// `Metadata` or `None`.
    pub level: String,
    /// File; empty: `audit.log` in the data directory.
    pub path: PathBuf,
    /// Rotated at this size, MiB (1 to 10,240).
    pub max_size_mib: u64,
    /// Rotated files kept (1 to 1,000).
    pub max_backups: u32,
}

/// How much history a watch can resume from: whichever bound is met first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WindowConfiguration {
    /// Seconds (10 to 86,400).
    pub seconds: u64,
    /// Events (1,000 to 10,000,000).
    pub events: u64,
    /// MiB (8 to 16,384).
    pub mib: u64,
}

/// etcd's v3 API over gRPC, in a keyspace of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EtcdFacadeConfiguration {
    /// `host:port`; empty: off. Clients need a certificate of the facade's own
    /// authority (`triarch etcd-certificate`).
    pub listen: String,
    /// `host:port` that members are listed with; empty: `listen`, and when that
    /// is any address, its port at the host of `advertise`.
    pub advertise: String,
    /// Serve without TLS. Only loopback addresses are accepted.
    pub insecure_loopback: bool,
}

impl Default for ServerConfiguration {
    fn default() -> Self {
        ServerConfiguration {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            listen: "127.0.0.1:6443".into(),
            peer_listen: "127.0.0.1:6480".into(),
            shared_listen: String::new(),
            advertise: String::new(),
            peer_advertise: String::new(),
            api_endpoint: String::new(),
            node_sockets: Vec::new(),
            tls_san: Vec::new(),
            service_cidr: "10.96.0.0/16".into(),
            cluster_cidr: "10.244.0.0/16".into(),
            cluster_domain: "cluster.local".into(),
            heartbeat_ms: 20,
            election_timeout_ms: 100,
            node_monitor_grace_seconds: 50,
            event_ttl_seconds: 3600,
            log: LogConfiguration::default(),
            audit: AuditConfiguration::default(),
            watch_window: WindowConfiguration::default(),
            etcd_facade: EtcdFacadeConfiguration::default(),
        }
    }
}

impl Default for LogConfiguration {
    fn default() -> Self {
        LogConfiguration { format: "text".into(), filter: "info,openraft=error".into() }
    }
}

impl Default for AuditConfiguration {
    fn default() -> Self {
        AuditConfiguration { level: "Metadata".into(), path: PathBuf::new(), max_size_mib: 32, max_backups: 4 }
    }
}

impl Default for WindowConfiguration {
    fn default() -> Self {
        WindowConfiguration { seconds: 300, events: 100_000, mib: 256 }
    }
}

/// A configuration that cannot be used: which key, what it got, what it takes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {why}")]
    File { path: String, why: String },
    #[error("{key}: got {got:?}, takes {takes}")]
    Value { key: String, got: String, takes: String },
}

fn bad(key: &str, got: impl ToString, takes: &str) -> ConfigError {
    ConfigError::Value { key: key.into(), got: got.to_string(), takes: takes.into() }
}

impl ServerConfiguration {
    /// Reads a file (YAML or JSON), strictly.
    pub fn read(path: &Path) -> Result<ServerConfiguration, ConfigError> {
        let at = |why: String| ConfigError::File { path: path.display().to_string(), why };
        let size = std::fs::metadata(path).map_err(|e| at(e.to_string()))?.len();
        if size > MAX_FILE {
            return Err(at(format!("{size} bytes; a configuration has at most {MAX_FILE}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| at(e.to_string()))?;
        ServerConfiguration::parse(&text).map_err(at)
    }

    /// Parses and checks a file's text.
    pub fn parse(text: &str) -> Result<ServerConfiguration, String> {
        let config: ServerConfiguration = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        if config.api_version != API_VERSION {
            return Err(bad("apiVersion", &config.api_version, API_VERSION).to_string());
        }
        if config.kind != KIND {
            return Err(bad("kind", &config.kind, KIND).to_string());
        }
        config.check().map_err(|e| e.to_string())?;
        Ok(config)
    }

    /// Takes `TRIARCH_…` variables over what is here (`TRIARCH_LISTEN`, …).
    pub fn override_from_env(&mut self, get: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let text = |name: &str, to: &mut String| {
            if let Some(v) = get(name) {
                *to = v;
            }
        };
        text("TRIARCH_LISTEN", &mut self.listen);
        text("TRIARCH_PEER_LISTEN", &mut self.peer_listen);
        text("TRIARCH_SHARED_LISTEN", &mut self.shared_listen);
        text("TRIARCH_ADVERTISE", &mut self.advertise);
        text("TRIARCH_PEER_ADVERTISE", &mut self.peer_advertise);
        text("TRIARCH_SERVICE_CIDR", &mut self.service_cidr);
        text("TRIARCH_CLUSTER_CIDR", &mut self.cluster_cidr);
        text("TRIARCH_API_ENDPOINT", &mut self.api_endpoint);
        text("TRIARCH_LOG_FORMAT", &mut self.log.format);
        text("TRIARCH_LOG", &mut self.log.filter);
        text("TRIARCH_ETCD_LISTEN", &mut self.etcd_facade.listen);
        let number = |name: &str, to: &mut u64| -> Result<(), ConfigError> {
            if let Some(v) = get(name) {
                *to = v.parse().map_err(|_| bad(name, &v, "a whole number"))?;
            }
            Ok(())
        };
        number("TRIARCH_HEARTBEAT_MS", &mut self.heartbeat_ms)?;
        number("TRIARCH_ELECTION_TIMEOUT_MS", &mut self.election_timeout_ms)
    }

    /// Checks every value and how they fit together.
    pub fn check(&self) -> Result<(), ConfigError> {
        address("listen", &self.listen)?;
        address("peerListen", &self.peer_listen)?;
        for (key, value) in [
            ("sharedListen", &self.shared_listen),
            ("advertise", &self.advertise),
            ("peerAdvertise", &self.peer_advertise),
            ("apiEndpoint", &self.api_endpoint),
            ("etcdFacade.listen", &self.etcd_facade.listen),
            ("etcdFacade.advertise", &self.etcd_facade.advertise),
        ] {
            if !value.is_empty() {
                address(key, value)?;
            }
        }
        if self.etcd_facade.insecure_loopback && !self.etcd_facade.listen.is_empty() {
            let at: Option<SocketAddr> = self.etcd_facade.listen.parse().ok();
            if !at.is_some_and(|a| a.ip().is_loopback()) {
                let takes = "a loopback address, because etcdFacade.insecureLoopback is true";
                return Err(bad("etcdFacade.listen", &self.etcd_facade.listen, takes));
            }
        }
        cidr("serviceCidr", &self.service_cidr, 12, 28)?;
        cidr("clusterCidr", &self.cluster_cidr, 8, 23)?;
        range("heartbeatMs", self.heartbeat_ms, 10, 10_000)?;
        range("electionTimeoutMs", self.election_timeout_ms, self.heartbeat_ms * 5, 100_000)?;
        range("nodeMonitorGraceSeconds", self.node_monitor_grace_seconds, 5, 3_600)?;
        range("eventTtlSeconds", self.event_ttl_seconds, 60, 604_800)?;
        range("audit.maxSizeMib", self.audit.max_size_mib, 1, 10_240)?;
        range("audit.maxBackups", u64::from(self.audit.max_backups), 1, 1_000)?;
        range("watchWindow.seconds", self.watch_window.seconds, 10, 86_400)?;
        range("watchWindow.events", self.watch_window.events, 1_000, 10_000_000)?;
        range("watchWindow.mib", self.watch_window.mib, 8, 16_384)?;
        one_of("log.format", &self.log.format, &["text", "json"])?;
        one_of("audit.level", &self.audit.level, &["Metadata", "None"])?;
        if self.node_sockets.len() > 64 {
            return Err(bad("nodeSockets", self.node_sockets.len(), "at most 64 paths"));
        }
        Ok(())
    }

    /// What clients are told to dial: `host:port`.
    pub fn advertised(&self) -> &str {
        if self.advertise.is_empty() { &self.listen } else { &self.advertise }
    }

    /// What pods are told to dial: `ip:port`.
    pub fn endpoint(&self) -> &str {
        if self.api_endpoint.is_empty() { self.advertised() } else { &self.api_endpoint }
    }

    /// What replicas are told to dial: `host:port`.
    pub fn peer_advertised(&self) -> &str {
        if self.peer_advertise.is_empty() { &self.peer_listen } else { &self.peer_advertise }
    }

    /// Where etcd's clients are told that the facade is: `host:port`.
    pub fn etcd_advertised(&self) -> String {
        if !self.etcd_facade.advertise.is_empty() {
            return self.etcd_facade.advertise.clone();
        }
        let (host, port) = self.etcd_facade.listen.rsplit_once(':').unwrap_or((&self.etcd_facade.listen, "2379"));
        match host {
            "0.0.0.0" | "[::]" => {
                let known = self.advertised();
                format!("{}:{port}", known.rsplit_once(':').map_or(known, |(host, _)| host))
            }
            host => format!("{host}:{port}"),
        }
    }

    /// [`ServerConfiguration::etcd_advertised`] as a URL.
    pub fn etcd_url(&self) -> String {
        let scheme = if self.etcd_facade.insecure_loopback { "http" } else { "https" };
        format!("{scheme}://{}", self.etcd_advertised())
    }

    /// The first usable address of the Service range: the `kubernetes` Service.
    pub fn kubernetes_service_ip(&self) -> Ipv4Addr {
        let (base, _) = self.service_cidr.split_once('/').unwrap_or((&self.service_cidr, ""));
        let base: Ipv4Addr = base.parse().unwrap_or(Ipv4Addr::new(10, 96, 0, 0));
        Ipv4Addr::from(u32::from(base) + 1)
    }

    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.node_monitor_grace_seconds)
    }
}

fn range(key: &str, got: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&got) { Ok(()) } else { Err(bad(key, got, &format!("a whole number from {min} to {max}"))) }
}

fn one_of(key: &str, got: &str, takes: &[&str]) -> Result<(), ConfigError> {
    if takes.contains(&got) { Ok(()) } else { Err(bad(key, got, &format!("one of {}", takes.join(", ")))) }
}

/// `host:port` with a port from 1 to 65535.
fn address(key: &str, got: &str) -> Result<(), ConfigError> {
    let good = got.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|p| p > 0)
    });
    if good { Ok(()) } else { Err(bad(key, got, "host:port, for example 127.0.0.1:6443")) }
}

fn cidr(key: &str, got: &str, min: u8, max: u8) -> Result<(), ConfigError> {
    let takes = format!("an IPv4 network such as 10.96.0.0/16, with a prefix from /{min} to /{max}");
    let error = || bad(key, got, &takes);
    let (ip, len) = got.split_once('/').ok_or_else(error)?;
    let len: u8 = len.parse().map_err(|_| error())?;
    let Ok(IpAddr::V4(ip)) = ip.parse::<IpAddr>() else { return Err(error()) };
    let host_bits = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
    if !(min..=max).contains(&len) || u32::from(ip) & host_bits != 0 {
        return Err(error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<ServerConfiguration, String> {
        ServerConfiguration::parse(&format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}"))
    }

    #[test]
    fn the_defaults_are_a_valid_file() {
        let text = serde_saphyr::to_string(&ServerConfiguration::default()).unwrap();
        assert_eq!(ServerConfiguration::parse(&text).unwrap(), ServerConfiguration::default());
    }

    #[test]
    fn a_bad_value_names_the_key_what_it_got_and_what_it_takes() {
        let e = with("heartbeatMs: 5").unwrap_err();
        assert_eq!(e, "heartbeatMs: got \"5\", takes a whole number from 10 to 10000");
        assert!(with("listen: nowhere").unwrap_err().starts_with("listen: got \"nowhere\", takes host:port"));
        assert!(with("serviceCidr: 10.96.0.1/16").unwrap_err().starts_with("serviceCidr: got"));
        assert!(with("log: {format: xml}").unwrap_err().contains("one of text, json"));
    }

    #[test]
    fn an_unknown_key_and_another_kind_are_refused() {
        assert!(with("lissen: 127.0.0.1:1").unwrap_err().contains("lissen"));
        assert!(ServerConfiguration::parse("apiVersion: v1\nkind: Pod").unwrap_err().contains("apiVersion"));
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let mut c = ServerConfiguration::default();
        c.override_from_env(|k| (k == "TRIARCH_LISTEN").then(|| "127.0.0.1:1".into())).unwrap();
        assert_eq!(c.listen, "127.0.0.1:1");
        let e = c.override_from_env(|k| (k == "TRIARCH_HEARTBEAT_MS").then(|| "x".into())).unwrap_err();
        assert!(e.to_string().starts_with("TRIARCH_HEARTBEAT_MS: got \"x\""), "{e}");
    }

    #[test]
    fn an_insecure_facade_stays_on_loopback() {
        assert!(
            with("etcdFacade: {listen: '10.0.0.1:2379', insecureLoopback: true}").unwrap_err().contains("loopback")
        );
        let c = with("etcdFacade: {listen: '127.0.0.1:2379', insecureLoopback: true}").unwrap();
        assert_eq!(c.etcd_url(), "http://127.0.0.1:2379");
    }

    #[test]
    fn etcds_clients_are_told_an_address_that_they_can_dial() {
        let url = |text: &str| with(text).unwrap().etcd_url();
        assert_eq!(url("advertise: 10.0.0.1:6443\netcdFacade: {listen: '0.0.0.0:2379'}"), "https://10.0.0.1:2379");
        assert_eq!(url("etcdFacade: {listen: '[::]:2379', advertise: 'etcd.example:1'}"), "https://etcd.example:1");
        assert_eq!(url("etcdFacade: {listen: '10.0.0.2:2379'}"), "https://10.0.0.2:2379");
    }
}
