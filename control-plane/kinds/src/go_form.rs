//! Values as Go prints upstream's internal types in JSON, which carry no JSON
//! names: every field is there, under its Go name, in the order of the struct.
//! Clients see this form inside a few messages (a pod update that is refused, a
//! changed role reference), and nowhere else.
//!
//! Names and order come from the schema table; where an internal type differs
//! from the served one, [`POD_SPEC`] and [`pod_spec`] say how.

use serde_json::Value;
use triarch_api::canon::any_to_json;
use triarch_api::schema::{self, Kind, Type};

use crate::value::{get, opt};

/// JSON with an order of its own.
enum Node {
    Plain(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// Indented by one blank a level, as diffs compare it.
pub fn pretty(schema: &str, v: &Value) -> String {
    let mut out = String::new();
    write(&mut out, &node(schema, v), Some(0));
    out
}

/// On one line, as error values show it.
pub fn compact(schema: &str, v: &Value) -> String {
    let mut out = String::new();
    write(&mut out, &node(schema, v), None);
    out
}

fn node(schema: &str, v: &Value) -> Node {
    match schema::lookup(schema) {
        Some(ty) => structure(ty, v),
        None => plain(v),
    }
}

/// As the value is: scalars, and types that have JSON names in Go too.
fn plain(v: &Value) -> Node {
    let text = String::from_utf8_lossy(&any_to_json(v)).into_owned();
    // Go escapes these for the sake of HTML.
    Node::Plain(text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e"))
}

fn text(s: &str) -> Node {
    Node::Plain(s.to_owned())
}

fn of(kind: &Kind, pointer: bool, v: &Value) -> Node {
    if v.is_null() {
        return match kind {
            _ if pointer => text("null"),
            Kind::Struct(ty) if !is_meta(ty) => structure(ty, v),
            Kind::String => text("\"\""),
            Kind::Bool => text("false"),
            Kind::Int32 | Kind::Int64 | Kind::Float64 | Kind::IntOrString => text("0"),
            Kind::Quantity => text("\"0\""),
            Kind::Struct(_) => text("{}"),
            _ => text("null"),
        };
    }
    match (kind, v) {
        (Kind::Struct(ty), _) if !is_meta(ty) => structure(ty, v),
        (Kind::List(elem), Value::Array(items)) => Node::List(items.iter().map(|i| of(elem, false, i)).collect()),
        (Kind::Map(elem), Value::Object(map)) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            Node::Object(keys.into_iter().map(|k| (k.clone(), of(elem, false, &map[k]))).collect())
        }
        _ => plain(v),
    }
}

/// `metav1` types are the same inside and outside.
fn is_meta(ty: &Type) -> bool {
    ty.package.ends_with("apis/meta/v1")
}

fn structure(ty: &Type, v: &Value) -> Node {
    if ty.name == "core/v1.PodSpec" {
        return pod_spec(ty, v);
    }
    Node::Object(ty.fields.iter().map(|f| (go_name(f.name), of(&f.kind, f.pointer, get(v, f.name)))).collect())
}

/// The internal order of a pod spec's fields.
const POD_SPEC: [&str; 36] = [
    "volumes",
    "initContainers",
    "containers",
    "ephemeralContainers",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "activeDeadlineSeconds",
    "dnsPolicy",
    "nodeSelector",
    "serviceAccountName",
    "automountServiceAccountToken",
    "nodeName",
    "securityContext",
    "imagePullSecrets",
    "hostname",
    "subdomain",
    "setHostnameAsFQDN",
    "affinity",
    "schedulerName",
    "tolerations",
    "hostAliases",
    "priorityClassName",
    "priority",
    "preemptionPolicy",
    "dnsConfig",
    "readinessGates",
    "runtimeClassName",
    "overhead",
    "enableServiceLinks",
    "topologySpreadConstraints",
    "os",
    "schedulingGates",
    "resourceClaims",
    "resources",
    "hostnameOverride",
    "workloadRef",
];
/// What the internal type keeps in the security context.
const HOST: [&str; 5] = ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];
/// A second name of `serviceAccountName`, which the internal type does not have.
const ALIAS: &str = "serviceAccount";

fn pod_spec(ty: &Type, v: &Value) -> Node {
    let field = |name: &str| {
        let f = ty.field(name)?;
        Some((go_name(name), of(&f.kind, f.pointer, get(v, name))))
    };
    let known = |name: &&str| POD_SPEC.contains(name) || HOST.contains(name) || *name == ALIAS;
    let newer = ty.fields.iter().map(|f| f.name).filter(|n| !known(n));
    let mut out = Vec::new();
    for name in POD_SPEC.into_iter().chain(newer) {
        let Some((go, mut value)) = field(name) else { continue };
        if name == "securityContext" {
            let mut inside: Vec<(String, Node)> = HOST.into_iter().filter_map(field).collect();
            let own = ty.field(name).map(|f| of(&f.kind, false, opt(v, name).unwrap_or(&Value::Null)));
            if let Some(Node::Object(own)) = own {
                inside.extend(own);
            }
            value = Node::Object(inside);
        }
        out.push((go, value));
    }
    Node::Object(out)
}

/// The Go name of a field: its JSON name with a capital, but for initialisms.
fn go_name(json: &str) -> String {
    const INITIALISMS: [(&str, &str); 24] = [
        ("apiGroup", "APIGroup"),
        ("apiVersion", "APIVersion"),
        ("awsElasticBlockStore", "AWSElasticBlockStore"),
        ("cephfs", "CephFS"),
        ("csi", "CSI"),
        ("dnsConfig", "DNSConfig"),
        ("dnsPolicy", "DNSPolicy"),
        ("fc", "FC"),
        ("fsGroup", "FSGroup"),
        ("fsGroupChangePolicy", "FSGroupChangePolicy"),
        ("fsType", "FSType"),
        ("gcePersistentDisk", "GCEPersistentDisk"),
        ("grpc", "GRPC"),
        ("httpGet", "HTTPGet"),
        ("ip", "IP"),
        ("iscsi", "ISCSI"),
        ("nfs", "NFS"),
        ("os", "OS"),
        ("rbd", "RBD"),
        ("seLinuxChangePolicy", "SELinuxChangePolicy"),
        ("seLinuxOptions", "SELinuxOptions"),
        ("tcpSocket", "TCPSocket"),
        ("tty", "TTY"),
        ("uid", "UID"),
    ];
    if let Some((_, go)) = INITIALISMS.iter().find(|(name, _)| *name == json) {
        return (*go).to_owned();
    }
    let mut chars = json.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().collect::<String>() + chars.as_str())
}

/// `indent` is the level; `None` writes one line.
fn write(out: &mut String, node: &Node, indent: Option<usize>) {
    let inner = indent.map(|n| n + 1);
    let line = |out: &mut String, level: Option<usize>| {
        if let Some(n) = level {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', n));
        }
    };
    match node {
        Node::Plain(s) => out.push_str(s),
        Node::List(items) if items.is_empty() => out.push_str("[]"),
        Node::Object(fields) if fields.is_empty() => out.push_str("{}"),
        Node::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                line(out, inner);
                write(out, item, inner);
            }
            line(out, indent);
            out.push(']');
        }
        Node::Object(fields) => {
            out.push('{');
            for (i, (name, value)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                line(out, inner);
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push_str(if indent.is_some() { ": " } else { ":" });
                write(out, value, inner);
            }
            line(out, indent);
            out.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn internal_types_show_every_field_under_its_go_name() {
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        assert_eq!(
            compact("core/v1.Taint", &taint),
            r#"{"Key":"a","Value":"","Effect":"NoSchedule","TimeAdded":null}"#
        );
        let text = pretty("core/v1.PodSpec", &json!({"containers": [{"name": "c<"}], "hostPID": true}));
        assert!(text.starts_with("{\n \"Volumes\": null,\n \"InitContainers\": null,\n \"Containers\": [\n  {\n   \"Name\": \"c\\u003c\",\n"), "{text}");
        assert!(
            text.contains("\n \"SecurityContext\": {\n  \"HostNetwork\": false,\n  \"HostPID\": true,\n"),
            "{text}"
        );
        assert!(!text.contains("\"ServiceAccount\"") && text.contains("\n \"DNSPolicy\": \"\",\n"), "{text}");
    }
}
