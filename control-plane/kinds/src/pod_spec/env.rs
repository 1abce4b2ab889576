//! Environment variables and the references that fill them (and downward API
//! volumes): field paths, resource fields, keys of ConfigMaps and Secrets.

use serde_json::Value;
use triarch_api::names;
use triarch_api::status::ErrorList;

use super::resources;
use crate::field::{self, Path};
use crate::meta;
use crate::value::{is_set, list, opt, str_of};

/// Sorted, as they are listed to users.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTE_DIVISORS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub fn vars(errs: &mut ErrorList, p: &Path, container: &Value) {
    for (i, var) in list(container, "env").iter().enumerate() {
        let (p, name) = (p.index(i), str_of(var, "name"));
        if name.is_empty() {
            field::required(errs, p.child("name"), "");
        } else {
            field::invalid_each(errs, &p.child("name"), name, names::env_var_name(name));
        }
        if let Some(from) = opt(var, "valueFrom") {
            value_from(errs, &p.child("valueFrom"), from, str_of(var, "value"));
        }
    }
}

fn value_from(errs: &mut ErrorList, p: &Path, from: &Value, value: &str) {
    let mut sources = 0;
    if let Some(f) = opt(from, "fieldRef") {
        sources += 1;
        object_field(errs, &p.child("fieldRef"), f, &ENV_FIELDS);
    }
    if let Some(r) = opt(from, "resourceFieldRef") {
        sources += 1;
        resource_field(errs, &p.child("resourceFieldRef"), r, false);
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(r) = opt(from, key) {
            sources += 1;
            key_ref(errs, &p.child(key), r);
        }
    }
    if let Some(f) = opt(from, "fileKeyRef") {
        sources += 1;
        for key in ["volumeName", "path", "key"] {
            if str_of(f, key).is_empty() {
                field::required(errs, p.child("fileKeyRef").child(key), "");
            }
        }
    }
    if sources == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        field::invalid(errs, p, "", detail);
    } else if !value.is_empty() {
        field::invalid(errs, p, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        field::invalid(errs, p, "", "may not have more than one field specified at a time");
    }
}

/// A key of a ConfigMap or Secret; the name may be empty for old objects' sake.
fn key_ref(errs: &mut ErrorList, p: &Path, r: &Value) {
    let name = str_of(r, "name");
    if !name.is_empty() {
        meta::dns1123_subdomain(errs, &p.child("name"), name);
    }
    match str_of(r, "key") {
        "" => field::required(errs, p.child("key"), ""),
        key => field::invalid_each(errs, &p.child("key"), key, names::config_map_key(key)),
    }
}

/// An `ObjectFieldSelector`.
pub fn object_field(errs: &mut ErrorList, p: &Path, f: &Value, supported: &[&str]) {
    for key in ["apiVersion", "fieldPath"] {
        if str_of(f, key).is_empty() {
            field::required(errs, p.child(key), "");
            return;
        }
    }
    let (version, path) = (str_of(f, "apiVersion"), str_of(f, "fieldPath"));
    if let Err(why) = convertible(version, path) {
        field::invalid(errs, p.child("fieldPath"), path, format!("error converting fieldPath: {why}"));
        return;
    }
    let path = if path == "spec.host" { "spec.nodeName" } else { path };
    match subscript(path) {
        Some(("metadata.annotations", key)) => {
            let lower = key.to_lowercase();
            field::invalid_each(errs, p, &lower, names::qualified_name(&lower));
        }
        Some(("metadata.labels", key)) => field::invalid_each(errs, p, key, names::qualified_name(key)),
        Some((path, _)) => field::invalid(errs, p, path, "does not support subscript"),
        None if !supported.contains(&path) => field::not_supported(errs, p.child("fieldPath"), path, supported),
        None => {}
    }
}

fn convertible(version: &str, path: &str) -> Result<(), String> {
    if version != "v1" {
        return Err(format!("unsupported pod version: {version}"));
    }
    let known = match subscript(path) {
        Some((base, _)) => base == "metadata.annotations" || base == "metadata.labels",
        None => {
            ENV_FIELDS.contains(&path)
                || VOLUME_FIELDS.contains(&path)
                || ["spec.restartPolicy", "spec.schedulerName", "status.phase", "spec.host"].contains(&path)
        }
    };
    if known {
        Ok(())
    } else if subscript(path).is_some() {
        Err(format!("field label does not support subscript: {path}"))
    } else {
        Err(format!("field label not supported: {path}"))
    }
}

/// `metadata.labels['key']` as its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(base, _)| !base.is_empty())
}

/// A `ResourceFieldSelector`.
pub fn resource_field(errs: &mut ErrorList, p: &Path, r: &Value, volume: bool) {
    let resource = str_of(r, "resource");
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if volume && str_of(r, "containerName").is_empty() {
        field::required(errs, p.child("containerName"), "");
    } else if resource.is_empty() {
        field::required(errs, p.child("resource"), "");
    } else if !RESOURCE_FIELDS.contains(&resource) && !huge {
        field::not_supported(errs, p.child("resource"), resource, &RESOURCE_FIELDS);
    }
    let divisor = resources::parse(opt(r, "divisor").unwrap_or(&Value::Null));
    if divisor.is_zero() {
        return;
    }
    let text = divisor.to_string();
    let what = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => {
            if text != "1m" && text != "1" {
                let detail = "only divisor's values 1m and 1 are supported with the cpu resource";
                field::invalid(errs, p.child("divisor"), resource, detail);
            }
            return;
        }
        "memory" => "memory",
        "ephemeral-storage" => "local ephemeral storage",
        _ if huge => "hugepages",
        _ => return,
    };
    if !BYTE_DIVISORS.contains(&text.as_str()) {
        let detail =
            format!("only divisor's values {} are supported with the {what} resource", BYTE_DIVISORS.join(", "));
        field::invalid(errs, p.child("divisor"), resource, detail);
    }
}

/// `envFrom`.
pub fn sources(errs: &mut ErrorList, p: &Path, container: &Value) {
    for (i, source) in list(container, "envFrom").iter().enumerate() {
        let at = p.index(i);
        let prefix = str_of(source, "prefix");
        if !prefix.is_empty() {
            field::invalid_each(errs, &at.child("prefix"), prefix, names::env_var_name(prefix));
        }
        let mut count = 0;
        for key in ["configMapRef", "secretRef"] {
            if !is_set(source, key) {
                continue;
            }
            count += 1;
            let path = at.child(key).child("name");
            match opt(source, key).map_or("", |r| str_of(r, "name")) {
                "" => field::required(errs, path, ""),
                name => field::invalid_each(errs, &path, name, meta::subdomain_name(name, true)),
            }
        }
        if count == 0 {
            field::invalid(errs, p, "", "must specify one of: `configMapRef` or `secretRef`");
        } else if count > 1 {
            field::invalid(errs, p, "", "may not have more than one field specified at a time");
        }
    }
}
