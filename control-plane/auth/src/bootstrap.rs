//! The roles and bindings that a cluster has on its first day, read from
//! `policy.txt`. The leader creates those that are missing when it starts and
//! puts back what was taken from them, unless an object says otherwise with
//! `rbac.authorization.kubernetes.io/autoupdate: "false"`.

use serde_json::{Map, Value, json};

use crate::rules::Rule;

const POLICY: &str = include_str!("policy.txt");
const API: &str = "rbac.authorization.k8s.io/v1";

/// Every bootstrap role and binding as an object, roles before bindings of the
/// same section.
pub fn objects() -> Vec<Value> {
    parse(POLICY).expect("the built-in policy is well formed (a test reads it)")
}

/// What the role `system:node` allows: the Node authorizer's base.
pub fn node_rules() -> Vec<Rule> {
    let node = objects().into_iter().find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == "system:node");
    node.map(|o| Rule::all(&o)).unwrap_or_default()
}

fn parse(text: &str) -> Result<Vec<Value>, String> {
    let mut out: Vec<Value> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let bad = |what: &str| format!("line {}: {what}: {line}", n + 1);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["role", name, ref rest @ ..] => out.push(role(name, rest).ok_or_else(|| bad("role"))?),
            ["bind", name, ref rest @ ..] => out.push(binding(name, rest).ok_or_else(|| bad("bind"))?),
            _ if line.starts_with(' ') => {
                let rule = rule(&words).ok_or_else(|| bad("rule"))?;
                let rules = out.last_mut().and_then(|o| o.get_mut("rules")).and_then(Value::as_array_mut);
                rules.ok_or_else(|| bad("a rule outside a role"))?.push(rule);
            }
            _ => return Err(bad("unknown line")),
        }
    }
    Ok(out)
}

fn namespace<'a>(rest: &[&'a str]) -> (Option<&'a str>, usize) {
    match rest.first().and_then(|w| w.strip_prefix('@')) {
        Some(ns) => (Some(ns), 1),
        None => (None, 0),
    }
}

fn metadata(name: &str, namespace: Option<&str>) -> Map<String, Value> {
    let mut m = Map::new();
    m.insert("name".into(), name.into());
    if let Some(ns) = namespace {
        m.insert("namespace".into(), ns.into());
    }
    m.insert("annotations".into(), json!({"rbac.authorization.kubernetes.io/autoupdate": "true"}));
    m.insert("labels".into(), json!({"kubernetes.io/bootstrapping": "rbac-defaults"}));
    m
}

fn role(name: &str, rest: &[&str]) -> Option<Value> {
    let (ns, used) = namespace(rest);
    let mut meta = metadata(name, ns);
    let mut aggregation = None;
    let mut words = rest[used..].iter();
    while let Some(word) = words.next() {
        let label = *words.next()?;
        match *word {
            "aggregates" => aggregation = Some(json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]})),
            "into" => {
                meta.get_mut("labels")?.as_object_mut()?.insert(label.into(), "true".into());
            }
            _ => return None,
        }
    }
    let kind = if ns.is_some() { "Role" } else { "ClusterRole" };
    let mut o = json!({"apiVersion": API, "kind": kind, "metadata": meta, "rules": []});
    if let Some(a) = aggregation {
        o["aggregationRule"] = a;
    }
    Some(o)
}

fn rule(words: &[&str]) -> Option<Value> {
    let list = |w: &str| -> Vec<String> {
        w.split(',').map(|p| if p == "core" { String::new() } else { p.to_owned() }).collect()
    };
    match words {
        [verbs, "url", paths] => Some(json!({"nonResourceURLs": list(paths), "verbs": list(verbs)})),
        [verbs, groups, resources] => {
            Some(json!({"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)}))
        }
        [verbs, groups, resources, names] => Some(json!({
            "apiGroups": list(groups), "resourceNames": list(names.strip_prefix("names=")?),
            "resources": list(resources), "verbs": list(verbs),
        })),
        _ => None,
    }
}

fn binding(name: &str, rest: &[&str]) -> Option<Value> {
    let (ns, used) = namespace(rest);
    let (role, subjects) = rest[used..].split_first()?;
    let subjects: Option<Vec<Value>> = subjects.iter().flat_map(|w| w.split(',')).map(subject).collect();
    let (kind, role_kind) = if ns.is_some() { ("RoleBinding", "Role") } else { ("ClusterRoleBinding", "ClusterRole") };
    let mut o = json!({
        "apiVersion": API, "kind": kind, "metadata": metadata(name, ns),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
    });
    let subjects = subjects?;
    if !subjects.is_empty() {
        o["subjects"] = subjects.into();
    }
    Some(o)
}

fn subject(word: &str) -> Option<Value> {
    let (kind, name) = word.split_once(':')?;
    Some(match kind {
        "g" => json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name}),
        "u" => json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}),
        "s" => {
            let (ns, name) = name.split_once('/')?;
            json!({"kind": "ServiceAccount", "name": name, "namespace": ns})
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_policy_reads_and_every_binding_names_a_role_in_it() {
        let all = parse(POLICY).unwrap();
        let has = |kind: &Value, name: &Value, ns: &Value| {
            all.iter()
                .any(|o| o["kind"] == *kind && o["metadata"]["name"] == *name && o["metadata"]["namespace"] == *ns)
        };
        for b in all.iter().filter(|o| o["roleRef"].is_object()) {
            assert!(has(&b["roleRef"]["kind"], &b["roleRef"]["name"], &b["metadata"]["namespace"]), "{b}");
        }
        assert!(all.len() > 50, "{}", all.len());
    }

    #[test]
    fn anonymous_gets_what_the_public_info_viewer_gives_and_nothing_else() {
        let reach = |o: &&Value| {
            o["subjects"].as_array().is_some_and(|s| s.iter().any(|s| s["name"] == "system:unauthenticated"))
        };
        let all = objects();
        let names: Vec<_> = all.iter().filter(reach).map(|o| o["roleRef"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["system:public-info-viewer"]);
    }

    #[test]
    fn a_bad_policy_line_is_named() {
        assert!(parse("role a\nwhat").unwrap_err().starts_with("line 2"));
        assert!(parse("  get core pods").unwrap_err().contains("outside a role"));
    }
}
