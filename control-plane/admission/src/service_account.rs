//! ServiceAccount: every pod runs as a service account of its namespace that
//! exists, and finds that account's token, the cluster's CA and its namespace
//! mounted.

use serde_json::{Value, json};
use triarch_api::status::Status;
use triarch_kinds::stored;
use triarch_kinds::value::{child, each_mut, get, is_set, list, metadata_map, set, str_of};
use triarch_registry::{Attributes, Operation};

use crate::{Plugin, forbidden, is};

const MIRROR: &str = "kubernetes.io/config.mirror";
const VOLUME: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and a little, so that agents that count in hours renew it in time.
const TOKEN_SECONDS: i64 = 3607;
/// Letters of generated names: no vowels and nothing that reads as another.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

pub struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn admit(&self, attrs: &mut Attributes<'_>) -> Result<(), Status> {
        if !is(attrs, "", "pods") || attrs.operation != Operation::Create {
            return Ok(());
        }
        let Some(pod) = attrs.object() else { return Ok(()) };
        if metadata_map(pod, "annotations", MIRROR).is_some() {
            return mirror(attrs, pod);
        }
        let name = match str_of(get(pod, "spec"), "serviceAccountName") {
            "" => "default".to_owned(),
            name => name.to_owned(),
        };
        let Some(account) = stored::get(attrs.store, "serviceaccounts", attrs.namespace, &name) else {
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                attrs.namespace
            );
            return Err(forbidden(attrs, why));
        };
        let suffix = suffix(attrs.env.random_u64());
        let Some(pod) = attrs.object_mut() else { return Ok(()) };
        let spec = child(pod, "spec");
        for key in ["serviceAccountName", "serviceAccount"] {
            set(spec, key, name.as_str());
        }
        if automount(spec, &account) {
            mount_token(spec, &suffix);
        }
        if list(spec, "imagePullSecrets").is_empty() && !list(&account, "imagePullSecrets").is_empty() {
            set(spec, "imagePullSecrets", get(&account, "imagePullSecrets").clone());
        }
        Ok(())
    }
}

/// A mirror pod shows what a node runs by itself and may refer to nothing.
fn mirror(attrs: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    let spec = get(pod, "spec");
    if !str_of(spec, "serviceAccountName").is_empty() {
        return Err(forbidden(attrs, "a mirror pod may not reference service accounts"));
    }
    for volume in list(spec, "volumes") {
        if is_set(volume, "secret") {
            return Err(forbidden(attrs, "a mirror pod may not reference secrets"));
        }
        if list(get(volume, "projected"), "sources").iter().any(|s| is_set(s, "serviceAccountToken")) {
            return Err(forbidden(attrs, "a mirror pod may not use ServiceAccountToken volume projections"));
        }
    }
    Ok(())
}

/// The pod's word, else the account's, else yes.
fn automount(spec: &Value, account: &Value) -> bool {
    let key = "automountServiceAccountToken";
    get(spec, key).as_bool().or_else(|| get(account, key).as_bool()).unwrap_or(true)
}

fn mount_token(spec: &mut Value, suffix: &str) {
    let existing = list(spec, "volumes")
        .iter()
        .find(|v| str_of(v, "name").starts_with(VOLUME) && is_set(v, "projected"))
        .map(|v| str_of(v, "name").to_owned());
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME}{suffix}"));
    let mut needed = false;
    for kind in ["initContainers", "containers"] {
        for c in each_mut(spec, kind) {
            let mut mounts = list(c, "volumeMounts").to_vec();
            if mounts.iter().any(|m| str_of(m, "mountPath") == MOUNT_PATH) {
                continue;
            }
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            set(c, "volumeMounts", mounts);
            needed = true;
        }
    }
    if existing.is_none() && needed {
        let mut volumes = list(spec, "volumes").to_vec();
        volumes.push(json!({"name": name, "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
        }}));
        set(spec, "volumes", volumes);
    }
}

/// Five letters from random bits.
fn suffix(mut bits: u64) -> String {
    (0..5)
        .map(|_| {
            let n = ALPHABET.len() as u64;
            let letter = ALPHABET[usize::try_from(bits % n).unwrap_or(0)];
            bits /= n;
            char::from(letter)
        })
        .collect()
}
