//! A container's environment, and what its command and arguments expand to.
//!
//! Order and precedence are upstream's: envFrom, then env (a later name wins,
//! `$(NAME)` refers to what is already set), then the services' variables
//! where the container does not set them itself. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use serde_json::Value;

use crate::model::{Container, Pod};
use crate::ports::{NodeConfig, Objects};
use crate::quantity;

/// Why an environment cannot be made; the text is shown to the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EnvError(pub String);

/// Expands `$(NAME)`; `$$` is a literal dollar, an unknown name stays as written.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The environment of `c`, in order.
pub fn build(
    pod: &Pod,
    c: &Container,
    pod_ips: &[String],
    node: &NodeConfig,
    objects: &dyn Objects,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut index: BTreeMap<String, usize> = BTreeMap::new();
    let mut set = |out: &mut Vec<(String, String)>, name: String, value: String| match index.get(&name) {
        Some(&i) => out[i].1 = value,
        None => {
            index.insert(name.clone(), out.len());
            out.push((name, value));
        }
    };
    let namespace = &pod.metadata.namespace;
    for from in &c.env_from {
        for (resource, reference) in [("configmaps", &from.config_map_ref), ("secrets", &from.secret_ref)] {
            let Some(reference) = reference else { continue };
            let Some(object) = objects.get(resource, namespace, &reference.name) else {
                if reference.optional == Some(true) {
                    continue;
                }
                return Err(not_found(resource, &reference.name));
            };
            for (key, value) in text_entries(resource, &object) {
                set(&mut out, format!("{}{key}", from.prefix), value);
            }
        }
    }
    let services = service_variables(pod, objects);
    for var in &c.env {
        let value = match &var.value_from {
            None => {
                let lookup = |name: &str| {
                    let own = out.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                    own.or_else(|| services.get(name).cloned())
                };
                expand(&var.value, &lookup)
            }
            Some(source) => match from_source(pod, c, source, pod_ips, node, objects)? {
                Some(value) => value,
                None => continue,
            },
        };
        set(&mut out, var.name.clone(), value);
    }
    for (name, value) in services {
        if !out.iter().any(|(n, _)| *n == name) {
            out.push((name, value));
        }
    }
    Ok(out)
}

fn not_found(resource: &str, name: &str) -> EnvError {
    let kind = if resource == "secrets" { "secret" } else { "configmap" };
    EnvError(format!("{kind} \"{name}\" not found"))
}

fn text_entries(resource: &str, object: &Value) -> Vec<(String, String)> {
    let data = object.get("data").and_then(Value::as_object);
    data.into_iter().flatten().map(|(k, v)| (k.clone(), text(resource, v))).collect()
}

fn text(resource: &str, value: &Value) -> String {
    let raw = value.as_str().unwrap_or_default();
    if resource != "secrets" {
        return raw.to_owned();
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(raw).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn from_source(
    pod: &Pod,
    c: &Container,
    source: &crate::model::EnvSource,
    pod_ips: &[String],
    node: &NodeConfig,
    objects: &dyn Objects,
) -> Result<Option<String>, EnvError> {
    if let Some(field) = &source.field_ref {
        return field_value(pod, &field.field_path, pod_ips, node).map(Some);
    }
    if let Some(r) = &source.resource_field_ref {
        let of = if r.container_name.is_empty() { Some(c) } else { pod.container(&r.container_name) };
        let of = of.ok_or_else(|| EnvError(format!("container {} not found", r.container_name)))?;
        return resource_value(of, &r.resource, r.divisor.as_deref(), node).map(Some);
    }
    for (resource, reference) in [("configmaps", &source.config_map_key_ref), ("secrets", &source.secret_key_ref)] {
        let Some(r) = reference else { continue };
        let optional = r.optional == Some(true);
        let Some(object) = objects.get(resource, &pod.metadata.namespace, &r.name) else {
            return if optional { Ok(None) } else { Err(not_found(resource, &r.name)) };
        };
        return match object.get("data").and_then(|d| d.get(&r.key)) {
            Some(value) => Ok(Some(text(resource, value))),
            None if optional => Ok(None),
            None => {
                let kind = if resource == "secrets" { "Secret" } else { "ConfigMap" };
                let (ns, name) = (&pod.metadata.namespace, &r.name);
                Err(EnvError(format!("couldn't find key {} in {kind} {ns}/{name}", r.key)))
            }
        };
    }
    Ok(Some(String::new()))
}

/// The value of a `fieldRef`.
pub fn field_value(pod: &Pod, path: &str, pod_ips: &[String], node: &NodeConfig) -> Result<String, EnvError> {
    let meta = &pod.metadata;
    let indexed = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = indexed("metadata.labels") {
        return Ok(meta.labels.get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = indexed("metadata.annotations") {
        return Ok(meta.annotations.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => map_text(&meta.labels),
        "metadata.annotations" => map_text(&meta.annotations),
        "spec.nodeName" => node.name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" => node.ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => node.ips.join(","),
        "status.podIP" => pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => pod_ips.join(","),
        _ => return Err(EnvError(format!("unsupported fieldPath: {path}"))),
    })
}

/// `key="value"` lines, sorted, as a downward API file shows a map.
fn map_text(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join("\n")
}

/// The value of a `resourceFieldRef`, divided and rounded up.
pub fn resource_value(
    c: &Container,
    resource: &str,
    divisor: Option<&str>,
    node: &NodeConfig,
) -> Result<String, EnvError> {
    let (of, name) = resource.split_once('.').unwrap_or(("", resource));
    let map = match of {
        "limits" => &c.resources.limits,
        "requests" => &c.resources.requests,
        _ => return Err(EnvError(format!("unsupported container resource : {resource}"))),
    };
    let scale = |q: &str| if name == "cpu" { quantity::milli(q) } else { quantity::whole(q) };
    let set = map.get(name).and_then(|q| scale(q)).filter(|n| *n != 0);
    let capacity = match name {
        "cpu" => node.cpu_milli,
        "memory" => node.memory_bytes,
        "ephemeral-storage" => node.ephemeral_bytes,
        _ => 0,
    };
    let value = set.unwrap_or(if of == "limits" { capacity } else { 0 });
    let unit = if name == "cpu" { 1000 } else { 1 };
    let by = divisor.filter(|d| *d != "0").and_then(scale).filter(|n| *n > 0).unwrap_or(unit);
    Ok(value.div_ceil_signed(by).to_string())
}

trait DivCeil {
    fn div_ceil_signed(self, by: i64) -> i64;
}

impl DivCeil for i64 {
    fn div_ceil_signed(self, by: i64) -> i64 {
        self.div_euclid(by) + i64::from(self.rem_euclid(by) != 0)
    }
}

/// The variables that tell a container of the services of its namespace; the
/// `kubernetes` service is always told of.
fn service_variables(pod: &Pod, objects: &dyn Objects) -> BTreeMap<String, String> {
    let mut services = objects.services("default");
    services.retain(|s| name_of(s) == "kubernetes");
    if pod.spec.enable_service_links.unwrap_or(true) {
        services.extend(objects.services(&pod.metadata.namespace));
    }
    let mut out = BTreeMap::new();
    for service in &services {
        one_service(service, &mut out);
    }
    out
}

fn name_of(service: &Value) -> &str {
    service.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

fn one_service(service: &Value, out: &mut BTreeMap<String, String>) {
    let ip = service.pointer("/spec/clusterIP").and_then(Value::as_str).unwrap_or_default();
    if ip.is_empty() || ip == "None" {
        return;
    }
    let variable = |s: &str| s.to_uppercase().replace(['-', '.'], "_");
    let prefix = variable(name_of(service));
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (i, port) in ports.iter().enumerate() {
        let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        let url = format!("{}://{ip}:{number}", protocol.to_lowercase());
        if i == 0 {
            out.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
            out.insert(format!("{prefix}_SERVICE_PORT"), number.to_string());
            out.insert(format!("{prefix}_PORT"), url.clone());
        }
        if let Some(name) = port.get("name").and_then(Value::as_str).filter(|n| !n.is_empty()) {
            out.insert(format!("{prefix}_SERVICE_PORT_{}", variable(name)), number.to_string());
        }
        let of_port = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        out.insert(of_port.clone(), url);
        out.insert(format!("{of_port}_PROTO"), protocol.to_lowercase());
        out.insert(format!("{of_port}_PORT"), number.to_string());
        out.insert(format!("{of_port}_ADDR"), ip.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Fixed;

    impl Objects for Fixed {
        fn get(&self, resource: &str, _namespace: &str, name: &str) -> Option<Arc<Value>> {
            match (resource, name) {
                ("configmaps", "cm") => Some(Arc::new(serde_json::json!({"data": {"COLOUR": "green", "n": "1"}}))),
                ("secrets", "s") => Some(Arc::new(serde_json::json!({"data": {"password": "aHVudGVyMg=="}}))),
                _ => None,
            }
        }
        fn services(&self, namespace: &str) -> Vec<Arc<Value>> {
            let name = if namespace == "default" { "kubernetes" } else { "my-web" };
            let port = serde_json::json!({"name": "https", "port": 443, "protocol": "TCP"});
            let service =
                serde_json::json!({"metadata": {"name": name}, "spec": {"clusterIP": "10.96.0.1", "ports": [port]}});
            vec![Arc::new(service)]
        }
    }

    fn built(container: &str) -> Result<BTreeMap<String, String>, EnvError> {
        let text = format!(
            r#"{{"metadata":{{"name":"p","namespace":"d","uid":"u","labels":{{"app":"web"}}}},"spec":{{"containers":[{container}]}}}}"#
        );
        let pod: Pod = serde_json::from_str(&text).expect("a pod");
        let node =
            NodeConfig { name: "n1".into(), ips: vec!["192.0.2.1".into()], cpu_milli: 2000, ..Default::default() };
        build(&pod, &pod.spec.containers[0], &["10.0.0.9".into()], &node, &Fixed).map(|v| v.into_iter().collect())
    }

    #[test]
    fn every_source_of_the_environment_is_read() {
        let env = built(
            r#"{"name":"c","resources":{"requests":{"cpu":"250m"}},"envFrom":[{"prefix":"X_","configMapRef":{"name":"cm"}}],
            "env":[{"name":"A","value":"a"},{"name":"B","value":"$(A)-$(X_n)-$(NONE)-$$(A)"},
            {"name":"IP","valueFrom":{"fieldRef":{"fieldPath":"status.podIP"}}},
            {"name":"APP","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['app']"}}},
            {"name":"CPU","valueFrom":{"resourceFieldRef":{"resource":"requests.cpu"}}},
            {"name":"MCPU","valueFrom":{"resourceFieldRef":{"resource":"requests.cpu","divisor":"1m"}}},
            {"name":"LIMIT","valueFrom":{"resourceFieldRef":{"resource":"limits.cpu"}}},
            {"name":"PW","valueFrom":{"secretKeyRef":{"name":"s","key":"password"}}},
            {"name":"GONE","valueFrom":{"secretKeyRef":{"name":"no","key":"x","optional":true}}}]}"#,
        )
        .expect("complete");
        let get = |k: &str| env.get(k).map(String::as_str);
        assert_eq!(get("X_COLOUR"), Some("green"));
        assert_eq!(get("B"), Some("a-1-$(NONE)-$(A)"));
        assert_eq!((get("IP"), get("APP")), (Some("10.0.0.9"), Some("web")));
        assert_eq!((get("CPU"), get("MCPU"), get("LIMIT")), (Some("1"), Some("250"), Some("2")));
        assert_eq!((get("PW"), get("GONE")), (Some("hunter2"), None));
        assert_eq!(get("KUBERNETES_SERVICE_HOST"), Some("10.96.0.1"));
        assert_eq!(get("MY_WEB_PORT_443_TCP"), Some("tcp://10.96.0.1:443"));
        assert_eq!(get("MY_WEB_SERVICE_PORT_HTTPS"), Some("443"));
    }

    #[test]
    fn what_is_missing_is_said_in_upstreams_words() {
        let of = |env: &str| {
            built(&format!(r#"{{"name":"c","env":[{{"name":"A","valueFrom":{env}}}]}}"#)).expect_err("missing").0
        };
        assert_eq!(of(r#"{"configMapKeyRef":{"name":"no","key":"k"}}"#), "configmap \"no\" not found");
        assert_eq!(of(r#"{"secretKeyRef":{"name":"s","key":"k"}}"#), "couldn't find key k in Secret d/s");
    }
}
