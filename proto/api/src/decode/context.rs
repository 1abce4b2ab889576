//! Where a decoder is, and what it has found wrong so far.

use std::collections::BTreeSet;

use super::{DecodeError, Limits, Strictness};
use crate::text::quote;

/// Upstream reports at most this many strict errors.
const MAX_STRICT_ERRORS: usize = 100;

pub(super) enum Step {
    Key(String),
    Index(usize),
}

pub(super) struct Context {
    collect: bool,
    strict_errors: Vec<String>,
    seen: BTreeSet<String>,
    /// Path in strict errors: keys and indexes.
    pub path: Vec<Step>,
    /// Path in type errors: Go struct fields only.
    pub fields: Vec<&'static str>,
    /// The Go structs around, innermost last.
    pub structs: Vec<&'static str>,
    /// Inside raw values nothing strict is reported.
    pub raw: usize,
    pub depth: usize,
    max_depth: usize,
    pub error: Option<DecodeError>,
}

impl Context {
    pub fn new(strict: Strictness, limits: &Limits) -> Context {
        Context {
            collect: strict != Strictness::Ignore,
            strict_errors: Vec::new(),
            seen: BTreeSet::new(),
            path: Vec::new(),
            fields: Vec::new(),
            structs: Vec::new(),
            raw: 0,
            depth: 0,
            max_depth: limits.max_depth.min(crate::canon::MAX_DEPTH),
            error: None,
        }
    }

    pub fn into_strict_errors(self) -> Vec<String> {
        self.strict_errors
    }

    pub fn unknown(&mut self, key: &str) {
        self.strict("unknown field", key);
    }

    pub fn duplicate(&mut self, key: &str) {
        self.strict("duplicate field", key);
    }

    fn strict(&mut self, what: &str, key: &str) {
        if !self.collect || self.raw > 0 || self.strict_errors.len() >= MAX_STRICT_ERRORS {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Key(k) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(k);
                }
                Step::Index(i) => path.push_str(&format!("[{i}]")),
            }
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        let text = format!("{what} {}", quote(&path));
        if self.seen.insert(text.clone()) {
            self.strict_errors.push(text);
        }
    }

    /// `json: cannot unmarshal {what} into Go struct field T.a.b of type {go}`; the first is kept.
    pub fn mismatch(&mut self, what: &str, go: &str) {
        if self.error.is_some() {
            return;
        }
        let place = match self.structs.last() {
            Some(name) if !self.fields.is_empty() => format!("struct field {name}.{}", self.fields.join(".")),
            _ => "value".to_string(),
        };
        self.error = Some(DecodeError::Type(format!("json: cannot unmarshal {what} into Go {place} of type {go}")));
    }

    pub fn fail(&mut self, text: String) {
        self.error.get_or_insert(DecodeError::Type(text));
    }

    /// False when it is too deep to go on.
    pub fn enter(&mut self) -> bool {
        self.depth += 1;
        if self.depth > self.max_depth {
            self.error = Some(DecodeError::TooDeep);
            return false;
        }
        true
    }

    pub fn leave(&mut self) {
        self.depth -= 1;
    }
}
