//! RoleBinding.

use triarch_registry::Kind;

use super::{GROUP, binding, binding_defaults, keeps_role, role_cell, subjects};
use crate::describe;
use crate::meta;
use crate::print::{AGE, NAME, text, wide};

pub static KIND: Kind = Kind {
    group: GROUP,
    kind: "RoleBinding",
    list_kind: "RoleBindingList",
    plural: "rolebindings",
    singular: "rolebinding",
    schema: "rbac/v1.RoleBinding",
    resource: "rolebindings.rbac.authorization.k8s.io",
    columns: &[
        NAME,
        text("Role", describe::ROLE_BINDING_ROLE, role_cell),
        AGE,
        wide("Users", "Users in the roleBinding", |v, _| subjects(v, "User")),
        wide("Groups", "Groups in the roleBinding", |v, _| subjects(v, "Group")),
        wide("ServiceAccounts", "ServiceAccounts in the roleBinding", |v, _| subjects(v, "ServiceAccount")),
    ],
    create_on_update: true,
    validate_name: meta::path_segment_name,
    defaults: binding_defaults,
    validate: |_, v, errs| binding(errs, v, &["Role", "ClusterRole"], true),
    validate_update: |_, new, old, errs| keeps_role(errs, new, old),
    ..Kind::BASE
};
