//! Label selectors over typed objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub type Labels = BTreeMap<String, String>;

/// Whether every pair of `wanted` is among `labels`.
pub fn subset(wanted: &Labels, labels: Option<&Labels>) -> bool {
    wanted.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
}

/// Whether a selector selects. An empty one selects everything; an operator
/// that is not known selects nothing.
pub fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let get = |k: &str| labels.and_then(|l| l.get(k));
    selector.match_labels.as_ref().is_none_or(|m| subset(m, labels))
        && selector.match_expressions.iter().flatten().all(|e| {
            let has = get(&e.key);
            let values = e.values.as_deref().unwrap_or_default();
            match e.operator.as_str() {
                "In" => has.is_some_and(|v| values.contains(v)),
                "NotIn" => has.is_none_or(|v| !values.contains(v)),
                "Exists" => has.is_some(),
                "DoesNotExist" => has.is_none(),
                _ => false,
            }
        })
}

/// Whether a selector has no requirement at all.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    #[test]
    fn every_operator_selects_as_documented() {
        let labels: Labels = [("a".to_owned(), "1".to_owned())].into();
        let one = |key: &str, operator: &str, values: &[&str]| LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.iter().map(|v| v.to_string()).collect()),
            }]),
            match_labels: None,
        };
        let yes = [
            one("a", "In", &["1", "2"]),
            one("b", "NotIn", &["1"]),
            one("a", "Exists", &[]),
            one("b", "DoesNotExist", &[]),
        ];
        let no = [
            one("a", "In", &["2"]),
            one("a", "NotIn", &["1"]),
            one("b", "Exists", &[]),
            one("a", "DoesNotExist", &[]),
            one("a", "?", &[]),
        ];
        assert!(yes.iter().all(|s| matches(s, Some(&labels))));
        assert!(!no.iter().any(|s| matches(s, Some(&labels))));
        assert!(matches(&LabelSelector::default(), None));
    }
}
