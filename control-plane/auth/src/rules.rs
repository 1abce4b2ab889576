//! Policy rules: what one rule of a role covers.

use serde_json::Value;
use triarch_registry::AuthzAttributes;

use crate::stored::strings;

/// One rule of a Role or ClusterRole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub urls: Vec<String>,
}

impl Rule {
    /// From the JSON of a rbac.authorization.k8s.io PolicyRule.
    pub fn from_json(v: &Value) -> Rule {
        Rule {
            verbs: strings(v, "verbs"),
            groups: strings(v, "apiGroups"),
            resources: strings(v, "resources"),
            names: strings(v, "resourceNames"),
            urls: strings(v, "nonResourceURLs"),
        }
    }

    /// All rules of a role object.
    pub fn all(role: &Value) -> Vec<Rule> {
        let rules = role.get("rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        rules.iter().map(Rule::from_json).collect()
    }

    /// Whether this rule allows the request.
    pub fn allows(&self, a: &AuthzAttributes) -> bool {
        if !has(&self.verbs, &a.verb) {
            return false;
        }
        if !a.resource_request {
            return self.urls.iter().any(|u| url_matches(u, &a.path));
        }
        has(&self.groups, &a.group)
            && self.covers_resource(&a.resource, &a.subresource)
            && (self.names.is_empty() || self.names.contains(&a.name))
    }

    /// `pods`, `pods/log`, `*`, `*/scale`.
    fn covers_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|r| {
            if r == "*" {
                return true;
            }
            match r.split_once('/') {
                None => subresource.is_empty() && r == resource,
                Some((parent, sub)) => sub == subresource && (parent == "*" || parent == resource),
            }
        })
    }

    /// Whether everything in `other` is in this rule. `other` names single
    /// verbs and resources (see [`Rule::atoms`]).
    fn covers_atom(&self, other: &Rule) -> bool {
        let each = |mine: &[String], theirs: &[String]| theirs.iter().all(|t| has(mine, t));
        if !each(&self.verbs, &other.verbs) {
            return false;
        }
        if !other.urls.is_empty() {
            return other.urls.iter().all(|t| self.urls.iter().any(|u| u == t || url_matches(u, t)));
        }
        each(&self.groups, &other.groups)
            && other.resources.iter().all(|t| {
                let (parent, sub) = t.split_once('/').unwrap_or((t, ""));
                self.resources.iter().any(|m| m == t) || self.covers_resource(parent, sub)
            })
            && (self.names.is_empty()
                || (!other.names.is_empty() && other.names.iter().all(|n| self.names.contains(n))))
    }

    /// The rule taken apart into rules of one verb, group, resource and name.
    fn atoms(&self) -> Vec<Rule> {
        let mut out = Vec::new();
        for verb in &self.verbs {
            for url in &self.urls {
                out.push(Rule { verbs: vec![verb.clone()], urls: vec![url.clone()], ..Rule::default() });
            }
            for (group, resource) in self.groups.iter().flat_map(|g| self.resources.iter().map(move |r| (g, r))) {
                let names: Vec<Vec<String>> = match &self.names[..] {
                    [] => vec![Vec::new()],
                    names => names.iter().map(|n| vec![n.clone()]).collect(),
                };
                out.extend(names.into_iter().map(|names| Rule {
                    verbs: vec![verb.clone()],
                    groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    names,
                    urls: Vec::new(),
                }));
            }
        }
        out
    }
}

/// The atoms of `wanted` that no rule of `held` covers: what a grant would add.
pub fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    atoms.filter(|atom| !held.iter().any(|h| h.covers_atom(atom))).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|l| l == "*" || l == wanted)
}

/// `*`, an exact path, or a prefix that ends in `*`.
fn url_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(verb: &str, resource: &str, sub: &str, name: &str) -> AuthzAttributes {
        AuthzAttributes {
            verb: verb.into(),
            resource_request: true,
            resource: resource.into(),
            subresource: sub.into(),
            name: name.into(),
            ..AuthzAttributes::default()
        }
    }

    fn rule(v: Value) -> Rule {
        Rule::from_json(&v)
    }

    #[test]
    fn a_rule_covers_subresources_only_when_it_names_them() {
        let pods = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "*/scale"]}));
        assert!(pods.allows(&ask("get", "pods", "", "x")));
        assert!(!pods.allows(&ask("get", "pods", "log", "x")));
        assert!(pods.allows(&ask("get", "deployments", "scale", "x")));
        assert!(!pods.allows(&ask("list", "pods", "", "")));
    }

    #[test]
    fn a_rule_with_names_allows_only_those_and_never_a_list() {
        let one = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a"]}));
        assert!(one.allows(&ask("get", "secrets", "", "a")));
        assert!(!one.allows(&ask("get", "secrets", "", "b")));
        assert!(!one.allows(&ask("list", "secrets", "", "")));
    }

    #[test]
    fn a_url_rule_matches_exactly_or_by_a_trailing_star() {
        let urls = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}));
        let get = |path: &str| AuthzAttributes { verb: "get".into(), path: path.into(), ..AuthzAttributes::default() };
        assert!(urls.allows(&get("/healthz")) && urls.allows(&get("/api/v1")));
        assert!(!urls.allows(&get("/healthz/etcd")) && !urls.allows(&get("/apis")));
    }

    #[test]
    fn a_grant_beyond_what_is_held_is_named_atom_by_atom() {
        let held = [rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}))];
        let wanted = [rule(json!({"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}))];
        let gap = missing(&held, &wanted);
        assert_eq!(gap.len(), 1);
        assert_eq!(gap[0].verbs, ["delete"]);
        let all = [rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}))];
        assert!(missing(&all, &wanted).is_empty());
        assert!(!missing(&held, &all).is_empty());
    }
}
