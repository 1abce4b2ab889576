//! Request bodies to values: media types, the expected kind, and strictness.

use bytes::Bytes;
use serde_json::Value;
use triarch_api::decode::{self, Limits, Strictness};
use triarch_api::meta;
use triarch_api::status::Status;

use crate::{FieldValidation, RequestContext, encode, err};

/// Media types of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    Json,
    Yaml,
    Protobuf,
}

impl MediaType {
    /// What bodies may be, as the 415 lists it.
    pub const ACCEPTED: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

    /// By media type without parameters; an empty one is JSON.
    pub fn of(content_type: &str) -> Option<MediaType> {
        match content_type {
            "" | "application/json" => Some(MediaType::Json),
            "application/yaml" => Some(MediaType::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(MediaType::Protobuf),
            _ => None,
        }
    }
}

/// What a body must be.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub schema: &'a str,
    pub group: &'a str,
    /// Empty: any apiVersion will do (DeleteOptions).
    pub version: &'a str,
    pub kind: &'a str,
}

fn limits() -> Limits {
    Limits::default()
}

pub(crate) fn strictness(validation: FieldValidation) -> Strictness {
    match validation {
        FieldValidation::Ignore => Strictness::Ignore,
        FieldValidation::Warn => Strictness::Warn,
        FieldValidation::Strict => Strictness::Strict,
    }
}

/// Decodes a body into the expected kind. 400 with upstream's words for what
/// cannot be decoded, is of another kind, or (when strict) has unknown or
/// duplicate fields; with `Warn` those become warnings.
pub fn body(
    ctx: &RequestContext,
    expected: &Expected<'_>,
    media: MediaType,
    bytes: &Bytes,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let ty = encode::schema_of(expected.schema)?;
    let strictness = strictness(validation);
    let (mut api_version, mut kind) = (String::new(), String::new());
    let decoded = match media {
        MediaType::Json => decode::json(ty, bytes, strictness, &limits()),
        MediaType::Yaml => decode::yaml(ty, bytes, strictness, &limits()),
        MediaType::Protobuf => decode::envelope(bytes).and_then(|(meta, raw)| {
            (api_version, kind) = (meta.api_version, meta.kind);
            decode::protobuf(ty, &raw, &limits())
        }),
    };
    let decoded = decoded.map_err(|e| match sniff(media, bytes, &kind) {
        Some((sent_kind, sent_version)) => cannot(&sent_kind, &sent_version, expected.kind, &e.to_string()),
        None => err::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {e} ({})",
            expected.kind,
            summary(bytes)
        )),
    })?;
    let strict = decoded.strict_message();
    let mut value = decoded.value;
    if !value.is_object() {
        return Err(err::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: cannot unmarshal into an object ({})",
            expected.kind,
            summary(bytes)
        )));
    }
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if api_version.is_empty() {
        api_version = field("apiVersion");
    }
    if kind.is_empty() {
        kind = field("kind");
    }
    let want = if expected.group.is_empty() {
        expected.version.to_owned()
    } else {
        format!("{}/{}", expected.group, expected.version)
    };
    let any = expected.version.is_empty();
    if !any && !api_version.is_empty() && api_version != want {
        return Err(err::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({want})"
        )));
    }
    if !kind.is_empty() && kind != expected.kind {
        let group = if expected.group.is_empty() { "core" } else { expected.group };
        let why =
            format!("converting ({}.{kind}) to ({group}.{}): unknown conversion", expected.version, expected.kind);
        return Err(cannot(&kind, expected.version, expected.kind, &why));
    }
    match validation {
        FieldValidation::Strict => {
            if let Some(message) = strict {
                return Err(cannot(expected.kind, expected.version, expected.kind, &message));
            }
        }
        FieldValidation::Warn => decoded.strict_errors.into_iter().for_each(|w| ctx.warn(w)),
        FieldValidation::Ignore => {}
    }
    let map = value.as_object_mut().expect("checked above");
    map.insert("kind".into(), expected.kind.into());
    if !any {
        map.insert("apiVersion".into(), want.into());
    }
    Ok(value)
}

fn cannot(sent: &str, version: &str, wanted: &str, why: &str) -> Status {
    err::bad_request(format!("{sent} in version \"{version}\" cannot be handled as a {wanted}: {why}"))
}

/// The kind and version that a body which does not decode says it is.
fn sniff(media: MediaType, bytes: &[u8], kind: &str) -> Option<(String, String)> {
    if !kind.is_empty() {
        return Some((kind.to_owned(), "v1".to_owned()));
    }
    let (kind, api_version) = match media {
        MediaType::Json => {
            let meta = decode::type_meta(bytes, &limits()).ok()?;
            (meta.kind, meta.api_version)
        }
        MediaType::Yaml => {
            let value = decode::yaml_untyped(bytes, Strictness::Ignore, &limits()).ok()?.value;
            (meta::kind(&value).to_owned(), meta::api_version(&value).to_owned())
        }
        MediaType::Protobuf => return None,
    };
    let version = api_version.rsplit('/').next().unwrap_or_default().to_owned();
    (!kind.is_empty()).then_some((kind, version))
}

/// The first bytes of a body, as upstream shows them.
fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    if bytes.is_empty() {
        return "<empty>".into();
    }
    let hex: String = bytes.iter().take(SHOWN).map(|b| format!("{b:02x}")).collect();
    if bytes.len() > SHOWN { format!("{hex} ...") } else { hex }
}
