//! Volumes of a pod spec: one source each, and what each source requires.

use std::collections::BTreeSet;

use serde_json::Value;
use triarch_api::status::ErrorList;

use super::defaults::VOLUME_SOURCES;
use super::{Ctx, env, resources};
use crate::field::{self, Path};
use crate::meta;
use crate::value::{is_set, list, opt, opt_int, str_of};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// The order in which upstream looks at the sources.
const ORDER: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

pub fn validate<'a>(errs: &mut ErrorList, p: &Path, spec: &'a Value, ctx: &mut Ctx<'a>) {
    debug_assert_eq!(ORDER.len(), VOLUME_SOURCES.len());
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let (p, name) = (p.index(i), str_of(volume, "name"));
        let before = errs.len();
        source(errs, &p, volume, ctx);
        let name_path = p.child("name");
        if name.is_empty() {
            field::required(errs, &name_path, "");
        } else {
            meta::dns1123_label(errs, &name_path, name);
        }
        if ctx.volumes.contains_key(name) {
            field::duplicate(errs, &name_path, name);
        }
        // A volume that is itself wrong cannot be mounted: its mounts are then
        // reported as not found, as upstream does.
        if errs.len() == before {
            ctx.volumes.insert(name, volume);
        }
    }
}

fn source(errs: &mut ErrorList, p: &Path, volume: &Value, ctx: &Ctx<'_>) {
    let mut found = false;
    for name in ORDER {
        let Some(s) = opt(volume, name) else { continue };
        let path = p.child(name);
        if found {
            field::forbidden(errs, path, "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        one_source(errs, &path, name, s, volume, ctx);
    }
    if !found {
        field::required(errs, p, "must specify a volume type");
    }
}

fn one_source(errs: &mut ErrorList, p: &Path, name: &str, s: &Value, volume: &Value, ctx: &Ctx<'_>) {
    let need = |errs: &mut ErrorList, key: &str| {
        if str_of(s, key).is_empty() {
            field::required(errs, p.child(key), "");
        }
    };
    match name {
        "emptyDir" if opt(s, "sizeLimit").is_some_and(|q| resources::parse(q).sign() < 0) => {
            field::forbidden(errs, p.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
        }
        "hostPath" => host_path(errs, p, s),
        "secret" => keyed(errs, p, s, "secretName"),
        "configMap" => keyed(errs, p, s, "name"),
        "persistentVolumeClaim" => need(errs, "claimName"),
        "nfs" => {
            need(errs, "server");
            need(errs, "path");
            if !str_of(s, "path").starts_with('/') {
                field::invalid(errs, p.child("path"), str_of(s, "path"), "must be an absolute path");
            }
        }
        "downwardAPI" => {
            mode(errs, &p.child("defaultMode"), opt_int(s, "defaultMode"));
            for item in list(s, "items") {
                downward_file(errs, p, item);
            }
        }
        "projected" => projected(errs, p, s),
        "gitRepo" => {
            need(errs, "repository");
            descending(errs, &p.child("directory"), str_of(s, "directory"));
        }
        "csi" => {
            let driver = str_of(s, "driver");
            if driver.is_empty() {
                field::required(errs, p.child("driver"), "");
            } else {
                if driver.len() > 63 {
                    field::too_long(errs, p.child("driver"), 63);
                }
                meta::dns1123_subdomain(errs, &p.child("driver"), &driver.to_lowercase());
            }
            if let Some(secret) = opt(s, "nodePublishSecretRef")
                && str_of(secret, "name").is_empty()
            {
                field::required(errs, p.child("nodePublishSecretRef").child("name"), "");
            }
        }
        "ephemeral" => {
            if !is_set(s, "volumeClaimTemplate") {
                field::required(errs, p.child("volumeClaimTemplate"), "");
            }
            let volume_name = str_of(volume, "name");
            if !ctx.pod_name.is_empty() && !volume_name.is_empty() {
                let claim = format!("{}-{volume_name}", ctx.pod_name);
                for message in triarch_api::names::dns1123_subdomain(&claim) {
                    field::invalid(errs, p.child("name"), volume_name, format!("PVC name {claim:?}: {message}"));
                }
            }
        }
        "image" => {
            if str_of(s, "reference").is_empty() && ctx.is_pod {
                field::required(errs, p.child("reference"), "");
            }
            field::one_of(errs, &p.child("pullPolicy"), str_of(s, "pullPolicy"), &["Always", "IfNotPresent", "Never"]);
        }
        "awsElasticBlockStore" => need(errs, "volumeID"),
        "gcePersistentDisk" => need(errs, "pdName"),
        "cinder" => need(errs, "volumeID"),
        "glusterfs" => {
            need(errs, "endpoints");
            need(errs, "path");
        }
        "azureFile" => {
            need(errs, "secretName");
            need(errs, "shareName");
        }
        "vsphereVolume" => need(errs, "volumePath"),
        "photonPersistentDisk" => need(errs, "pdID"),
        "portworxVolume" => need(errs, "volumeID"),
        "flexVolume" => need(errs, "driver"),
        "iscsi" => {
            need(errs, "targetPortal");
            need(errs, "iqn");
        }
        "rbd" => {
            if list(s, "monitors").is_empty() {
                field::required(errs, p.child("monitors"), "");
            }
            need(errs, "image");
        }
        "cephfs" if list(s, "monitors").is_empty() => field::required(errs, p.child("monitors"), ""),
        _ => {}
    }
}

fn host_path(errs: &mut ErrorList, p: &Path, s: &Value) {
    let path = str_of(s, "path");
    if path.is_empty() {
        field::required(errs, p.child("path"), "");
        return;
    }
    no_backsteps(errs, &p.child("path"), path);
    let types = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let kind = str_of(s, "type");
    if !types.contains(&kind) {
        field::not_supported(errs, p.child("type"), kind, &types);
    }
}

/// Secret and ConfigMap volumes.
fn keyed(errs: &mut ErrorList, p: &Path, s: &Value, name: &str) {
    if str_of(s, name).is_empty() {
        field::required(errs, p.child(name), "");
    }
    mode(errs, &p.child("defaultMode"), opt_int(s, "defaultMode"));
    for (i, item) in list(s, "items").iter().enumerate() {
        key_to_path(errs, &p.child("items").index(i), item);
    }
}

fn mode(errs: &mut ErrorList, p: &Path, value: Option<i64>) {
    if let Some(value) = value
        && !(0..=0o777).contains(&value)
    {
        field::invalid(errs, p, value, MODE);
    }
}

fn key_to_path(errs: &mut ErrorList, p: &Path, item: &Value) {
    for key in ["key", "path"] {
        if str_of(item, key).is_empty() {
            field::required(errs, p.child(key), "");
        }
    }
    local_path(errs, &p.child("path"), str_of(item, "path"));
    mode(errs, &p.child("mode"), opt_int(item, "mode"));
}

fn downward_file(errs: &mut ErrorList, p: &Path, file: &Value) {
    if str_of(file, "path").is_empty() {
        field::required(errs, p.child("path"), "");
    }
    local_path(errs, &p.child("path"), str_of(file, "path"));
    match (opt(file, "fieldRef"), opt(file, "resourceFieldRef")) {
        (Some(f), both) => {
            env::object_field(errs, &p.child("fieldRef"), f, &env::VOLUME_FIELDS);
            if both.is_some() {
                field::invalid(
                    errs,
                    p,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
        }
        (None, Some(r)) => env::resource_field(errs, &p.child("resourceFieldRef"), r, true),
        (None, None) => field::required(errs, p, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(errs, &p.child("mode"), opt_int(file, "mode"));
}

fn projected(errs: &mut ErrorList, p: &Path, s: &Value) {
    mode(errs, &p.child("defaultMode"), opt_int(s, "defaultMode"));
    let mut paths = BTreeSet::new();
    let mut once = |errs: &mut ErrorList, path: &str, value: &str| {
        if !path.is_empty() && !paths.insert(path.to_owned()) {
            field::invalid(errs, p, value, "conflicting duplicate paths");
        }
    };
    for (i, source) in list(s, "sources").iter().enumerate() {
        let src = p.child("sources").index(i);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            let Some(part) = opt(source, kind) else { continue };
            count += 1;
            let part_path = src.child(kind);
            let name = str_of(part, "name");
            if name.is_empty() {
                field::required(errs, part_path.child("name"), "");
            }
            for (j, item) in list(part, "items").iter().enumerate() {
                key_to_path(errs, &part_path.child("items").index(j), item);
                once(errs, str_of(item, "path"), name);
            }
        }
        if let Some(part) = opt(source, "downwardAPI") {
            count += 1;
            for item in list(part, "items") {
                downward_file(errs, &src.child("downwardAPI"), item);
                once(errs, str_of(item, "path"), str_of(item, "path"));
            }
        }
        if let Some(token) = opt(source, "serviceAccountToken") {
            count += 1;
            let expiration = src.child("serviceAccountToken").child("expirationSeconds");
            let seconds = opt_int(token, "expirationSeconds").unwrap_or(0);
            if seconds < 600 {
                field::invalid(errs, &expiration, seconds, "may not specify a duration less than 10 minutes");
            }
            if seconds > 1 << 32 {
                field::invalid(errs, &expiration, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            match str_of(token, "path") {
                "" => field::required(errs, p.child("path"), ""),
                path => local_path(errs, &p.child("path"), path),
            }
        }
        if let Some(bundle) = opt(source, "clusterTrustBundle") {
            count += 1;
            trust_bundle(errs, &src.child("clusterTrustBundle"), bundle);
            once(errs, str_of(bundle, "path"), str_of(bundle, "path"));
        }
        if let Some(cert) = opt(source, "podCertificate") {
            count += 1;
            for key in ["keyPath", "certificateChainPath", "credentialBundlePath"] {
                once(errs, str_of(cert, key), str_of(cert, key));
            }
        }
        if count > 1 {
            field::forbidden(errs, src, "may not specify more than 1 volume type per source");
        }
    }
}

fn trust_bundle(errs: &mut ErrorList, p: &Path, bundle: &Value) {
    match (opt(bundle, "name"), opt(bundle, "signerName")) {
        (Some(_), Some(_)) => field::invalid(errs, p, bundle.clone(), "only one of name and signerName may be used"),
        (Some(name), None) if name == "" => field::required(errs, p.child("name"), "must be a valid object name"),
        (Some(_), None) => {
            if let Some(selector) = opt(bundle, "labelSelector") {
                let detail = "labelSelector must be unset if name is specified";
                field::invalid(errs, p.child("labelSelector"), selector.clone(), detail);
            }
        }
        (None, Some(signer)) => {
            if signer == "" {
                field::required(errs, p.child("signerName"), "must be a valid signer name");
            }
            meta::label_selector(errs, &p.child("labelSelector"), opt(bundle, "labelSelector"));
        }
        (None, None) => field::required(errs, p, "either name or signerName must be specified"),
    }
    match str_of(bundle, "path") {
        "" => field::required(errs, p.child("path"), ""),
        path => local_path(errs, &p.child("path"), path),
    }
}

/// A relative path below the volume that does not begin with `..`.
fn local_path(errs: &mut ErrorList, p: &Path, path: &str) {
    descending(errs, p, path);
    if path.starts_with("..") && !path.starts_with("../") {
        field::invalid(errs, p, path, "must not start with '..'");
    }
}

/// A relative path without `..`.
pub fn descending(errs: &mut ErrorList, p: &Path, path: &str) {
    if path.starts_with('/') {
        field::invalid(errs, p, path, "must be a relative path");
    }
    no_backsteps(errs, p, path);
}

pub fn no_backsteps(errs: &mut ErrorList, p: &Path, path: &str) {
    if path.split('/').any(|part| part == "..") {
        field::invalid(errs, p, path, "must not contain '..'");
    }
}
