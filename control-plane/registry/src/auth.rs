//! The seams to authentication and authorization. Implementations live in
//! `triarch-auth`; the HTTP layer calls them, rules and admission may ask the
//! authorizer too.

use async_trait::async_trait;
use triarch_api::status::Status;

use crate::UserInfo;

/// What authentication may look at.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The value of the `Authorization` header.
    pub authorization: Option<String>,
    /// The client's certificate chain (DER), leaf first; verified against the
    /// client CA. Empty when it sent none.
    pub peer_certificates: Vec<Vec<u8>>,
    /// Why the certificate that the client showed does not count. Other
    /// credentials of the request may still be good; without them it is 401.
    pub refused_certificate: Option<String>,
    /// Other headers, lower-case names, in order: front proxy and impersonation.
    pub headers: Vec<(String, String)>,
    /// A token that arrived in a WebSocket subprotocol (`base64url.bearer.authorization.k8s.io.…`).
    pub websocket_token: Option<String>,
}

/// Why a request is not authenticated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthnError {
    /// Credentials were presented and are not good: always 401.
    #[error("invalid credentials: {0}")]
    Invalid(String),
    /// The store cannot be asked now: 503.
    #[error("authentication is unavailable: {0}")]
    Unavailable(String),
    /// The identity is good, but it may not act as the one it asks for.
    #[error("{}", .0.message)]
    Refused(Box<Status>),
}

#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// `Ok(None)`: no credentials of a kind that this authenticator knows. The
    /// caller then goes on as `system:anonymous` in `system:unauthenticated`.
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<UserInfo>, AuthnError>;
}

/// One question to the authorizer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthzAttributes {
    /// `get`, `list`, `watch`, `create`, …; for non-resource requests the lower-case HTTP method.
    pub verb: String,
    pub resource_request: bool,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// For non-resource requests.
    pub path: String,
    pub field_selector: String,
    pub label_selector: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow { reason: String },
    Deny { reason: String },
    NoOpinion { reason: String },
}

impl Decision {
    pub fn allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }

    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow { reason } | Decision::Deny { reason } | Decision::NoOpinion { reason } => reason,
        }
    }
}

#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    async fn authorize(&self, user: &UserInfo, attributes: &AuthzAttributes) -> Decision;
}

/// Allows everything: for tests and tools on loopback.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _user: &UserInfo, _attributes: &AuthzAttributes) -> Decision {
        Decision::Allow { reason: String::new() }
    }
}
