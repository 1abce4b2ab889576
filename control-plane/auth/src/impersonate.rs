//! Impersonation: acting as another user, by `Impersonate-*` headers.

use std::sync::Arc;

use async_trait::async_trait;
use triarch_api::status::Status;
use triarch_registry::{Authenticator, AuthnError, Authorizer, AuthzAttributes, Credentials, UserInfo};

use crate::{ANONYMOUS, AUTHENTICATED, SERVICE_ACCOUNT_PREFIX, UNAUTHENTICATED};

/// An authenticator whose users may go on as others, when they are allowed to.
pub struct Impersonating {
    pub inner: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Authenticator for Impersonating {
    async fn authenticate(&self, c: &Credentials) -> Result<Option<UserInfo>, AuthnError> {
        let user = self.inner.authenticate(c).await?;
        if !c.headers.iter().any(|(k, _)| k.starts_with("impersonate-")) {
            return Ok(user);
        }
        let own = user.unwrap_or_else(|| UserInfo::new(ANONYMOUS, &[UNAUTHENTICATED]));
        match impersonate(&own, &c.headers, &*self.authorizer).await {
            Ok(other) => Ok(Some(other.unwrap_or(own))),
            Err(Refused::Malformed(why)) => Err(AuthnError::Refused(Box::new(Status::bad_request(why)))),
            Err(Refused::Forbidden(q, reason)) => {
                let resource = match q.subresource.as_str() {
                    "" => q.resource.clone(),
                    sub => format!("{}/{sub}", q.resource),
                };
                let mut why =
                    format!("User {:?} cannot impersonate resource {resource:?} in API group {:?}", own.name, q.group);
                match q.namespace.as_str() {
                    "" => why.push_str(" at the cluster scope"),
                    ns => why.push_str(&format!(" in the namespace {ns:?}")),
                }
                if !reason.is_empty() {
                    why.push_str(&format!(": {reason}"));
                }
                let status = Status::forbidden((q.group.as_str(), q.resource.as_str()), &q.name, why);
                Err(AuthnError::Refused(Box::new(status)))
            }
        }
    }
}

/// Why an impersonation is not granted; each is a 403 (or 400 for `Malformed`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Groups, uid or extras without a user.
    Malformed(String),
    /// The question that was answered with no.
    Forbidden(Box<AuthzAttributes>, String),
}

/// The user to go on as: `None` when the headers ask for no impersonation.
/// Header names are lower-case.
pub async fn impersonate(
    user: &UserInfo,
    headers: &[(String, String)],
    authorizer: &dyn Authorizer,
) -> Result<Option<UserInfo>, Refused> {
    let all = |name: &'static str| headers.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.clone());
    let extras: Vec<(String, String)> = headers
        .iter()
        .filter_map(|(k, v)| k.strip_prefix("impersonate-extra-").map(|k| (percent_decode(k), v.clone())))
        .collect();
    let (name, uid) = (all("impersonate-user").next().unwrap_or_default(), all("impersonate-uid").next());
    let groups: Vec<String> = all("impersonate-group").collect();
    if name.is_empty() {
        if groups.is_empty() && extras.is_empty() && uid.is_none() {
            return Ok(None);
        }
        return Err(Refused::Malformed(format!(
            "requested {:?} without impersonating a user",
            groups.first().or(uid.as_ref()).or(extras.first().map(|(_, v)| v)).cloned().unwrap_or_default()
        )));
    }

    let mut questions = Vec::new();
    let ask = |group: &str, resource: &str, sub: &str, ns: &str, name: &str| AuthzAttributes {
        verb: "impersonate".into(),
        resource_request: true,
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: sub.into(),
        namespace: ns.into(),
        name: name.into(),
        ..AuthzAttributes::default()
    };
    let account = name.strip_prefix(SERVICE_ACCOUNT_PREFIX).and_then(|r| r.split_once(':'));
    let account = account.map(|(ns, sa)| (ns.to_owned(), sa.to_owned()));
    match &account {
        Some((ns, sa)) => questions.push(ask("", "serviceaccounts", "", ns, sa)),
        None => questions.push(ask("", "users", "", "", &name)),
    }
    questions.extend(groups.iter().map(|g| ask("", "groups", "", "", g)));
    questions.extend(uid.iter().map(|u| ask("authentication.k8s.io", "uids", "", "", u)));
    questions.extend(extras.iter().map(|(k, v)| ask("authentication.k8s.io", "userextras", k, "", v)));
    for q in questions {
        let answer = authorizer.authorize(user, &q).await;
        if !answer.allowed() {
            return Err(Refused::Forbidden(Box::new(q), answer.reason().to_owned()));
        }
    }

    let mut out = UserInfo { name, uid: uid.unwrap_or_default(), groups, ..UserInfo::default() };
    if let Some((ns, _)) = account.filter(|_| out.groups.is_empty()) {
        out.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{ns}")];
    }
    let base = if out.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !out.in_group(AUTHENTICATED) && !out.in_group(UNAUTHENTICATED) {
        out.groups.push(base.into());
    }
    for (k, v) in extras {
        out.extra.entry(k).or_default().push(v);
    }
    Ok(Some(out))
}

/// Header names carry extra keys percent-encoded; what does not decode stays.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let hex = text.get(i + 1..i + 3).filter(|_| bytes[i] == b'%').and_then(|h| u8::from_str_radix(h, 16).ok());
        match hex {
            Some(b) => {
                out.push(b);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use triarch_registry::{AlwaysAllow, Decision};

    use super::*;

    fn headers(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[tokio::test]
    async fn an_impersonated_service_account_gets_its_groups() {
        let h = headers(&[("impersonate-user", "system:serviceaccount:a:b"), ("impersonate-extra-x%2Fy", "z")]);
        let got = impersonate(&UserInfo::default(), &h, &AlwaysAllow).await.unwrap().unwrap();
        assert_eq!(got.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        assert_eq!(got.extra["x/y"], ["z"]);
    }

    #[tokio::test]
    async fn a_group_without_a_user_is_malformed() {
        let h = headers(&[("impersonate-group", "g")]);
        let got = impersonate(&UserInfo::default(), &h, &AlwaysAllow).await;
        assert!(matches!(got, Err(Refused::Malformed(_))));
        assert_eq!(impersonate(&UserInfo::default(), &[], &AlwaysAllow).await, Ok(None));
    }

    struct Nobody;

    #[async_trait]
    impl Authorizer for Nobody {
        async fn authorize(&self, _: &UserInfo, _: &AuthzAttributes) -> Decision {
            Decision::NoOpinion { reason: String::new() }
        }
    }

    struct Bob;

    #[async_trait]
    impl Authenticator for Bob {
        async fn authenticate(&self, _: &Credentials) -> Result<Option<UserInfo>, AuthnError> {
            Ok(Some(UserInfo::new("bob", &[])))
        }
    }

    #[tokio::test]
    async fn who_may_not_impersonate_is_refused_and_does_not_go_on_as_himself() {
        let c = Credentials { headers: headers(&[("impersonate-user", "root")]), ..Credentials::default() };
        let chain = Impersonating { inner: Arc::new(Bob), authorizer: Arc::new(Nobody) };
        let Err(AuthnError::Refused(status)) = chain.authenticate(&c).await else { panic!("granted") };
        assert_eq!(status.code, 403);
        assert_eq!(
            status.message,
            r#"users "root" is forbidden: User "bob" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
        assert_eq!(chain.authenticate(&Credentials::default()).await.unwrap().unwrap().name, "bob");
    }
}
