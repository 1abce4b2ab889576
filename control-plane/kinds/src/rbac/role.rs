//! Role.

use triarch_registry::Kind;

use super::{GROUP, policy_rules};
use crate::meta;
use crate::print::{CREATED_AT, NAME};

pub static KIND: Kind = Kind {
    group: GROUP,
    kind: "Role",
    list_kind: "RoleList",
    plural: "roles",
    singular: "role",
    schema: "rbac/v1.Role",
    resource: "roles.rbac.authorization.k8s.io",
    columns: &[NAME, CREATED_AT],
    create_on_update: true,
    validate_name: meta::path_segment_name,
    validate: |_, v, errs| policy_rules(errs, v, true),
    ..Kind::BASE
};
