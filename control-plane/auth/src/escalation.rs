//! Nobody grants more than they hold: the check behind writes of roles and
//! bindings, run as an admission plugin.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use triarch_api::status::Status;
use triarch_registry::{Admission, Attributes, AuthzAttributes, Operation};

use crate::SYSTEM_MASTERS;
use crate::rbac::Rbac;
use crate::rules::{Rule, missing};
use crate::stored::text;

const GROUP: &str = "rbac.authorization.k8s.io";

/// See the module's text.
pub struct Escalation {
    rbac: Arc<Rbac>,
}

impl Escalation {
    pub fn new(rbac: Arc<Rbac>) -> Escalation {
        Escalation { rbac }
    }

    fn may(&self, attrs: &Attributes<'_>, verb: &str, resource: &str, name: &str) -> bool {
        let ask = AuthzAttributes {
            verb: verb.into(),
            resource_request: true,
            group: GROUP.into(),
            version: "v1".into(),
            resource: resource.into(),
            namespace: attrs.namespace.into(),
            name: name.into(),
            ..AuthzAttributes::default()
        };
        self.rbac.decide(&attrs.ctx.user, &ask).allowed()
    }

    fn check(&self, attrs: &Attributes<'_>, wanted: &[Rule]) -> Result<(), String> {
        let user = &attrs.ctx.user;
        let gap = missing(&self.rbac.rules_for(user, attrs.namespace), wanted);
        if gap.is_empty() {
            return Ok(());
        }
        let mut lines: Vec<String> = gap.iter().map(show).collect();
        lines.sort();
        lines.dedup();
        Err(format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            format_args!("{:?}", user.groups).to_string().replace(", ", " "),
            lines.join("\n")
        ))
    }
}

fn show(r: &Rule) -> String {
    let list = |l: &[String]| l.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    let fields = [
        ("APIGroups", &r.groups),
        ("Resources", &r.resources),
        ("ResourceNames", &r.names),
        ("NonResourceURLs", &r.urls),
        ("Verbs", &r.verbs),
    ];
    for (name, values) in fields {
        if !values.is_empty() {
            parts.push(format!("{name}:[{}]", list(values)));
        }
    }
    format!("{{{}}}", parts.join(", "))
}

#[async_trait]
impl Admission for Escalation {
    async fn admit(&self, _attrs: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }

    async fn validate(&self, attrs: &Attributes<'_>) -> Result<(), Status> {
        let writes = matches!(attrs.operation, Operation::Create | Operation::Update);
        let Some(object) = attrs.object().filter(|_| writes && attrs.kind.group == GROUP) else {
            return Ok(());
        };
        let user = &attrs.ctx.user;
        let component = attrs.ctx.epoch.is_some();
        if component || user.in_group(SYSTEM_MASTERS) {
            return Ok(());
        }
        let unchanged = |field: &str| attrs.old.is_some_and(|old| old.get(field) == object.get(field));
        let refused = match attrs.kind.kind {
            "Role" | "ClusterRole" => {
                if (unchanged("rules") && unchanged("aggregationRule"))
                    || self.may(attrs, "escalate", attrs.kind.plural, attrs.name)
                {
                    return Ok(());
                }
                let aggregates = object.get("aggregationRule").is_some_and(Value::is_object);
                let everything =
                    [Rule::from_json(&serde_json::json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}))];
                let wanted = if aggregates { everything.to_vec() } else { Rule::all(object) };
                self.check(attrs, &wanted)
            }
            _ => {
                let cluster = text(object, "/roleRef/kind") == "ClusterRole";
                let (name, ns) = (text(object, "/roleRef/name"), if cluster { "" } else { attrs.namespace });
                let resource = if cluster { "clusterroles" } else { "roles" };
                if (unchanged("subjects") && unchanged("roleRef")) || self.may(attrs, "bind", resource, name) {
                    return Ok(());
                }
                match self.rbac.role(ns, name) {
                    Some(rules) => self.check(attrs, &rules),
                    None => return Err(Status::not_found((GROUP, resource), name)),
                }
            }
        };
        refused.map_err(|why| Status::forbidden((GROUP, attrs.kind.plural), attrs.name, &why))
    }
}
