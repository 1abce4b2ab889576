//! Field errors: what is wrong, where, and the text that upstream prints.

use std::fmt;

use serde_json::Value;

use crate::text;

/// The kinds of field error, with their names in `causes` and in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    TypeInvalid,
    Internal,
}

impl FieldErrorKind {
    /// The cause's reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

/// One error. `Display` is `field: body`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    pub field: String,
    /// What was given; `None` prints no value.
    pub value: Option<Value>,
    pub detail: String,
    /// How the value is printed, when its JSON is not what upstream shows.
    pub shown: Option<String>,
}

impl FieldError {
    fn new(kind: FieldErrorKind, field: impl fmt::Display, value: Option<Value>, detail: String) -> FieldError {
        FieldError { kind, field: field.to_string(), value, detail, shown: None }
    }
    pub fn required(field: impl fmt::Display, detail: impl Into<String>) -> FieldError {
        Self::new(FieldErrorKind::Required, field, None, detail.into())
    }
    pub fn invalid(field: impl fmt::Display, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
        Self::new(FieldErrorKind::Invalid, field, Some(value.into()), detail.into())
    }
    pub fn type_invalid(field: impl fmt::Display, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
        Self::new(FieldErrorKind::TypeInvalid, field, Some(value.into()), detail.into())
    }
    /// `Unsupported value: "x": supported values: "a", "b"`, in the order given.
    pub fn not_supported<S: AsRef<str>>(field: impl fmt::Display, value: impl Into<Value>, valid: &[S]) -> FieldError {
        let detail = match valid.is_empty() {
            true => String::new(),
            false => format!("supported values: {}", text::quoted_list(valid)),
        };
        Self::new(FieldErrorKind::NotSupported, field, Some(value.into()), detail)
    }
    pub fn duplicate(field: impl fmt::Display, value: impl Into<Value>) -> FieldError {
        Self::new(FieldErrorKind::Duplicate, field, Some(value.into()), String::new())
    }
    pub fn forbidden(field: impl fmt::Display, detail: impl Into<String>) -> FieldError {
        Self::new(FieldErrorKind::Forbidden, field, None, detail.into())
    }
    /// `Too long: may not be more than N bytes`.
    pub fn too_long(field: impl fmt::Display, max: usize) -> FieldError {
        Self::new(FieldErrorKind::TooLong, field, None, format!("may not be more than {max} bytes"))
    }
    /// `Too many: 9: must have at most 8 items`.
    pub fn too_many(field: impl fmt::Display, actual: usize, max: usize) -> FieldError {
        let items = if max == 1 { "item" } else { "items" };
        Self::new(FieldErrorKind::TooMany, field, Some(actual.into()), format!("must have at most {max} {items}"))
    }
    pub fn not_found(field: impl fmt::Display, value: impl Into<Value>) -> FieldError {
        Self::new(FieldErrorKind::NotFound, field, Some(value.into()), String::new())
    }
    pub fn internal(field: impl fmt::Display, detail: impl Into<String>) -> FieldError {
        Self::new(FieldErrorKind::Internal, field, None, detail.into())
    }

    /// The same error with its value printed as `shown`.
    #[must_use]
    pub fn showing(mut self, shown: String) -> FieldError {
        self.shown = Some(shown);
        self
    }

    /// The message without the field: what a cause carries.
    pub fn body(&self) -> String {
        let mut out = self.kind.words().to_string();
        if let Some(value) = &self.value {
            out.push_str(": ");
            match &self.shown {
                Some(shown) => out.push_str(shown),
                None => out.push_str(&text::bad_value(value)),
            }
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// The errors of one object, in the order found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorList(pub Vec<FieldError>);

impl ErrorList {
    pub fn new() -> ErrorList {
        ErrorList::default()
    }
    pub fn push(&mut self, e: FieldError) {
        self.0.push(e);
    }
    pub fn extend(&mut self, other: impl IntoIterator<Item = FieldError>) {
        self.0.extend(other);
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }
    /// One `Invalid` error for each message (as name validators give them).
    pub fn invalid_each(&mut self, field: impl fmt::Display, value: &str, messages: Vec<String>) {
        let field = field.to_string();
        self.extend(messages.into_iter().map(|m| FieldError::invalid(&field, value, m)));
    }
}

impl IntoIterator for ErrorList {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<FieldError> for ErrorList {
    fn from(e: FieldError) -> ErrorList {
        ErrorList(vec![e])
    }
}

/// An aggregate: one error plain, several in brackets, equal texts once.
impl fmt::Display for ErrorList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seen: Vec<String> = Vec::with_capacity(self.0.len());
        let mut known = std::collections::BTreeSet::new();
        for text in self.0.iter().map(ToString::to_string) {
            if known.insert(text.clone()) {
                seen.push(text);
            }
        }
        match &seen[..] {
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

/// Where a field is: `spec.containers[0].resources.limits[cpu]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    pub fn new(root: &str) -> Path {
        Path(root.to_string())
    }
    /// The place of the object itself: children carry no leading dot.
    pub fn root() -> Path {
        Path::default()
    }
    #[must_use]
    pub fn child(&self, name: &str) -> Path {
        if self.0.is_empty() { Path(name.to_string()) } else { Path(format!("{}.{name}", self.0)) }
    }
    #[must_use]
    pub fn index(&self, i: usize) -> Path {
        Path(format!("{}[{i}]", self.0))
    }
    #[must_use]
    pub fn key(&self, key: &str) -> Path {
        Path(format!("{}[{key}]", self.0))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_print_as_upstream_prints_them() {
        let p = Path::new("spec").child("containers").index(0).child("limits").key("cpu");
        assert_eq!(p.to_string(), "spec.containers[0].limits[cpu]");
        let text = |e: FieldError| e.to_string();
        assert_eq!(text(FieldError::required(&p, "")), "spec.containers[0].limits[cpu]: Required value");
        assert_eq!(text(FieldError::invalid("a", "x", "bad")), r#"a: Invalid value: "x": bad"#);
        assert_eq!(text(FieldError::invalid("a", -1, "bad")), "a: Invalid value: -1: bad");
        assert_eq!(
            text(FieldError::not_supported("a", "x", &["A", "B"])),
            r#"a: Unsupported value: "x": supported values: "A", "B""#
        );
        assert_eq!(text(FieldError::too_long("a", 5)), "a: Too long: may not be more than 5 bytes");
        assert_eq!(text(FieldError::too_many("a", 2, 1)), "a: Too many: 2: must have at most 1 item");
        assert_eq!(text(FieldError::duplicate("a", "x")), r#"a: Duplicate value: "x""#);
    }

    #[test]
    fn an_aggregate_brackets_several_and_drops_repeats() {
        let e = FieldError::required("a", "");
        assert_eq!(ErrorList(vec![e.clone(), e.clone()]).to_string(), "a: Required value");
        let two = ErrorList(vec![e, FieldError::forbidden("b", "no")]);
        assert_eq!(two.to_string(), "[a: Required value, b: Forbidden: no]");
    }
}
