//! RBAC over this replica's memory: roles and bindings, indexed by subject and
//! kept current through watch cursors that are read when a question comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use triarch_mvcc::{EventKind, Key, ListRequest, Mvcc, Prefix, Watcher};
use triarch_registry::{AuthzAttributes, Decision, UserInfo};

use crate::rules::Rule;
use crate::stored::{text, value};
use crate::{SERVICE_ACCOUNT_PREFIX, SYSTEM_MASTERS};

const ROLES: &str = "roles.rbac.authorization.k8s.io";
const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
const BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";
const CLUSTER_BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";

/// Events taken from a cursor at a time.
const BATCH: usize = 256;

/// Who a binding names: a user (service accounts by their user name) or a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    User(String),
    Group(String),
}

#[derive(Clone, Debug)]
struct Binding {
    /// Empty for a ClusterRoleBinding.
    namespace: String,
    name: String,
    /// Key of the role that it grants.
    role: Key,
    role_kind: &'static str,
    subjects: Vec<(Subject, String)>,
}

/// The RBAC authorizer.
pub struct Rbac {
    store: Arc<Mvcc>,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    cursors: Vec<Watcher>,
    roles: BTreeMap<Key, Arc<[Rule]>>,
    bindings: BTreeMap<Key, Arc<Binding>>,
    by_subject: BTreeMap<Subject, BTreeSet<Key>>,
}

impl Rbac {
    pub fn new(store: Arc<Mvcc>) -> Rbac {
        Rbac { store, index: Mutex::new(Index::default()) }
    }

    /// Allow with upstream's reason (it goes into the audit log), or no opinion.
    pub fn decide(&self, user: &UserInfo, attributes: &AuthzAttributes) -> Decision {
        let mut found = None;
        self.visit(user, &attributes.namespace, |binding, subject, rule| {
            let allows = rule.allows(attributes);
            if allows {
                found = Some(explain(binding, subject));
            }
            !allows
        });
        match found {
            Some(reason) => Decision::Allow { reason },
            None => Decision::NoOpinion { reason: String::new() },
        }
    }

    /// Every rule that holds for `user` in `namespace` (cluster-wide ones included).
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        if user.in_group(SYSTEM_MASTERS) {
            let all = || vec!["*".to_owned()];
            return vec![
                Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() },
                Rule { verbs: all(), urls: all(), ..Rule::default() },
            ];
        }
        let mut rules = Vec::new();
        self.visit(user, namespace, |_, _, rule| {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
            true
        });
        rules
    }

    /// The rules of one role; `None` when there is no such role. `namespace`
    /// empty: a ClusterRole.
    pub fn role(&self, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        let mut index = self.index.lock();
        index.refresh(&self.store);
        index.roles.get(&role_key(namespace, name)).cloned()
    }

    /// Calls `each` for every rule that reaches `user` in `namespace` until it
    /// says `false`: cluster bindings first.
    fn visit(&self, user: &UserInfo, namespace: &str, mut each: impl FnMut(&Binding, &str, &Rule) -> bool) {
        let subjects =
            std::iter::once(Subject::User(user.name.clone())).chain(user.groups.iter().cloned().map(Subject::Group));
        let subjects: Vec<Subject> = subjects.collect();
        let reached: Vec<(Arc<Binding>, Arc<[Rule]>)> = {
            let mut index = self.index.lock();
            index.refresh(&self.store);
            let mut keys = BTreeSet::new();
            for s in &subjects {
                keys.extend(index.by_subject.get(s).into_iter().flatten().cloned());
            }
            let all = keys.iter().filter_map(|k| index.bindings.get(k));
            let mut here: Vec<_> = all.filter(|b| b.namespace.is_empty() || b.namespace == namespace).collect();
            here.sort_by_key(|b| !b.namespace.is_empty());
            here.into_iter().filter_map(|b| Some((b.clone(), index.roles.get(&b.role)?.clone()))).collect()
        };
        for (binding, rules) in &reached {
            let who = binding.subjects.iter().find(|(s, _)| subjects.contains(s)).map_or("", |(_, text)| text);
            for rule in rules.iter() {
                if !each(binding, who, rule) {
                    return;
                }
            }
        }
    }
}

fn explain(b: &Binding, subject: &str) -> String {
    let role = format!("{} {:?}", b.role_kind, b.role.name());
    if b.namespace.is_empty() {
        format!("RBAC: allowed by ClusterRoleBinding {:?} of {role} to {subject}", b.name)
    } else {
        let full = format!("{}/{}", b.name, b.namespace);
        format!("RBAC: allowed by RoleBinding {full:?} of {role} to {subject}")
    }
}

fn role_key(namespace: &str, name: &str) -> Key {
    Key::new(if namespace.is_empty() { CLUSTER_ROLES } else { ROLES }, namespace, name)
}

impl Index {
    /// Takes in what has been applied since the last question; starts anew
    /// when a cursor fell out of the watch window.
    fn refresh(&mut self, store: &Arc<Mvcc>) {
        if self.cursors.is_empty() && !self.load(store) {
            return;
        }
        let mut cursors = std::mem::take(&mut self.cursors);
        for cursor in &mut cursors {
            loop {
                let Ok(events) = cursor.try_next(BATCH) else {
                    *self = Index::default();
                    self.load(store);
                    return;
                };
                for e in &events {
                    match (&e.kind, &e.object) {
                        (EventKind::Put, Some(o)) => self.put(&e.key, &value(o)),
                        _ => self.remove(&e.key),
                    }
                }
                if events.len() < BATCH {
                    break;
                }
            }
        }
        self.cursors = cursors;
    }

    fn load(&mut self, store: &Arc<Mvcc>) -> bool {
        for resource in [ROLES, CLUSTER_ROLES, BINDINGS, CLUSTER_BINDINGS] {
            let prefix = Prefix::resource(resource);
            let request = ListRequest { prefix: prefix.clone(), after: None, limit: 0, at: None };
            let Ok(list) = store.list(&request) else { return false };
            for stored in &list.items {
                self.put(&stored.key, &value(&stored.object));
            }
            let Ok(cursor) = store.watch(prefix, list.revision) else { return false };
            self.cursors.push(cursor);
        }
        true
    }

    fn put(&mut self, key: &Key, object: &Value) {
        if matches!(key.resource(), ROLES | CLUSTER_ROLES) {
            self.roles.insert(key.clone(), Rule::all(object).into());
            return;
        }
        self.remove(key);
        let binding = read_binding(key, object);
        for (subject, _) in &binding.subjects {
            self.by_subject.entry(subject.clone()).or_default().insert(key.clone());
        }
        self.bindings.insert(key.clone(), Arc::new(binding));
    }

    fn remove(&mut self, key: &Key) {
        self.roles.remove(key);
        let Some(old) = self.bindings.remove(key) else { return };
        for (subject, _) in &old.subjects {
            if let Some(keys) = self.by_subject.get_mut(subject) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_subject.remove(subject);
                }
            }
        }
    }
}

fn read_binding(key: &Key, object: &Value) -> Binding {
    let cluster_role = text(object, "/roleRef/kind") == "ClusterRole";
    let role = role_key(if cluster_role { "" } else { key.namespace() }, text(object, "/roleRef/name"));
    let subjects = object.get("subjects").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let subjects = subjects.iter().filter_map(|s| {
        let name = text(s, "/name");
        match text(s, "/kind") {
            "User" => Some((Subject::User(name.to_owned()), format!("User {name:?}"))),
            "Group" => Some((Subject::Group(name.to_owned()), format!("Group {name:?}"))),
            "ServiceAccount" => {
                let ns = match text(s, "/namespace") {
                    "" => key.namespace(),
                    ns => ns,
                };
                let full = format!("{name}/{ns}");
                Some((
                    Subject::User(format!("{SERVICE_ACCOUNT_PREFIX}{ns}:{name}")),
                    format!("ServiceAccount {full:?}"),
                ))
            }
            _ => None,
        }
    });
    Binding {
        namespace: key.namespace().to_owned(),
        name: key.name().to_owned(),
        role,
        role_kind: if cluster_role { "ClusterRole" } else { "Role" },
        subjects: subjects.collect(),
    }
}
