//! The volumes of a pod as its spec names them: the part that a node acts on.
//!
//! Owns the shapes only. Field names are Kubernetes' own; a field that the
//! node has no use for is skipped when the object is decoded, so that a pod in
//! the agent's memory is small.

use serde::Deserialize;

/// A named volume. Exactly one source is set in a valid pod; a pod with none
/// has an emptyDir.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    pub name: String,
    pub empty_dir: Option<EmptyDir>,
    pub config_map: Option<ObjectVolume>,
    pub secret: Option<ObjectVolume>,
    pub projected: Option<Projected>,
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<DownwardApi>,
    pub host_path: Option<HostPath>,
    /// Whatever other source is named; the agent refuses it by name.
    #[serde(flatten)]
    pub other: std::collections::BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct EmptyDir {
    pub medium: String,
    pub size_limit: Option<String>,
}

/// A ConfigMap or a Secret as a volume (`name` or `secretName`).
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectVolume {
    #[serde(alias = "secretName")]
    pub name: String,
    pub items: Vec<KeyToPath>,
    pub default_mode: Option<u32>,
    pub optional: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct KeyToPath {
    pub key: String,
    pub path: String,
    pub mode: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Projected {
    pub sources: Vec<Projection>,
    pub default_mode: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Projection {
    pub config_map: Option<ObjectVolume>,
    pub secret: Option<ObjectVolume>,
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<DownwardApi>,
    pub service_account_token: Option<TokenProjection>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct TokenProjection {
    pub audience: String,
    pub expiration_seconds: Option<i64>,
    pub path: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DownwardApi {
    pub items: Vec<DownwardFile>,
    pub default_mode: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DownwardFile {
    pub path: String,
    pub field_ref: Option<FieldRef>,
    pub resource_field_ref: Option<ResourceFieldRef>,
    pub mode: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct FieldRef {
    pub field_path: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceFieldRef {
    pub container_name: String,
    pub resource: String,
    pub divisor: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct HostPath {
    pub path: String,
    #[serde(rename = "type")]
    pub kind: String,
}

/// What a ConfigMap or a Secret holds, ready to be written to files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Payload {
    pub data: std::collections::BTreeMap<String, Vec<u8>>,
}

impl Payload {
    /// `data` as text and `binaryData` in base64.
    pub fn config_map(object: &serde_json::Value) -> Payload {
        let mut data = std::collections::BTreeMap::new();
        for (key, value) in entries(object, "data") {
            data.insert(key.clone(), value.as_str().unwrap_or_default().as_bytes().to_vec());
        }
        for (key, value) in entries(object, "binaryData") {
            data.insert(key.clone(), decode(value));
        }
        Payload { data }
    }

    /// `data` in base64.
    pub fn secret(object: &serde_json::Value) -> Payload {
        Payload { data: entries(object, "data").map(|(k, v)| (k.clone(), decode(v))).collect() }
    }
}

fn entries<'a>(
    object: &'a serde_json::Value,
    field: &str,
) -> impl Iterator<Item = (&'a String, &'a serde_json::Value)> + use<'a> {
    object.get(field).and_then(|v| v.as_object()).into_iter().flatten()
}

fn decode(value: &serde_json::Value) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default()
}
