//! ClusterRole, with aggregation.

use serde_json::Value;
use triarch_api::selector::LabelSelector;
use triarch_api::status::ErrorList;
use triarch_registry::{Kind, Scope};

use super::{GROUP, policy_rules};
use crate::field::{self, Path};
use crate::meta;
use crate::print::{CREATED_AT, NAME};
use crate::value::{list, opt};

pub static KIND: Kind = Kind {
    group: GROUP,
    kind: "ClusterRole",
    list_kind: "ClusterRoleList",
    plural: "clusterroles",
    singular: "clusterrole",
    scope: Scope::Cluster,
    schema: "rbac/v1.ClusterRole",
    resource: "clusterroles.rbac.authorization.k8s.io",
    columns: &[NAME, CREATED_AT],
    create_on_update: true,
    validate_name: meta::path_segment_name,
    validate: |_, v, errs| validate(errs, v),
    ..Kind::BASE
};

fn validate(errs: &mut ErrorList, v: &Value) {
    policy_rules(errs, v, false);
    let Some(aggregation) = opt(v, "aggregationRule") else { return };
    let (p, selectors) =
        (Path::new("aggregationRule").child("clusterRoleSelectors"), list(aggregation, "clusterRoleSelectors"));
    if selectors.is_empty() {
        field::required(errs, &p, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (i, selector) in selectors.iter().enumerate() {
        meta::label_selector(errs, &p.index(i), Some(selector));
        if LabelSelector::from_json(selector).is_err() {
            field::invalid(errs, p.index(i), Value::Null, "invalid label selector.");
        }
    }
}
