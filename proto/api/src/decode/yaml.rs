//! YAML: turned into JSON values first, as upstream does, then walked as JSON.

use serde::Deserialize as _;
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error, Options};

use super::{DecodeError, Decoded, Limits, Strictness};
use crate::schema::Type;

/// At most so many repeated keys are named.
const MAX_REPEATED: usize = 32;
/// Longer texts name the first one only.
const MAX_REREAD: usize = 256 * 1024;

pub(super) fn bytes(
    ty: Option<&'static Type>,
    bytes: &[u8],
    strict: Strictness,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    // The first reading is strict: it says where a key is given twice.
    let (v, repeated) = match read(bytes, DuplicateKeyPolicy::Error, limits) {
        Ok(v) => (v, None),
        Err(e) if matches!(e.without_snippet(), Error::DuplicateMappingKey { .. }) => {
            let v = read(bytes, DuplicateKeyPolicy::LastWins, limits).map_err(|e| syntax(&e))?;
            let all = if strict == Strictness::Ignore { Vec::new() } else { repeated(bytes, e, limits) };
            (v, Some(format!("yaml: unmarshal errors:\n  {}", all.join("\n  "))))
        }
        Err(e) => return Err(syntax(&e)),
    };
    let mut decoded = super::json::value(ty, v, strict, limits)?;
    if let (Some(text), true) = (repeated, strict != Strictness::Ignore) {
        decoded.strict_errors.insert(0, text);
    }
    Ok(decoded)
}

/// Every key that is given twice, in the order of the text. The parser stops at
/// the first, so the text is read again with that one renamed, and so on.
fn repeated(bytes: &[u8], first: Error, limits: &Limits) -> Vec<String> {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    let (mut out, mut next) = (Vec::new(), Some(first));
    while let Some(e) = next.take() {
        let Error::DuplicateMappingKey { key, location } = e.without_snippet() else { break };
        let quoted = crate::text::quote(key.as_deref().unwrap_or(""));
        out.push(format!("line {}: key {quoted} already set in map", location.line()));
        if out.len() == MAX_REPEATED || text.len() > MAX_REREAD {
            break;
        }
        let Some(renamed) = rename(&text, location.line(), location.column(), out.len()) else { break };
        text = renamed;
        next = read(text.as_bytes(), DuplicateKeyPolicy::Error, limits).err();
    }
    out
}

/// The text with the key at a place (counted from 1, in characters) made unique.
fn rename(text: &str, line: u64, column: u64, n: usize) -> Option<String> {
    let line = usize::try_from(line).ok()?.checked_sub(1)?;
    let column = usize::try_from(column).ok()?.checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let at = start + text.get(start..)?.char_indices().nth(column)?.0;
    // Inside the quotes, if it has some.
    let at = if matches!(text.as_bytes().get(at), Some(b'"' | b'\'')) { at + 1 } else { at };
    Some(format!("{}repeated-{n}-{}", text.get(..at)?, text.get(at..)?))
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
