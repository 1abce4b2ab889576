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
    let decoded = decoded.map_err(|e| match sniff(media, bytes, &kind, expected) {
        Ok((sent_kind, sent_version)) => cannot(&sent_kind, &sent_version, expected.kind, &e.to_string()),
        Err(why) => unrecognized(expected, &why.unwrap_or_else(|| e.to_string()), bytes),
    })?;
    let strict = decoded.strict_message();
    let mut value = decoded.value;
    if value.is_null() {
        value = Value::Object(serde_json::Map::new());
    }
    if !value.is_object() {
        return Err(unrecognized(expected, "it is not an object", bytes));
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
    if !kind.is_empty() && kind != expected.kind {
        let sent = match api_version.rsplit('/').next().unwrap_or_default() {
            "" => expected.version,
            version => version,
        };
        // Go's package of the internal type: the group's first word.
        let group = match expected.group.split('.').next() {
            None | Some("") => "core",
            Some(group) => group,
        };
        let why = format!("converting ({sent}.{kind}) to ({group}.{}): unknown conversion", expected.kind);
        return Err(cannot(&kind, sent, expected.kind, &why));
    }
    if !any && !api_version.is_empty() && api_version != want {
        return Err(err::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({want})"
        )));
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

/// What upstream's reader of kind and version says before anything else is read.
const NO_TYPE: &str = "couldn't get version/kind; json parse error: ";

fn unrecognized(expected: &Expected<'_>, why: &str, bytes: &[u8]) -> Status {
    err::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({})",
        expected.kind,
        summary(bytes)
    ))
}

/// The kind and version that a body which does not decode says it is, or those
/// of the endpoint when it says nothing. `Err`: it cannot be read so far, with
/// a reason of its own where there is one.
fn sniff(
    media: MediaType,
    bytes: &[u8],
    kind: &str,
    expected: &Expected<'_>,
) -> Result<(String, String), Option<String>> {
    if !kind.is_empty() {
        return Ok((kind.to_owned(), expected.version.to_owned()));
    }
    let (kind, api_version) = match media {
        MediaType::Json => {
            let meta = decode::type_meta(bytes, &limits()).map_err(|e| Some(format!("{NO_TYPE}{e}")))?;
            (meta.kind, meta.api_version)
        }
        MediaType::Yaml => {
            let value = decode::yaml_untyped(bytes, Strictness::Ignore, &limits()).map_err(|_| None)?.value;
            (meta::kind(&value).to_owned(), meta::api_version(&value).to_owned())
        }
        MediaType::Protobuf => return Err(None),
    };
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let or = |sent: &str, own: &str| if sent.is_empty() { own.to_owned() } else { sent.to_owned() };
    Ok((or(&kind, expected.kind), or(version, expected.version)))
}

/// The beginning of a body, as upstream shows it: JSON plain, the rest in hex.
fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let (head, more) = (&bytes[..bytes.len().min(SHOWN)], if bytes.len() > SHOWN { " ..." } else { "" });
    match bytes.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => format!("{}{more}", head.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    }
}
