//! YAML: turned into JSON values first, as upstream does, then walked as JSON.

use serde::Deserialize as _;
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error, Options};

use super::{DecodeError, Decoded, Limits, Strictness};
use crate::schema::Type;

pub(super) fn bytes(
    ty: Option<&'static Type>,
    bytes: &[u8],
    strict: Strictness,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    // The first reading is strict: it says where a key is given twice.
    let (v, repeated) = match read(bytes, DuplicateKeyPolicy::Error, limits) {
        Ok(v) => (v, None),
        Err(e) => match e.without_snippet() {
            Error::DuplicateMappingKey { key, location } => {
                let key = crate::text::quote(key.as_deref().unwrap_or(""));
                let text = format!("yaml: unmarshal errors:\n  line {}: key {key} already set in map", location.line());
                (read(bytes, DuplicateKeyPolicy::LastWins, limits).map_err(|e| syntax(&e))?, Some(text))
            }
            other => return Err(syntax(other)),
        },
    };
    let mut decoded = super::json::value(ty, v, strict, limits)?;
    if let (Some(text), true) = (repeated, strict != Strictness::Ignore) {
        decoded.strict_errors.insert(0, text);
    }
    Ok(decoded)
}

fn read(bytes: &[u8], duplicates: DuplicateKeyPolicy, limits: &Limits) -> Result<Value, Error> {
    let max_depth = limits.max_depth.min(crate::canon::MAX_DEPTH);
    let options: Options = serde_saphyr::options! {
        duplicate_keys: duplicates,
        with_snippet: false,
        emit_comments: false,
        legacy_octal_numbers: true,
        budget: serde_saphyr::budget! { max_depth: max_depth, max_documents: 1 },
    };
    serde_saphyr::with_deserializer_from_slice_with_options(bytes, options, |d| Value::deserialize(d))
}

fn syntax(e: &Error) -> DecodeError {
    let text = e.without_snippet().to_string();
    match e.location() {
        Some(at) if at.line() > 0 => DecodeError::Syntax(format!("yaml: line {}: {text}", at.line())),
        _ => DecodeError::Syntax(format!("yaml: {text}")),
    }
}
