//! Label and field selectors over stored metadata: bytes are never parsed.

use triarch_api::selector::{FieldSelector, LabelSelector};
use triarch_api::status::Status;
use triarch_mvcc::{Key, Meta, Object};

use crate::{Kind, err};

/// Which stored value a field requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Name,
    Namespace,
    /// Index into `Meta::fields`.
    Field(usize),
}

/// Both selectors of a request, checked against the kind.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    labels: Option<LabelSelector>,
    fields: Vec<(Source, bool, String)>,
}

impl Filter {
    /// 400 for what does not parse and for fields that the kind does not offer.
    pub fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Filter, Status> {
        let mut filter = Filter::default();
        if !labels.is_empty() {
            filter.labels = Some(LabelSelector::parse(labels).map_err(|e| err::bad_request(e.to_string()))?);
        }
        if fields.is_empty() {
            return Ok(filter);
        }
        let parsed = FieldSelector::parse(fields).map_err(|e| err::bad_request(e.to_string()))?;
        for requirement in parsed.requirements() {
            let path: &str = &requirement.field;
            let source = match path {
                "metadata.name" => Source::Name,
                "metadata.namespace" if kind.namespaced() || kind.selectable.is_empty() => Source::Namespace,
                _ => match kind.selectable.iter().position(|f| f.path == path) {
                    Some(i) => Source::Field(i),
                    None if kind.selectable.is_empty() => {
                        return Err(err::bad_request(format!(
                            "\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                        )));
                    }
                    None => return Err(err::bad_request(format!("field label not supported: {path}"))),
                },
            };
            filter.fields.push((source, !requirement.negated, requirement.value.clone()));
        }
        Ok(filter)
    }

    /// Matches everything: remaining counts are then exact.
    pub fn is_empty(&self) -> bool {
        self.labels.is_none() && self.fields.is_empty()
    }

    /// The one name that can match, when the selector says so.
    pub fn only_name(&self) -> Option<&str> {
        self.fields.iter().find_map(|(s, equals, v)| (*s == Source::Name && *equals).then_some(v.as_str()))
    }

    pub fn only_namespace(&self) -> Option<&str> {
        self.fields.iter().find_map(|(s, equals, v)| (*s == Source::Namespace && *equals).then_some(v.as_str()))
    }

    pub fn matches(&self, key: &Key, object: &Object) -> bool {
        let meta: &Meta = &object.meta;
        let label =
            |k: &str| meta.labels.binary_search_by(|(have, _)| (**have).cmp(k)).ok().map(|i| &*meta.labels[i].1);
        self.fields.iter().all(|(source, equals, value)| {
            let have = match source {
                Source::Name => key.name(),
                Source::Namespace => key.namespace(),
                Source::Field(i) => meta.fields.get(*i).map_or("", |f| &**f),
            };
            (have == value) == *equals
        }) && self.labels.as_ref().is_none_or(|l| l.matches(label))
    }
}
