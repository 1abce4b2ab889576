//! Defaults of a pod spec: those that every template gets, and those that only
//! pods themselves get.

use serde_json::{Value, json};
use triarch_api::quantity::Quantity;

use super::image;
use crate::value::{
    child, child_if_set, default, default_int, default_str, each_mut, flag, get, int_of, is_set, object, set, str_of,
};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
/// The volume sources that a volume may have; none of them means emptyDir.
pub(super) const VOLUME_SOURCES: [&str; 30] = [
    "hostPath",
    "emptyDir",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "azureFile",
    "configMap",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "projected",
    "portworxVolume",
    "scaleIO",
    "storageos",
    "csi",
    "ephemeral",
    "image",
];

/// What a pod spec gets wherever it stands.
pub fn template(spec: &mut Value) {
    object(spec);
    default_str(spec, "dnsPolicy", "ClusterFirst");
    default_str(spec, "restartPolicy", "Always");
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", 30);
    default_str(spec, "schedulerName", "default-scheduler");
    // The deprecated alias always mirrors the name.
    let account = match str_of(spec, "serviceAccountName") {
        "" => str_of(spec, "serviceAccount").to_owned(),
        name => name.to_owned(),
    };
    if !account.is_empty() {
        set(spec, "serviceAccountName", account.as_str());
        set(spec, "serviceAccount", account);
    }
    each_mut(spec, "volumes").for_each(volume);
    for kind in CONTAINERS {
        each_mut(spec, kind).for_each(container);
    }
    if is_set(spec, "overhead") {
        round_resources(child(spec, "overhead"));
    }
    if let Some(resources) = child_if_set(spec, "resources") {
        round_requirements(resources);
    }
}

/// What only a pod gets, on top of [`template`].
pub fn pod(spec: &mut Value) {
    for kind in ["containers", "initContainers"] {
        for c in each_mut(spec, kind) {
            requests_from_limits(c);
        }
    }
    super::resources::default_pod_level(spec);
    default(spec, "enableServiceLinks", true);
    if flag(spec, "hostNetwork") {
        for kind in ["containers", "initContainers"] {
            for c in each_mut(spec, kind) {
                for port in each_mut(c, "ports") {
                    let number = int_of(port, "containerPort");
                    default_int(port, "hostPort", number);
                }
            }
        }
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = get(get(container, "resources"), "limits").as_object().cloned() else { return };
    let requests = object(child(child(container, "resources"), "requests"));
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

fn container(c: &mut Value) {
    let policy = if image::tag(str_of(c, "image")) == "latest" { "Always" } else { "IfNotPresent" };
    default_str(c, "imagePullPolicy", policy);
    default_str(c, "terminationMessagePath", "/dev/termination-log");
    default_str(c, "terminationMessagePolicy", "File");
    for port in each_mut(c, "ports") {
        default_str(port, "protocol", "TCP");
    }
    for env in each_mut(c, "env") {
        if let Some(field) = env.get_mut("valueFrom").and_then(|v| child_if_set(v, "fieldRef")) {
            default_str(field, "apiVersion", "v1");
        }
    }
    if let Some(resources) = child_if_set(c, "resources") {
        round_requirements(resources);
    }
    for name in PROBES {
        if let Some(p) = child_if_set(c, name) {
            probe(p);
        }
    }
    if let Some(lifecycle) = child_if_set(c, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(http) = lifecycle.get_mut(hook).and_then(|h| child_if_set(h, "httpGet")) {
                http_get(http);
            }
        }
    }
}

fn probe(p: &mut Value) {
    default_int(p, "timeoutSeconds", 1);
    default_int(p, "periodSeconds", 10);
    default_int(p, "successThreshold", 1);
    default_int(p, "failureThreshold", 3);
    if let Some(http) = child_if_set(p, "httpGet") {
        http_get(http);
    }
    if let Some(grpc) = child_if_set(p, "grpc") {
        default(grpc, "service", "");
    }
}

fn http_get(http: &mut Value) {
    default_str(http, "path", "/");
    default_str(http, "scheme", "HTTP");
}

fn volume(v: &mut Value) {
    if !VOLUME_SOURCES.iter().any(|source| is_set(v, source)) {
        set(v, "emptyDir", json!({}));
    }
    if let Some(host) = child_if_set(v, "hostPath") {
        default(host, "type", "");
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(s) = child_if_set(v, source) {
            default(s, "defaultMode", 0o644);
        }
    }
    if let Some(down) = child_if_set(v, "downwardAPI") {
        downward_items(down);
    }
    if let Some(projected) = child_if_set(v, "projected") {
        for source in each_mut(projected, "sources") {
            if let Some(token) = child_if_set(source, "serviceAccountToken") {
                default(token, "expirationSeconds", 3600);
            }
            if let Some(down) = child_if_set(source, "downwardAPI") {
                downward_items(down);
            }
        }
    }
    if let Some(iscsi) = child_if_set(v, "iscsi") {
        default_str(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = child_if_set(v, "rbd") {
        default_str(rbd, "pool", "rbd");
        default_str(rbd, "user", "admin");
        default_str(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(img) = child_if_set(v, "image") {
        let policy = if image::tag(str_of(img, "reference")) == "latest" { "Always" } else { "IfNotPresent" };
        default_str(img, "pullPolicy", policy);
    }
    if let Some(spec) =
        v.get_mut("ephemeral").and_then(|e| e.get_mut("volumeClaimTemplate")).and_then(|t| child_if_set(t, "spec"))
    {
        default_str(spec, "volumeMode", "Filesystem");
    }
}

fn downward_items(source: &mut Value) {
    for item in each_mut(source, "items") {
        if let Some(field) = child_if_set(item, "fieldRef") {
            default_str(field, "apiVersion", "v1");
        }
    }
}

fn round_requirements(resources: &mut Value) {
    for which in ["limits", "requests"] {
        if let Some(list) = child_if_set(resources, which) {
            round_resources(list);
        }
    }
}

/// Amounts finer than a thousandth are rounded up to it.
pub(crate) fn round_resources(list: &mut Value) {
    for (_, amount) in object(list).iter_mut() {
        let Some(q) = amount.as_str().and_then(|text| Quantity::parse(text).ok()) else { continue };
        let milli = q.milli_value();
        // A capped value is not a rounded one.
        if milli < i64::MAX && milli > i64::MIN && Quantity::from_milli(milli) != q {
            *amount = Value::String(Quantity::from_milli(milli).to_string());
        }
    }
}
