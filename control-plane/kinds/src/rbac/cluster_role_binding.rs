//! ClusterRoleBinding.

use triarch_registry::{Kind, Scope};

use super::{GROUP, binding, binding_defaults, keeps_role, role_cell, subjects};
use crate::describe;
use crate::meta;
use crate::print::{AGE, NAME, text, wide};

pub static KIND: Kind = Kind {
    group: GROUP,
    kind: "ClusterRoleBinding",
    list_kind: "ClusterRoleBindingList",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    scope: Scope::Cluster,
    schema: "rbac/v1.ClusterRoleBinding",
    resource: "clusterrolebindings.rbac.authorization.k8s.io",
    columns: &[
        NAME,
        text("Role", describe::CLUSTER_ROLE_BINDING_ROLE, role_cell),
        AGE,
        wide("Users", "Users in the clusterRoleBinding", |v, _| subjects(v, "User")),
        wide("Groups", "Groups in the clusterRoleBinding", |v, _| subjects(v, "Group")),
        wide("ServiceAccounts", "ServiceAccounts in the clusterRoleBinding", |v, _| subjects(v, "ServiceAccount")),
    ],
    create_on_update: true,
    validate_name: meta::path_segment_name,
    defaults: binding_defaults,
    validate: |_, v, errs| binding(errs, v, &["ClusterRole"], false),
    validate_update: |_, new, old, errs| keeps_role(errs, new, old),
    ..Kind::BASE
};
