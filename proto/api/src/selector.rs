//! Label selectors and field selectors: parsing, matching, printing.
//!
//! Errors carry upstream's texts. A selector with no requirement matches
//! everything; `LabelSelector::nothing()` matches nothing.

mod field;

use std::fmt;

use serde_json::Value;

use crate::field_error::{ErrorList, FieldError};
use crate::names;
pub use field::{FieldRequirement, FieldSelector};

/// The longest selector that is read, and the most requirements it may have.
pub const MAX_TEXT: usize = 64 * 1024;
pub const MAX_REQUIREMENTS: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One requirement. Values are sorted and unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub op: Op,
    pub values: Vec<String>,
}

impl Requirement {
    /// Checks key and values as upstream does, with its texts.
    pub fn new(key: &str, op: Op, mut values: Vec<String>) -> Result<Requirement, SelectorError> {
        let mut errs = ErrorList::new();
        errs.invalid_each("key", key, names::qualified_name(key));
        let values_json = || Value::from(values.clone());
        let mut wrong = |text: &str| errs.push(FieldError::invalid("values", values_json(), text));
        match op {
            Op::In | Op::NotIn if values.is_empty() => {
                wrong("for 'in', 'notin' operators, values set can't be empty");
            }
            Op::Equals | Op::DoubleEquals | Op::NotEquals if values.len() != 1 => {
                wrong("exact-match compatibility requires one single value");
            }
            Op::Exists | Op::DoesNotExist if !values.is_empty() => {
                wrong("values set must be empty for exists and does not exist");
            }
            Op::GreaterThan | Op::LessThan if values.len() != 1 => {
                wrong("for 'Gt', 'Lt' operators, exactly one value is required");
            }
            Op::GreaterThan | Op::LessThan if values[0].parse::<i64>().is_err() => {
                errs.push(FieldError::invalid(
                    "values[0]",
                    values[0].clone(),
                    "for 'Gt', 'Lt' operators, the value must be an integer",
                ));
            }
            _ => {}
        }
        for (i, v) in values.iter().enumerate() {
            errs.invalid_each(format!("values[{i}][{key}]"), v, names::label_value(v));
        }
        if !errs.is_empty() {
            return Err(SelectorError(errs.to_string()));
        }
        values.sort();
        values.dedup();
        Ok(Requirement { key: key.into(), op, values })
    }

    fn has(&self, v: &str) -> bool {
        self.values.iter().any(|x| x == v)
    }

    pub fn matches(&self, value: Option<&str>) -> bool {
        match self.op {
            Op::In | Op::Equals | Op::DoubleEquals => value.is_some_and(|v| self.has(v)),
            Op::NotIn | Op::NotEquals => !value.is_some_and(|v| self.has(v)),
            Op::Exists => value.is_some(),
            Op::DoesNotExist => value.is_none(),
            Op::GreaterThan | Op::LessThan => {
                let (Some(Ok(have)), Some(Ok(want))) =
                    (value.map(str::parse::<i64>), self.values.first().map(|w| w.parse::<i64>()))
                else {
                    return false;
                };
                if self.op == Op::GreaterThan { have > want } else { have < want }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.op {
            Op::In => write!(f, "{key} in ({values})"),
            Op::NotIn => write!(f, "{key} notin ({values})"),
            Op::Equals => write!(f, "{key}={values}"),
            Op::DoubleEquals => write!(f, "{key}=={values}"),
            Op::NotEquals => write!(f, "{key}!={values}"),
            Op::Exists => f.write_str(key),
            Op::DoesNotExist => write!(f, "!{key}"),
            Op::GreaterThan => write!(f, "{key}>{values}"),
            Op::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// Requirements that must all hold, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }
    pub fn nothing() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }
    /// `k=v` for each, unchecked: for selectors that are plain maps (Services, ReplicationControllers).
    pub fn from_map<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSelector {
        let one = |(k, v): (&str, &str)| Requirement { key: k.into(), op: Op::Equals, values: vec![v.into()] };
        let mut requirements: Vec<_> = pairs.into_iter().map(one).collect();
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { requirements, nothing: false }
    }
    pub fn new(mut requirements: Vec<Requirement>) -> LabelSelector {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { requirements, nothing: false }
    }
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }
    /// Against the labels of an object.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(|key| crate::meta::label(object, key))
    }

    /// The string form: `a=b,c in (d,e),!f`.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        if text.len() > MAX_TEXT {
            return Err(SelectorError(format!(
                "unable to parse requirement: selector is longer than {MAX_TEXT} bytes"
            )));
        }
        let mut p = Parser { tokens: lex(text), at: 0 };
        let requirements =
            p.selector().map_err(|e| SelectorError(e.0)).and_then(|r| match r.len() > MAX_REQUIREMENTS {
                true => Err(SelectorError(format!("unable to parse requirement: more than {MAX_REQUIREMENTS}"))),
                false => Ok(r),
            })?;
        Ok(LabelSelector::new(requirements))
    }

    /// The structured form (`metav1.LabelSelector`): null selects nothing, `{}` everything.
    pub fn from_json(v: &Value) -> Result<LabelSelector, SelectorError> {
        if v.is_null() {
            return Ok(LabelSelector::nothing());
        }
        let mut out = Vec::new();
        if let Some(map) = crate::meta::get_object(v, "matchLabels") {
            for (k, want) in map {
                out.push(Requirement::new(k, Op::Equals, vec![want.as_str().unwrap_or("").into()])?);
            }
        }
        for e in crate::meta::get_array(v, "matchExpressions").iter().take(MAX_REQUIREMENTS) {
            let op = match crate::meta::str_or_empty(e, "operator") {
                "In" => Op::In,
                "NotIn" => Op::NotIn,
                "Exists" => Op::Exists,
                "DoesNotExist" => Op::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{} is not a valid label selector operator",
                        crate::text::quote(other)
                    )));
                }
            };
            let values = crate::meta::get_array(e, "values").iter().filter_map(Value::as_str).map(String::from);
            out.push(Requirement::new(crate::meta::str_or_empty(e, "key"), op, values.collect())?);
        }
        Ok(LabelSelector::new(out))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&list.join(","))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open,
    Close,
    Comma,
    Not,
    Op(Op),
    Word,
    End,
    Error,
}

struct Token<'a> {
    kind: Kind,
    text: &'a str,
}

fn lex(text: &str) -> Vec<Token<'_>> {
    let special = |b: u8| matches!(b, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<');
    let space = |b: u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    let (b, mut i, mut out) = (text.as_bytes(), 0, Vec::new());
    while i < b.len() {
        if space(b[i]) {
            i += 1;
            continue;
        }
        let start = i;
        if special(b[i]) {
            // The longest operator that the text continues with.
            let two = text.get(i..i + 2).unwrap_or("");
            let (kind, n) = match (b[i], two) {
                (_, "==") => (Kind::Op(Op::DoubleEquals), 2),
                (_, "!=") => (Kind::Op(Op::NotEquals), 2),
                (b'=', _) => (Kind::Op(Op::Equals), 1),
                (b'!', _) => (Kind::Not, 1),
                (b'(', _) => (Kind::Open, 1),
                (b')', _) => (Kind::Close, 1),
                (b',', _) => (Kind::Comma, 1),
                (b'>', _) => (Kind::Op(Op::GreaterThan), 1),
                (b'<', _) => (Kind::Op(Op::LessThan), 1),
                _ => (Kind::Error, 1),
            };
            i += n;
            out.push(Token { kind, text: &text[start..i] });
        } else {
            while i < b.len() && !special(b[i]) && !space(b[i]) {
                i += 1;
            }
            let word = &text[start..i];
            let kind = match word {
                "in" => Kind::Op(Op::In),
                "notin" => Kind::Op(Op::NotIn),
                _ => Kind::Word,
            };
            out.push(Token { kind, text: word });
        }
    }
    out.push(Token { kind: Kind::End, text: "" });
    out
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> (Kind, &'a str) {
        let t = &self.tokens[self.at.min(self.tokens.len() - 1)];
        (t.kind, t.text)
    }
    /// Where names stand, `in` and `notin` are words.
    fn peek_word(&self) -> (Kind, &'a str) {
        match self.peek() {
            (Kind::Op(Op::In | Op::NotIn), text) => (Kind::Word, text),
            other => other,
        }
    }
    fn next(&mut self) -> (Kind, &'a str) {
        let t = self.peek();
        self.at += 1;
        t
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut out = Vec::new();
        loop {
            match self.peek_word() {
                (Kind::Word | Kind::Not, _) => {
                    let r = self.requirement();
                    out.push(r.map_err(|e| SelectorError(format!("unable to parse requirement: {}", e.0)))?);
                    match self.next() {
                        (Kind::End, _) => return Ok(out),
                        (Kind::Comma, _) => {
                            let (kind, text) = self.peek_word();
                            if !matches!(kind, Kind::Word | Kind::Not) {
                                return err(format!("found '{text}', expected: identifier after ','"));
                            }
                        }
                        (_, text) => return err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Kind::End, _) => return Ok(out),
                (_, text) => return err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut op = None;
        if self.peek().0 == Kind::Not {
            self.next();
            op = Some(Op::DoesNotExist);
        }
        let (kind, key) = self.peek_word();
        if kind != Kind::Word {
            return err(format!("found '{key}', expected: identifier"));
        }
        self.next();
        let bad = names::qualified_name(key);
        if !bad.is_empty() {
            let mut errs = ErrorList::new();
            // The parser knows no field: upstream prints its nil path.
            errs.invalid_each(crate::field_error::Path::root(), key, bad);
            return err(errs.to_string());
        }
        if op.is_none() && matches!(self.peek().0, Kind::End | Kind::Comma) {
            op = Some(Op::Exists);
        }
        if let Some(op) = op {
            return Requirement::new(key, op, Vec::new());
        }
        let op = match self.next() {
            (Kind::Op(op), _) => op,
            (_, text) => return err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let values = match op {
            Op::In | Op::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(key, op, values)
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let (kind, text) = self.next();
        if kind != Kind::Open {
            return err(format!("found '{text}' expected: '('"));
        }
        let mut out = Vec::new();
        // An empty value stands wherever two separators meet.
        let mut expect_value = true;
        loop {
            let (kind, text) = self.peek_word();
            match kind {
                Kind::Word if expect_value => {
                    out.push(text.to_string());
                    expect_value = false;
                    self.next();
                }
                Kind::Comma => {
                    if expect_value {
                        out.push(String::new());
                    }
                    expect_value = true;
                    self.next();
                }
                Kind::Close => {
                    if expect_value {
                        out.push(String::new());
                    }
                    self.next();
                    return Ok(out);
                }
                _ if expect_value && out.is_empty() => {
                    return err(format!("found '{text}', expected: ',', ')' or identifier"));
                }
                _ => return err(format!("found '{text}', expected: ',', or ')'")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        match self.peek_word() {
            (Kind::End | Kind::Comma, _) => Ok(String::new()),
            (Kind::Word, text) => {
                self.next();
                Ok(text.to_string())
            }
            (_, text) => err(format!("found '{text}', expected: identifier")),
        }
    }
}

fn err<T>(text: String) -> Result<T, SelectorError> {
    Err(SelectorError(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn m(selector: &str, labels: &[(&str, &str)]) -> bool {
        let s = LabelSelector::parse(selector).unwrap();
        s.matches(|k| labels.iter().find(|(n, _)| *n == k).map(|(_, v)| *v))
    }

    #[test]
    fn every_operator_matches_as_it_should() {
        let l = &[("a", "1"), ("in", "x")];
        for yes in [
            "",
            "a",
            "a=1",
            "a==1",
            "a!=2",
            "a in (1,2)",
            "a notin (2)",
            "!b",
            "b!=1",
            "b notin (1)",
            "a>0,a<2",
            "in in (x)",
        ] {
            assert!(m(yes, l), "{yes}");
        }
        for no in ["b", "a=2", "!a", "a in (2)", "a notin (1,2)", "a>1", "b>0", "a,b"] {
            assert!(!m(no, l), "{no}");
        }
        assert!(m("a in (,1)", l) && m("a=", &[("a", "")]));
        assert!(!LabelSelector::nothing().matches(|_| None));
    }

    #[test]
    fn errors_have_upstreams_texts() {
        let e = |s: &str| LabelSelector::parse(s).unwrap_err().0;
        assert_eq!(e("a,"), "found '', expected: identifier after ','");
        assert_eq!(e("a b"), "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt");
        assert_eq!(e("=a"), "found '=', expected: !, identifier, or 'end of string'");
        assert_eq!(e("a=b c"), "found 'c', expected: ',' or 'end of string'");
        assert_eq!(e("a in b"), "unable to parse requirement: found 'b' expected: '('");
        assert!(
            e("-a=b").starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist")
        );
        assert!(e("a=-").starts_with("unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label"));
        assert_eq!(
            LabelSelector::from_json(&serde_json::json!({"matchExpressions": [{"key": "a", "operator": "Foo"}]}))
                .unwrap_err()
                .0,
            "\"Foo\" is not a valid label selector operator"
        );
    }

    #[test]
    fn printing_gives_the_canonical_order() {
        let s = LabelSelector::parse("z=1, b in (y,x,x) ,!a").unwrap();
        assert_eq!(s.to_string(), "!a,b in (x,y),z=1");
        assert_eq!(LabelSelector::parse(&s.to_string()).unwrap(), s);
    }
}
