//! Which files a volume consists of: a pure function of its spec and sources.

use std::collections::BTreeMap;

use crate::spec::*;

/// Most bytes of files in one volume.
const MAX_BYTES: usize = 16 << 20;

/// Why a volume cannot be made, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VolumeError(pub String);

/// Where the content of files comes from.
pub trait Sources {
    fn config_map(&self, name: &str) -> Option<Payload>;
    fn secret(&self, name: &str) -> Option<Payload>;
    fn field(&self, path: &str) -> Result<String, VolumeError>;
    fn resource(&self, of: &ResourceFieldRef) -> Result<String, VolumeError>;
    fn token(&self, of: &TokenProjection) -> Result<Vec<u8>, VolumeError>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
}

/// Files by path below the volume.
pub type Files = BTreeMap<String, File>;

const DEFAULT_MODE: u32 = 0o644;

/// The files of a volume that consists of files; `None` for a folder
/// (emptyDir, hostPath).
pub fn files(volume: &Volume, sources: &dyn Sources) -> Result<Option<Files>, VolumeError> {
    let mut out = Files::new();
    if let Some(v) = &volume.config_map {
        object(v, "configmap", v.default_mode, sources, &mut out)?;
    } else if let Some(v) = &volume.secret {
        object(v, "secret", v.default_mode, sources, &mut out)?;
    } else if let Some(v) = &volume.downward_api {
        downward(v, v.default_mode, sources, &mut out)?;
    } else if let Some(v) = &volume.projected {
        for s in &v.sources {
            if let Some(o) = &s.config_map {
                object(o, "configmap", v.default_mode, sources, &mut out)?;
            }
            if let Some(o) = &s.secret {
                object(o, "secret", v.default_mode, sources, &mut out)?;
            }
            if let Some(d) = &s.downward_api {
                downward(d, v.default_mode, sources, &mut out)?;
            }
            if let Some(t) = &s.service_account_token {
                let data = sources.token(t)?;
                // Only root and the pod's group read a token, unless the pod runs as somebody.
                put(&mut out, &t.path, data, v.default_mode.unwrap_or(DEFAULT_MODE))?;
            }
        }
    } else {
        return Ok(None);
    }
    if out.values().map(|f| f.data.len()).sum::<usize>() > MAX_BYTES {
        return Err(VolumeError(format!("the volume's files are larger than {MAX_BYTES} bytes")));
    }
    Ok(Some(out))
}

fn put(out: &mut Files, path: &str, data: Vec<u8>, mode: u32) -> Result<(), VolumeError> {
    let parts = path.split('/');
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.starts_with("..")
        || parts.clone().any(|p| p == ".." || p.is_empty());
    if bad || path.len() > 4096 {
        return Err(VolumeError(format!("invalid path: must be relative path: {path}")));
    }
    out.insert(path.to_owned(), File { data, mode: mode & 0o777 });
    Ok(())
}

fn object(
    v: &ObjectVolume,
    kind: &str,
    default_mode: Option<u32>,
    sources: &dyn Sources,
    out: &mut Files,
) -> Result<(), VolumeError> {
    let optional = v.optional == Some(true);
    let found = if kind == "secret" { sources.secret(&v.name) } else { sources.config_map(&v.name) };
    let Some(payload) = found else {
        return if optional { Ok(()) } else { Err(VolumeError(format!("{kind} \"{}\" not found", v.name))) };
    };
    let mode = default_mode.unwrap_or(DEFAULT_MODE);
    if v.items.is_empty() {
        for (key, data) in payload.data {
            put(out, &key, data, mode)?;
        }
        return Ok(());
    }
    for item in &v.items {
        match payload.data.get(&item.key) {
            Some(data) => put(out, &item.path, data.clone(), item.mode.unwrap_or(mode))?,
            None if optional => {}
            None => {
                let what = if kind == "secret" { "secret" } else { "config" };
                return Err(VolumeError(format!("references non-existent {what} key: {}", item.key)));
            }
        }
    }
    Ok(())
}

fn downward(
    v: &DownwardApi,
    default_mode: Option<u32>,
    sources: &dyn Sources,
    out: &mut Files,
) -> Result<(), VolumeError> {
    for item in &v.items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => sources.field(&field.field_path)?,
            (None, Some(resource)) => sources.resource(resource)?,
            (None, None) => String::new(),
        };
        put(out, &item.path, text.into_bytes(), item.mode.or(default_mode).unwrap_or(DEFAULT_MODE))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Sources for Fixed {
        fn config_map(&self, name: &str) -> Option<Payload> {
            let object = serde_json::json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}});
            (name == "cm").then(|| Payload::config_map(&object))
        }
        fn secret(&self, name: &str) -> Option<Payload> {
            (name == "s").then(|| Payload::secret(&serde_json::json!({"data": {"k": "aHVudGVyMg=="}})))
        }
        fn field(&self, path: &str) -> Result<String, VolumeError> {
            Ok(format!("<{path}>"))
        }
        fn resource(&self, of: &ResourceFieldRef) -> Result<String, VolumeError> {
            Ok(of.resource.clone())
        }
        fn token(&self, of: &TokenProjection) -> Result<Vec<u8>, VolumeError> {
            Ok(format!("token for {}", of.audience).into_bytes())
        }
    }

    fn of(volume: serde_json::Value) -> Result<Option<Files>, VolumeError> {
        files(&serde_json::from_value(volume).expect("a volume"), &Fixed)
    }

    #[test]
    fn keys_become_files_with_their_modes() {
        let f = of(serde_json::json!({"configMap": {"name": "cm", "defaultMode": 420, "items": [{"key": "a", "path": "x/y", "mode": 256}, {"key": "c", "path": "bin"}]}}))
            .expect("made").expect("files");
        assert_eq!(f["x/y"], File { data: b"1".to_vec(), mode: 0o400 });
        assert_eq!(f["bin"], File { data: vec![0, 1], mode: 0o644 });
        let s = of(serde_json::json!({"secret": {"secretName": "s"}})).expect("made").expect("files");
        assert_eq!(s["k"].data, b"hunter2");
    }

    #[test]
    fn projected_sources_share_a_folder() {
        let f = of(serde_json::json!({"projected": {"defaultMode": 288, "sources": [
            {"serviceAccountToken": {"path": "token", "audience": "x"}},
            {"configMap": {"name": "cm", "items": [{"key": "a", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}))
        .expect("made")
        .expect("files");
        assert_eq!(f["token"], File { data: b"token for x".to_vec(), mode: 0o440 });
        assert_eq!((f["ca.crt"].data.as_slice(), f["ns"].data.as_slice()), (&b"1"[..], &b"<metadata.namespace>"[..]));
    }

    #[test]
    fn what_is_missing_is_said_unless_optional() {
        let text = |v| of(v).expect_err("missing").0;
        assert_eq!(text(serde_json::json!({"configMap": {"name": "no"}})), "configmap \"no\" not found");
        assert_eq!(text(serde_json::json!({"secret": {"secretName": "no"}})), "secret \"no\" not found");
        let key = serde_json::json!({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}});
        assert_eq!(text(key), "references non-existent config key: z");
        assert_eq!(
            of(serde_json::json!({"configMap": {"name": "no", "optional": true}}))
                .expect("empty")
                .expect("files")
                .len(),
            0
        );
    }

    #[test]
    fn no_file_lands_outside_of_its_volume() {
        for path in ["../x", "/x", "a/../b", ""] {
            let v = serde_json::json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": path}]}});
            assert!(of(v).is_err(), "{path}");
        }
    }
}
