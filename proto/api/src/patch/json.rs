//! JSON patch (RFC 6902), with the liberties that upstream's library takes:
//! negative indexes are refused, `-` appends, removing what is not there fails.

use serde_json::Value;

use super::{Limits, PatchError};

pub(super) fn apply(doc: &Value, patch: &Value, limits: &Limits) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        let what = match patch {
            Value::Object(_) => "object",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            _ => return Ok(doc.clone()),
        };
        return Err(PatchError::Bad(format!("json: cannot unmarshal {what} into Go value of type jsonpatch.Patch")));
    };
    if operations.len() > limits.max_operations {
        return Err(PatchError::TooManyOperations { max: limits.max_operations, got: operations.len() });
    }
    let mut out = doc.clone();
    // Only `copy` can make more than the patch holds.
    let mut copied = 0usize;
    for op in operations {
        one(&mut out, op, &mut copied, limits)?;
    }
    Ok(out)
}

fn one(doc: &mut Value, op: &Value, copied: &mut usize, limits: &Limits) -> Result<(), PatchError> {
    let text = |key: &str| op.get(key).and_then(Value::as_str);
    let kind = text("op").unwrap_or("unknown");
    let path = text("path").ok_or_else(|| no(format!("{kind} operation failed to decode path: missing value")))?;
    let value = || match op.get("value") {
        Some(v) => Ok(v.clone()),
        None if kind == "test" => Ok(Value::Null),
        None => Err(no(format!("{kind} operation failed to decode value: missing value"))),
    };
    let from = || text("from").ok_or_else(|| no(format!("{kind} operation failed to decode from: missing value")));
    match kind {
        "add" => add(doc, path, value()?),
        "remove" => remove(doc, path).map(|_| ()),
        "replace" => {
            let value = value()?;
            if path.is_empty() {
                *doc = value;
                return Ok(());
            }
            let target = find_mut(doc, path).ok_or_else(|| {
                no(format!("replace operation does not apply: doc is missing key: {path}: missing value"))
            })?;
            *target = value;
            Ok(())
        }
        "move" => {
            let from = from()?;
            if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
                return Err(no(format!("move operation does not apply: {path} is inside {from}")));
            }
            let v = remove(doc, from)?;
            add(doc, path, v)
        }
        "copy" => {
            let from = from()?;
            let v = find(doc, from).cloned().ok_or_else(|| {
                no(format!("copy operation does not apply: doc is missing from path: {from}: missing value"))
            })?;
            *copied = copied.saturating_add(size(&v));
            if *copied > limits.decode.max_bytes {
                return Err(PatchError::DoesNotApply(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {}",
                    limits.decode.max_bytes
                )));
            }
            add(doc, path, v)
        }
        "test" => {
            let want = value()?;
            match find(doc, path) {
                Some(have) if equal(have, &want) => Ok(()),
                None if want.is_null() => Ok(()),
                _ => Err(no(format!("testing value {path} failed: test failed"))),
            }
        }
        other => Err(no(format!("Unexpected kind: {other}"))),
    }
}

fn no(text: String) -> PatchError {
    PatchError::DoesNotApply(text)
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// An index below `len`.
fn index(token: &str, len: usize) -> Option<usize> {
    let plain =
        token == "0" || (!token.starts_with('0') && !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit()));
    token.parse().ok().filter(|i| plain && *i < len)
}

fn find<'a>(doc: &'a Value, path: &str) -> Option<&'a Value> {
    tokens(path)?.try_fold(doc, |v, t| match v {
        Value::Object(m) => m.get(&unescape(t)),
        Value::Array(a) => index(t, a.len()).map(|i| &a[i]),
        _ => None,
    })
}

fn find_mut<'a>(doc: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    tokens(path)?.try_fold(doc, |v, t| match v {
        Value::Object(m) => m.get_mut(&unescape(t)),
        Value::Array(a) => index(t, a.len()).map(|i| &mut a[i]),
        _ => None,
    })
}

fn tokens(path: &str) -> Option<std::iter::Skip<std::str::Split<'_, char>>> {
    (path.is_empty() || path.starts_with('/')).then(|| path.split('/').skip(1))
}

fn parent<'a, 'p>(doc: &'a mut Value, path: &'p str, op: &str) -> Result<(&'a mut Value, &'p str), PatchError> {
    let missing = || no(format!("{op} operation does not apply: doc is missing path: \"{path}\": missing value"));
    let (head, last) = path.rsplit_once('/').ok_or_else(missing)?;
    Ok((find_mut(doc, head).ok_or_else(missing)?, last))
}

fn add(doc: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *doc = value;
        return Ok(());
    }
    let (parent, last) = parent(doc, path, "add")?;
    match parent {
        Value::Object(m) => {
            m.insert(unescape(last), value);
        }
        Value::Array(a) if last == "-" => a.push(value),
        Value::Array(a) => {
            let i = index(last, a.len() + 1).ok_or_else(|| {
                no(format!(
                    "error in add for path: '{path}': Unable to access invalid index: {last}: invalid index referenced"
                ))
            })?;
            a.insert(i, value);
        }
        _ => return Err(no(format!("add operation does not apply: doc is missing path: \"{path}\": missing value"))),
    }
    Ok(())
}

fn remove(doc: &mut Value, path: &str) -> Result<Value, PatchError> {
    let (parent, last) = parent(doc, path, "remove")?;
    let gone = match parent {
        Value::Object(m) => m.remove(&unescape(last)),
        Value::Array(a) => index(last, a.len()).map(|i| a.remove(i)),
        _ => None,
    };
    gone.ok_or_else(|| {
        no(format!("error in remove for path: '{path}': Unable to remove nonexistent key: {last}: missing value"))
    })
}

/// Equal as JSON: 1 and 1.0 are the same number.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| equal(v, w)))
        }
        _ => a == b,
    }
}

/// A rough size in bytes.
fn size(v: &Value) -> usize {
    match v {
        Value::String(s) => s.len() + 2,
        Value::Array(a) => a.iter().map(|v| size(v) + 1).sum::<usize>() + 2,
        Value::Object(m) => m.iter().map(|(k, v)| k.len() + 4 + size(v)).sum::<usize>() + 2,
        _ => 8,
    }
}
