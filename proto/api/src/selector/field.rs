//! Field selectors: terms that compare one field with one value.

use std::fmt;

use super::{MAX_REQUIREMENTS, MAX_TEXT, SelectorError, err};

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: String,
    pub value: String,
    /// `!=`
    pub negated: bool,
}

/// `metadata.name=x,status.phase!=Running`; `\\`, `\,` and `\=` are escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    pub fn everything() -> FieldSelector {
        FieldSelector::default()
    }

    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        if text.len() > MAX_TEXT {
            return err(format!("invalid selector: longer than {MAX_TEXT} bytes"));
        }
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let Some((field, negated, raw)) = split_term(term) else {
                return err(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            requirements.push(FieldRequirement { field: field.to_string(), value: unescape(raw)?, negated });
            if requirements.len() > MAX_REQUIREMENTS {
                return err(format!("invalid selector: more than {MAX_REQUIREMENTS} terms"));
            }
        }
        requirements.sort_by(|a, b| a.field.cmp(&b.field));
        Ok(FieldSelector { requirements })
    }

    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }
    /// A field that is absent reads as "".
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (get(&r.field).unwrap_or("") == r.value) != r.negated)
    }
    /// The value that the field must equal, if there is such a term.
    pub fn requires_exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.field == field && !r.negated).map(|r| r.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let value = r.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{}{}{}{value}", if i > 0 { "," } else { "" }, r.field, if r.negated { "!=" } else { "=" })?;
        }
        Ok(())
    }
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find(['=', '!']).filter(|&i| term[i..].starts_with('=') || term[i..].starts_with("!="));
    let at = at.or_else(|| term.find("!=")).or_else(|| term.find('='))?;
    let (field, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, true, value));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((field, false, value))
}

fn unescape(raw: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(e @ ('\\' | ',' | '=')) => out.push(e),
                Some(e) => return err(format!("invalid field selector: invalid escape sequence: \\{e}")),
                None => return err("invalid field selector: invalid escape sequence: \\".to_string()),
            },
            ',' | '=' => {
                // Upstream prints the character's number.
                return err(format!("invalid field selector: unescaped character in value: {}", c as u32));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_selectors_split_escape_and_match() {
        let s = FieldSelector::parse("metadata.name=a\\,b,status.phase!=Run,x==y").unwrap();
        assert_eq!(s.requires_exact("metadata.name"), Some("a,b"));
        assert!(s.matches(|f| match f {
            "metadata.name" => Some("a,b"),
            "x" => Some("y"),
            _ => None,
        }));
        assert!(!s.matches(|_| Some("Run")));
        assert_eq!(FieldSelector::parse("foo").unwrap_err().0, "invalid selector: 'foo'; can't understand 'foo'");
        assert!(FieldSelector::parse("a=b\\x").is_err() && FieldSelector::parse("a=b=c").is_err());
        assert_eq!(s.to_string(), "metadata.name=a\\,b,status.phase!=Run,x=y");
    }
}
