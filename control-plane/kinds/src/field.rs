//! The vocabulary in which rules state what is wrong with a field.
//!
//! Every function adds one error to the list, in upstream's words for its kind.

use std::fmt::Display;

use serde_json::Value;
pub use triarch_api::status::Path;
use triarch_api::status::{ErrorList, FieldError};

pub fn required(errs: &mut ErrorList, path: impl Display, detail: &str) {
    errs.push(FieldError::required(path, detail));
}

pub fn invalid(errs: &mut ErrorList, path: impl Display, value: impl Into<Value>, detail: impl Into<String>) {
    errs.push(FieldError::invalid(path, value, detail));
}

/// One `Invalid` for each message of a validator.
pub fn invalid_each(errs: &mut ErrorList, path: &Path, value: &str, messages: Vec<String>) {
    errs.invalid_each(path, value, messages);
}

/// One `Invalid` for each message about a number.
pub fn invalid_number(errs: &mut ErrorList, path: &Path, value: i64, messages: Vec<String>) {
    for message in messages {
        invalid(errs, path, value, message);
    }
}

/// Lists `supported` in the order given: callers pass upstream's order.
pub fn not_supported(errs: &mut ErrorList, path: impl Display, value: impl Into<Value>, supported: &[&str]) {
    errs.push(FieldError::not_supported(path, value, supported));
}

/// A string that must be one of `supported`; `Required` when it is empty.
pub fn one_of(errs: &mut ErrorList, path: &Path, value: &str, supported: &[&str]) {
    if value.is_empty() {
        required(errs, path, "");
    } else if !supported.contains(&value) {
        not_supported(errs, path, value, supported);
    }
}

pub fn duplicate(errs: &mut ErrorList, path: impl Display, value: impl Into<Value>) {
    errs.push(FieldError::duplicate(path, value));
}

pub fn forbidden(errs: &mut ErrorList, path: impl Display, detail: impl Into<String>) {
    errs.push(FieldError::forbidden(path, detail));
}

pub fn not_found(errs: &mut ErrorList, path: impl Display, value: impl Into<Value>) {
    errs.push(FieldError::not_found(path, value));
}

pub fn too_long(errs: &mut ErrorList, path: impl Display, max: usize) {
    errs.push(FieldError::too_long(path, max));
}

pub fn too_many(errs: &mut ErrorList, path: impl Display, actual: usize, max: usize) {
    errs.push(FieldError::too_many(path, actual, max));
}

/// A field that may not change.
pub fn immutable(errs: &mut ErrorList, path: impl Display, new: &Value, old: &Value) {
    if !crate::value::same(new, old) {
        invalid(errs, path, new.clone(), "field is immutable");
    }
}

/// `value` must not be below 0.
pub fn non_negative(errs: &mut ErrorList, path: impl Display, value: i64) {
    if value < 0 {
        invalid(errs, path, value, "must be greater than or equal to 0");
    }
}
