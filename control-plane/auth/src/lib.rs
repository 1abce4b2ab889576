//! Who asks, and whether they may: authentication and authorization behind the
//! registry's seams.
//!
//! ```text
//!   client certificate ┐                       ┌ Node ┐
//!   service-account JWT ├► UserInfo ─ attributes ┤      ├► first Allow wins
//!   bootstrap token     ┘                       └ RBAC ┘
//! ```
//!
//! Policy is read from this replica's memory through watch cursors, so that a
//! decision costs no scan and no write; nothing here keeps state of its own
//! beyond that index.

pub mod authn;
pub mod bootstrap;
pub mod escalation;
pub mod impersonate;
pub mod issuer;
pub mod node;
pub mod rbac;
pub mod reviews;
pub mod rules;
mod stored;

use std::sync::Arc;

use async_trait::async_trait;
use triarch_registry::{Authorizer, AuthzAttributes, Decision, UserInfo};

/// The chain that a cluster runs: Node, then RBAC. The first that allows wins;
/// when none does, RBAC's reason is the answer's.
pub struct Chain {
    pub node: node::NodeAuthorizer,
    pub rbac: Arc<rbac::Rbac>,
}

#[async_trait]
impl Authorizer for Chain {
    async fn authorize(&self, user: &UserInfo, attributes: &AuthzAttributes) -> Decision {
        if user.in_group(SYSTEM_MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        let node = self.node.decide(user, attributes);
        if node.allowed() {
            return node;
        }
        let rbac = self.rbac.decide(user, attributes);
        if rbac.allowed() || node.reason().is_empty() {
            return rbac;
        }
        Decision::NoOpinion { reason: node.reason().to_owned() }
    }
}

/// The group that may do everything, whatever the roles say.
pub const SYSTEM_MASTERS: &str = "system:masters";
/// Everybody who has shown good credentials.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user of a request without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of node agents; their users are `system:node:<name>`.
pub const NODES: &str = "system:nodes";
/// Prefix of service-account users: `system:serviceaccount:<namespace>:<name>`.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
