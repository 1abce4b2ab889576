//! What the runtime is asked to make for a pod: sandbox and container specs,
//! name service, hosts file. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{env, qos};
use crate::model::{Container, Pod};
use crate::ports::{HostError, NodeConfig};
use crate::runtime::*;

/// Labels by which an agent finds its pods again after a restart.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: how often the container was started before.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";

fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone();
    labels.insert(POD_NAME.into(), pod.metadata.name.clone());
    labels.insert(POD_NAMESPACE.into(), pod.metadata.namespace.clone());
    labels.insert(POD_UID.into(), pod.metadata.uid.clone());
    labels
}

/// The host name inside the pod: `spec.hostname`, else the pod's name, at most
/// 63 characters and not ending in a separator.
pub fn hostname(pod: &Pod) -> String {
    let name = if pod.spec.hostname.is_empty() { &pod.metadata.name } else { &pod.spec.hostname };
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The pod's own fully qualified name, when it has a subdomain.
fn fqdn(pod: &Pod, node: &NodeConfig) -> Option<String> {
    let sub = &pod.spec.subdomain;
    (!sub.is_empty()).then(|| format!("{}.{sub}.{}.svc.{}", hostname(pod), pod.metadata.namespace, node.cluster_domain))
}

pub fn sandbox(pod: &Pod, attempt: u32, node: &NodeConfig, log_directory: PathBuf, of_node: Dns) -> SandboxSpec {
    let spec = &pod.spec;
    let security = &spec.security_context;
    let mut supplemental_groups = security.supplemental_groups.clone();
    supplemental_groups.extend(security.fs_group.map(i64::from));
    SandboxSpec {
        uid: pod.metadata.uid.clone(),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        attempt,
        hostname: match (spec.host_network, spec.set_hostname_as_fqdn) {
            (true, _) => String::new(),
            (false, true) => fqdn(pod, node).unwrap_or_else(|| hostname(pod)),
            (false, false) => hostname(pod),
        },
        log_directory,
        dns: dns(pod, node, of_node),
        host_network: spec.host_network,
        host_pid: spec.host_pid,
        host_ipc: spec.host_ipc,
        share_process_namespace: spec.share_process_namespace,
        cgroup_parent: qos::cgroup_parent(&node.cgroup_root, pod),
        sysctls: security.sysctls.iter().map(|s| (s.name.clone(), s.value.clone())).collect(),
        labels: labels(pod),
        annotations: pod.metadata.annotations.clone(),
        run_as_user: security.run_as_user,
        run_as_group: security.run_as_group.filter(|_| security.run_as_user.is_some()),
        supplemental_groups,
        privileged: pod.all_containers().any(|(c, _)| c.security_context.privileged == Some(true)),
        runtime_handler: String::new(),
    }
}

/// The pod's resolv.conf. ClusterFirst means the cluster's name server where
/// there is one; the node's own otherwise, as upstream falls back.
pub fn dns(pod: &Pod, node: &NodeConfig, of_node: Dns) -> Dns {
    let cluster = match pod.spec.dns_policy.as_str() {
        "ClusterFirst" | "" => !pod.spec.host_network,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut dns = match pod.spec.dns_policy.as_str() {
        "None" => Dns::default(),
        _ if cluster && !node.cluster_dns.is_empty() => {
            let (ns, domain) = (&pod.metadata.namespace, &node.cluster_domain);
            let mut searches = vec![format!("{ns}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            searches.extend(of_node.searches);
            Dns { servers: node.cluster_dns.clone(), searches, options: vec!["ndots:5".into()] }
        }
        _ => of_node,
    };
    if let Some(own) = &pod.spec.dns_config {
        dns.servers.extend(own.nameservers.iter().cloned());
        dns.searches.extend(own.searches.iter().cloned());
        for option in &own.options {
            let text = match &option.value {
                Some(value) if !value.is_empty() => format!("{}:{value}", option.name),
                _ => option.name.clone(),
            };
            dns.options.retain(|o| o.split(':').next() != Some(option.name.as_str()));
            dns.options.push(text);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    dns.servers.retain(|s| seen.insert(s.clone()));
    dns.servers.truncate(3);
    let mut seen = std::collections::BTreeSet::new();
    dns.searches.retain(|s| seen.insert(s.clone()));
    dns.searches.truncate(32);
    dns
}

/// The managed /etc/hosts of a pod on the pod network.
pub fn hosts_file(pod: &Pod, ips: &[String], node: &NodeConfig) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let name = hostname(pod);
    for ip in ips {
        match fqdn(pod, node) {
            Some(fqdn) => out.push_str(&format!("{ip}\t{fqdn}\t{name}\n")),
            None => out.push_str(&format!("{ip}\t{name}\n")),
        }
    }
    if !pod.spec.host_aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in &pod.spec.host_aliases {
            out.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
        }
    }
    out
}

/// Everything besides the pod that a container's spec is made of.
pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub restart_count: u32,
    pub env: Vec<(String, String)>,
    pub volumes: &'a BTreeMap<String, PathBuf>,
    pub hosts: Option<PathBuf>,
    pub termination_log: Option<PathBuf>,
    pub image: &'a ImageInfo,
    pub node: &'a NodeConfig,
}

/// The spec of one run of a container.
pub fn container(
    i: Inputs<'_>,
    sub_path: &dyn Fn(&Path, &str) -> Result<PathBuf, HostError>,
) -> Result<ContainerSpec, HostError> {
    let (pod, c) = (i.pod, i.container);
    let lookup = |name: &str| i.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let expand = |list: &[String]| list.iter().map(|s| env::expand(s, &lookup)).collect();
    let mut mounts = Vec::with_capacity(c.volume_mounts.len() + 2);
    for m in &c.volume_mounts {
        let missing =
            || HostError::new(format!("cannot find volume \"{}\" to mount into container \"{}\"", m.name, c.name));
        let base = i.volumes.get(&m.name).ok_or_else(missing)?;
        let sub = if m.sub_path_expr.is_empty() { m.sub_path.clone() } else { env::expand(&m.sub_path_expr, &lookup) };
        let host_path = if sub.is_empty() { base.clone() } else { sub_path(base, &sub)? };
        let propagation = match m.mount_propagation.as_str() {
            "HostToContainer" => Propagation::HostToContainer,
            "Bidirectional" => Propagation::Bidirectional,
            _ => Propagation::None,
        };
        mounts.push(MountSpec { container_path: m.mount_path.clone(), host_path, read_only: m.read_only, propagation });
    }
    let plain = |container_path: &str, host_path: PathBuf| MountSpec {
        container_path: container_path.to_owned(),
        host_path,
        read_only: false,
        propagation: Propagation::None,
    };
    if let Some(hosts) = i.hosts.filter(|_| !mounts.iter().any(|m| m.container_path == "/etc/hosts")) {
        mounts.push(plain("/etc/hosts", hosts));
    }
    if let Some(log) = i.termination_log {
        let path = &c.termination_message_path;
        mounts.push(plain(if path.is_empty() { "/dev/termination-log" } else { path }, log));
    }
    let mut labels = labels(pod);
    labels.insert(CONTAINER_NAME.into(), c.name.clone());
    let annotations = BTreeMap::from([(RESTART_COUNT.to_owned(), i.restart_count.to_string())]);
    Ok(ContainerSpec {
        name: c.name.clone(),
        restart_count: i.restart_count,
        image: if i.image.id.is_empty() { c.image.clone() } else { i.image.id.clone() },
        command: expand(&c.command),
        args: expand(&c.args),
        working_dir: c.working_dir.clone(),
        mounts,
        log_path: format!("{}/{}.log", c.name, i.restart_count),
        labels,
        annotations,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        tty: c.tty,
        resources: qos::linux_resources(pod, &c.resources, i.node.memory_bytes),
        security: security(pod, c, i.image)?,
        env: i.env,
    })
}

fn security(pod: &Pod, c: &Container, image: &ImageInfo) -> Result<Security, HostError> {
    let (own, of_pod) = (&c.security_context, &pod.spec.security_context);
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    verify_non_root(pod, c, run_as_user, image)?;
    let mut supplemental_groups = of_pod.supplemental_groups.clone();
    supplemental_groups.extend(of_pod.fs_group.map(i64::from));
    let privileged = own.privileged == Some(true);
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    Ok(Security {
        privileged,
        run_as_user: run_as_user.or(image.uid.filter(|_| image.username.is_empty())),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        run_as_username: if run_as_user.is_none() { image.username.clone() } else { String::new() },
        supplemental_groups,
        read_only_root: own.read_only_root_filesystem == Some(true),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        add_capabilities: own.capabilities.add.clone(),
        drop_capabilities: own.capabilities.drop.clone(),
        seccomp: profile.map(|p| (p.kind.clone(), p.localhost_profile.clone())),
    })
}

fn verify_non_root(pod: &Pod, c: &Container, user: Option<i64>, image: &ImageInfo) -> Result<(), HostError> {
    let required = c.security_context.run_as_non_root.or(pod.spec.security_context.run_as_non_root) == Some(true);
    if !required {
        return Ok(());
    }
    let (of, name) = (pod.full_name(), &c.name);
    let fail = |what: String| Err(HostError::new(format!("{what} (pod: \"{of}\", container: {name})")));
    match (user, image.uid, image.username.as_str()) {
        (Some(0), _, _) => fail("container's runAsUser breaks non-root policy".into()),
        (Some(_), _, _) => Ok(()),
        (None, Some(0) | None, "") => fail("container has runAsNonRoot and image will run as root".into()),
        (None, Some(_), "") => Ok(()),
        (None, _, user) => fail(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        let meta = r#"{"name":"p","namespace":"d","uid":"u","labels":{"app":"web"}}"#;
        serde_json::from_str(&format!(r#"{{"metadata":{meta},"spec":{spec}}}"#)).expect("a pod")
    }

    fn node() -> NodeConfig {
        let cluster_dns = vec!["10.96.0.10".to_owned()];
        NodeConfig {
            cluster_domain: "cluster.local".into(),
            cluster_dns,
            cgroup_root: "/n1".into(),
            ..Default::default()
        }
    }

    fn of(pod: &Pod, image: &ImageInfo) -> Result<ContainerSpec, HostError> {
        let volumes = BTreeMap::from([("v".to_owned(), PathBuf::from("/vols/v"))]);
        let inputs = Inputs {
            pod,
            container: &pod.spec.containers[0],
            restart_count: 2,
            env: vec![("A".into(), "x".into())],
            volumes: &volumes,
            hosts: Some("/pods/hosts".into()),
            termination_log: Some("/pods/log".into()),
            image,
            node: &node(),
        };
        container(inputs, &|base, sub| Ok(base.join(sub)))
    }

    #[test]
    fn commands_and_mounts_are_expanded() {
        let p = pod(r#"{"containers":[{"name":"c","command":["echo","$(A)"],"volumeMounts":[
            {"name":"v","mountPath":"/data","subPathExpr":"$(A)/y","readOnly":true}]}]}"#);
        let spec = of(&p, &ImageInfo::default()).expect("valid");
        assert_eq!(spec.command, ["echo", "x"]);
        assert_eq!((spec.mounts[0].host_path.clone(), spec.mounts[0].read_only), (PathBuf::from("/vols/v/x/y"), true));
        let targets: Vec<_> = spec.mounts.iter().map(|m| m.container_path.as_str()).collect();
        assert_eq!(targets, ["/data", "/etc/hosts", "/dev/termination-log"]);
        assert_eq!(spec.log_path, "c/2.log");
        assert_eq!(spec.labels[POD_UID], "u");
    }

    #[test]
    fn a_pod_that_must_not_run_as_root_does_not() {
        let p = pod(r#"{"securityContext":{"runAsNonRoot":true},"containers":[{"name":"c"}]}"#);
        let text = of(&p, &ImageInfo::default()).expect_err("refused").message;
        assert_eq!(text, "container has runAsNonRoot and image will run as root (pod: \"p_d(u)\", container: c)");
        assert!(of(&p, &ImageInfo { uid: Some(1000), ..Default::default() }).is_ok());
    }

    #[test]
    fn cluster_names_resolve_through_the_clusters_server_where_there_is_one() {
        let of_node = Dns { servers: vec!["192.0.2.53".into()], searches: vec!["lan".into()], options: vec![] };
        let p = pod(r#"{"containers":[]}"#);
        let with = dns(&p, &node(), of_node.clone());
        assert_eq!(with.servers, ["10.96.0.10"]);
        assert_eq!(with.searches, ["d.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"]);
        assert_eq!(with.options, ["ndots:5"]);
        assert_eq!(dns(&p, &NodeConfig::default(), of_node.clone()), of_node);
        let own = pod(
            r#"{"dnsPolicy":"None","dnsConfig":{"nameservers":["1.1.1.1"],"options":[{"name":"ndots","value":"2"}]},"containers":[]}"#,
        );
        assert_eq!(dns(&own, &node(), of_node).options, ["ndots:2"]);
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let p = pod(r#"{"subdomain":"sub","hostAliases":[{"ip":"1.2.3.4","hostnames":["a","b"]}],"containers":[]}"#);
        let text = hosts_file(&p, &["10.0.0.9".into()], &node());
        assert!(text.contains("10.0.0.9\tp.sub.d.svc.cluster.local\tp\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }
}
